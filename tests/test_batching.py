"""From decisions to tensors: what is cut, where the input ends, and which logit is whose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import make_tokenizer
from made_decisions import candidate_decision, label_decision
from tiny_models import RATIONALE, encoder, mixed_rows

from dhrd_plugin.batching import NO_TARGET, Batch, Encoder, batches_by_length, collate

BOS, EOS = 256, 257
PAD = EOS


def tokenizer_with(template: str):
    """The byte tokenizer with `template` ("<bos> $A <eos>", say) around every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    return tokenizer


def text_of(ids):
    return make_tokenizer().decode(ids)


# Encoder


def test_suffix_is_rendered_as_in_the_paper():
    row = encoder().encode(label_decision(gold=1), "It pours.")
    assert text_of(row.suffix) == "\nReasoning:\nIt pours.\nFinal Answer:\nFalse<eos>"
    assert row.suffix_row == 0
    assert text_of(row.inputs[0]) == label_decision().inputs[0]


def test_empty_rationale_leaves_the_answer_alone():
    encoded = encoder().encode(label_decision(gold=1), "")
    assert make_tokenizer().decode(encoded.suffix[:-1]) == "\nFinal Answer:\nFalse"
    assert encoded.suffix[-1] == PAD


@pytest.mark.parametrize("decision", [label_decision(), candidate_decision(gold=1)])
def test_rationale_span_has_the_targets_behind_the_input(decision):
    full = encoder().encode(decision, "Why.")
    span = Encoder(make_tokenizer(), ["made", "made_copa"], 400, "rationale").encode(
        decision, "Why."
    )
    row, length = span.suffix_row, len(span.inputs[span.suffix_row])
    batch, whole = collate([span], PAD), collate([full], PAD)
    assert torch.equal(batch.input_ids, whole.input_ids)
    expected = whole.targets.clone()
    expected[row, : length - 1] = NO_TARGET
    assert torch.equal(batch.targets, expected)
    assert batch.targets[row, length - 1] == span.suffix[0]
    assert int((batch.targets != NO_TARGET).sum()) == len(span.suffix)


def test_soft_labels_have_a_row_of_zeros_where_there_are_none():
    decisions = [(label_decision(0), (0.7, 0.2, 0.1)), (candidate_decision(), (0.9, 0.1))]
    encoded = [encoder().encode(d, label_probs=probs) for d, probs in decisions]
    batch = collate([*encoded, encoder().encode(label_decision(1))], PAD)
    expected = torch.tensor([[0.7, 0.2, 0.1], [0.9, 0.1, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(batch.label_probs, expected)


def test_suffix_of_candidates_follows_the_first_gold_one():
    row = encoder().encode(candidate_decision(gold=1), "It pours.")
    assert row.suffix_row == 1
    assert text_of(row.suffix).endswith("\nFinal Answer:\nthe grass was cut.<eos>")
    assert row.n_choices == 2 and row.head == 1 and row.gold == {1}


def test_input_is_the_same_with_and_without_a_rationale():
    for decision in (label_decision(), candidate_decision()):
        plain = encoder().encode(decision)
        assert encoder().encode(decision, RATIONALE).inputs == plain.inputs
        assert plain.suffix == []


@pytest.mark.parametrize(
    ("template", "prefix"),
    [("$A", []), ("<bos> $A", [BOS]), ("<bos> $A <eos>", [BOS]), ("$A <eos>", [])],
)
def test_bos_stays_and_eos_never_closes_the_input(template, prefix):
    tokenizer = tokenizer_with(template)
    decision = label_decision(context="Rain.")
    row = encoder(tokenizer).encode(decision, "Drops.")
    assert tokenizer("Rain.").input_ids[: len(prefix)] == prefix  # the premise
    assert row.inputs[0] == prefix + make_tokenizer()("Rain.").input_ids
    assert row.suffix.count(EOS) == 1 and row.suffix[-1] == EOS and BOS not in row.suffix
    cut = encoder(tokenizer, max_length=16).encode(label_decision(context="x" * 40 + "Rain?"))
    assert len(cut.inputs[0]) == 16
    assert cut.inputs[0][: len(prefix)] == prefix
    assert text_of(cut.inputs[0][len(prefix) :]).endswith("xRain?")


def test_rationale_is_cut_first_and_the_answer_kept():
    decision = label_decision(context="Rain?", gold=2)
    answer = "\nFinal Answer:\nNeither<eos>"
    whole = encoder().encode(decision, RATIONALE)
    for spare in (1, 7, 30):
        max_length = whole.length - spare
        row = encoder(max_length=max_length).encode(decision, RATIONALE)
        assert row.inputs == whole.inputs
        assert row.length == max_length
        assert text_of(row.suffix) == f"\nReasoning:\n{RATIONALE[:-spare]}{answer}"


def test_left_of_the_input_is_cut_last_and_the_question_stays():
    context = "A long scene. " * 20 + "Question: rain?"
    row = encoder(max_length=64).encode(label_decision(context=context), RATIONALE)
    assert text_of(row.inputs[0]) == context[-64:]
    assert row.suffix == []  # no room: the row trains the classification head alone


@pytest.mark.parametrize("room", [-1, 0, 1])
def test_row_at_the_edge_of_what_fits(room):
    decision = label_decision(context="Rain?")
    answer = len("\nFinal Answer:\nTrue") + 1
    row = encoder(max_length=5 + answer + room).encode(decision, RATIONALE)
    assert (row.suffix != []) is (room > 0)
    assert row.length <= 5 + answer + room
    assert text_of(row.inputs[0]) == "Rain?"


def test_padding_habit_of_the_tokenizer_does_not_matter():
    tokenizer = make_tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    decision = label_decision()
    assert encoder(tokenizer).encode(decision, RATIONALE) == encoder().encode(decision, RATIONALE)


# collate


def test_mixed_batch_knows_rows_positions_and_targets():
    labels = encoder().encode(label_decision(gold=2, context="Rain?"), "Wet.")
    candidates = encoder().encode(candidate_decision(gold=1))
    batch = collate([labels, candidates], PAD)
    rows = [labels.inputs[0] + labels.suffix, *candidates.inputs]
    assert batch.input_ids.shape == (3, max(map(len, rows)))
    assert batch.head_index.tolist() == [0, 1, 1]
    assert batch.pool_index.tolist() == [4, *(len(ids) - 1 for ids in candidates.inputs)]
    for row, ids in enumerate(rows):
        assert batch.input_ids[row, : len(ids)].tolist() == ids
        assert batch.attention_mask[row].tolist() == [1] * len(ids) + [0] * (
            batch.input_ids.shape[1] - len(ids)
        )
    # Every token of the sequence but the first is a target, the input's too; other rows have none.
    assert batch.targets[0][batch.targets[0] != NO_TARGET].tolist() == rows[0][1:]
    assert batch.targets[0, : len(rows[0]) - 1].tolist() == rows[0][1:]
    assert (batch.targets[1:] == NO_TARGET).all()


def test_eos_is_a_target_though_it_is_the_pad_token_too():
    short = encoder().encode(label_decision(context="Rain?"), "Wet.")
    long = encoder().encode(label_decision(context="Rain?"), RATIONALE)
    batch = collate([short, long], EOS)
    length = len(short.inputs[0] + short.suffix)
    assert batch.targets[0, length - 2] == EOS
    assert batch.attention_mask[0, :length].all() and not batch.attention_mask[0, length:].any()
    assert (batch.targets[0, length - 1 :] == NO_TARGET).all()


def test_decision_logits_pick_columns_for_labels_and_rows_for_candidates():
    encode = encoder().encode
    decisions = [
        encode(candidate_decision(gold=1)),
        encode(label_decision(gold=2)),
        encode(candidate_decision(gold=0, choices=("a", "b", "c", "d"))),
    ]
    batch = collate(decisions, PAD)
    row_logits = torch.arange(7 * 3, dtype=torch.float32).reshape(7, 3)  # row r, column c: 3r + c
    inf = float("-inf")
    assert batch.decision_logits(row_logits).tolist() == [
        [0, 3, inf, inf],
        [6, 7, 8, inf],
        [9, 12, 15, 18],
    ]
    assert batch.gold.tolist() == [
        [False, True, False, False],
        [False, False, True, False],
        [True, False, False, False],
    ]
    assert batch.is_choice.sum(dim=1).tolist() == [2, 3, 4]


def test_every_gold_choice_is_marked():
    decision = replace(candidate_decision(choices=("a", "b", "c")), gold=frozenset({0, 2}))
    row = encoder().encode(decision, "Why.")
    assert row.suffix_row == 0
    assert collate([row], PAD).gold.tolist() == [[True, False, True]]


def test_batch_moves_as_a_whole():
    moved = collate(mixed_rows(), PAD).to("meta")
    assert isinstance(moved, Batch)
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}


def test_batches_by_length_cover_every_row_once_longest_first():
    lengths = [3, 9, 9, 1, 5]
    assert list(batches_by_length(lengths, 2)) == [[1, 2], [4, 0], [3]]
    assert list(batches_by_length([], 2)) == []


def test_batches_by_length_are_sized_by_padded_tokens_and_by_rows():
    lengths = [3, 9, 9, 1, 30, 5, 2, 2]
    assert list(batches_by_length(lengths, 3, batch_tokens=18)) == [[4], [1, 2], [5, 0, 6], [7, 3]]
    assert list(batches_by_length(lengths, 8, batch_tokens=15)) == [
        [4],
        [1],
        [2],
        [5, 0, 6],
        [7, 3],
    ]


def test_length_counts_the_suffix_where_it_is():
    row = encoder().encode(candidate_decision(gold=0, choices=("b", "much longer than b")), "c")
    assert row.length == max(len(row.inputs[0]) + len(row.suffix), len(row.inputs[1]))
    assert row.length > len(row.inputs[1])
