"""Scores do not depend on batch size, order, neighbours or the tokenizer's padding side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import make_tokenizer
from made_decisions import candidate_decision, label_decision
from tiny_models import CAUSAL, encoder, mixed_rows, tiny_model

from dhrd_plugin.scoring import score

PAD = 257
LIKE = {"abs": 1e-5}


def count_forwards(model):
    """A list that grows by the shape of the input of every forward of the trunk."""
    shapes = []
    model.trunk.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


def separately(model, decision):
    """The distribution over candidates by a forward of every one alone, without padding."""
    with torch.inference_mode():
        pooled = [
            model.trunk(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]
            for ids in decision.inputs
        ]
        logits = model.classify(torch.stack(pooled), torch.full((len(pooled),), decision.head))
    return logits[:, 0].log_softmax(dim=0).tolist()


@pytest.mark.parametrize("family", CAUSAL)
def test_batch_size_order_and_rationales_do_not_matter(family):
    model = tiny_model(family)
    rows = mixed_rows()
    expected = score(model, rows, batch_size=1, pad_token_id=PAD)
    for batch_size in (3, 8):
        got = score(model, rows, batch_size=batch_size, pad_token_id=PAD)
        assert got == [pytest.approx(values, abs=1e-5) for values in expected]
    reverse = score(model, rows[::-1], batch_size=3, pad_token_id=PAD)
    assert reverse[::-1] == [pytest.approx(values, abs=1e-5) for values in expected]
    plain = score(model, mixed_rows(rationales=False), batch_size=8, pad_token_id=PAD)
    assert plain == [pytest.approx(values, abs=1e-5) for values in expected]
    assert len({round(values[0], 3) for values in expected}) > 4  # the rows do differ


def test_identity_of_the_pad_token_does_not_matter():
    model = tiny_model()
    expected = score(model, mixed_rows(), batch_size=8, pad_token_id=PAD)
    got = score(model, mixed_rows(), batch_size=8, pad_token_id=3)
    assert got == [pytest.approx(values, abs=1e-5) for values in expected]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_of_the_tokenizer_does_not_matter(side):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = side
    decisions = [label_decision(), label_decision(context="Rain?"), candidate_decision()]
    rows = [encoder(tokenizer).encode(decision) for decision in decisions]
    got = score(tiny_model(), rows, batch_size=3, pad_token_id=PAD)
    one_by_one = [
        score(tiny_model(), [encoder().encode(decision)], batch_size=1, pad_token_id=PAD)[0]
        for decision in decisions
    ]
    assert got == [pytest.approx(values, abs=1e-5) for values in one_by_one]


def test_each_decision_gets_a_distribution_over_its_own_choices():
    scored = score(tiny_model(), mixed_rows(), batch_size=4, pad_token_id=PAD)
    assert [len(values) for values in scored] == [3, 2, 3, 3, 3, 2, 3, 3]
    for values in scored:
        assert torch.tensor(values).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_only_candidate_is_certain_beside_a_task_with_three_labels():
    (label, *_), (candidate, *_) = mixed_rows(), candidates()
    alone = replace(candidate, inputs=candidate.inputs[:1], n_choices=1)
    scored = score(tiny_model(), [label, alone], batch_size=4, pad_token_id=PAD)
    assert [len(values) for values in scored] == [3, 1]
    assert scored[1] == [0.0]


def test_model_is_in_evaluation_mode_and_without_gradients():
    model = tiny_model().train()
    grad_modes = []
    model.trunk.register_forward_hook(lambda *_: grad_modes.append(torch.is_grad_enabled()))
    score(model, mixed_rows(), batch_size=8, pad_token_id=PAD)
    assert set(grad_modes) == {False}
    assert not model.training


@pytest.mark.parametrize("family", ["Llama", "Mamba"])
def test_progress_counts_every_decision_once(family):
    done = []
    score(tiny_model(family), mixed_rows(), batch_size=2, pad_token_id=PAD, on_batch=done.append)
    assert sum(done) == 8
    assert len(done) >= 4


def test_nothing_to_score_is_nothing():
    assert score(tiny_model(), [], batch_size=3, pad_token_id=PAD) == []


def test_low_precision_is_used_when_asked_for():
    model = tiny_model()
    dtypes = []
    model.trunk.layers[0].mlp.up_proj.register_forward_hook(
        lambda _, __, output: dtypes.append(output.dtype)
    )
    rows = mixed_rows()[:1]
    score(model, rows, batch_size=1, pad_token_id=PAD, dtype=torch.bfloat16)
    score(model, rows, batch_size=1, pad_token_id=PAD)
    assert dtypes == [torch.bfloat16, torch.float32]


# Candidates that share a prefix


def candidates(max_length=400):
    """Decisions with two to five candidates; one is what another one begins with."""
    choices = [
        ("it is late.", "no.", "of the moon and the stars."),
        ("the sun was rising.", "the grass was cut."),
        ("the sun", "the sun was rising.", "the moon", "the sun", "stars"),
    ]
    encode = encoder(max_length=max_length).encode
    return [encode(candidate_decision(i, 0, texts)) for i, texts in enumerate(choices)]


@pytest.mark.parametrize("family", CAUSAL)
def test_candidates_score_like_separate_rows(family):
    model, decisions = tiny_model(family), candidates()
    got = score(model, decisions, batch_size=8, pad_token_id=PAD)
    for values, decision in zip(got, decisions, strict=True):
        assert values == pytest.approx(separately(model, decision), **LIKE)


@pytest.mark.parametrize("max_length", [54, 60, 66])
def test_candidates_that_were_cut_on_the_left_score_like_separate_rows(max_length):
    """Of 54 tokens all begin at another character, of 66 only the longest is cut."""
    model, decisions = tiny_model(), candidates(max_length)
    assert any(len(ids) == max_length for d in decisions for ids in d.inputs)
    got = score(model, decisions, batch_size=8, pad_token_id=PAD)
    for values, decision in zip(got, decisions, strict=True):
        assert values == pytest.approx(separately(model, decision), **LIKE)


def test_prefix_is_run_once_for_all_its_candidates():
    model, decisions = tiny_model(), candidates()
    shapes = count_forwards(model)
    score(model, decisions[1:2], batch_size=8, pad_token_id=PAD)
    one_token, packed = shapes  # the first is to see what the cache is
    context = len("My body cast a shadow over the grass because the ")
    assert one_token == (1, 1)
    assert packed == (1, context + len("sun was rising.") + len("grass was cut."))


@pytest.mark.parametrize("family", ["Mamba", "Qwen3_5Text", "Mistral"])
def test_backbones_that_cannot_share_run_every_candidate_in_full(family):
    model, decisions = tiny_model(family), candidates()
    shapes = count_forwards(model)
    score(model, decisions, batch_size=100, pad_token_id=PAD)
    assert sum(rows for rows, length in shapes if length > 1) == 10


@pytest.mark.parametrize("family", ["Llama", "Mamba"])
def test_batch_size_and_batch_tokens_bound_every_forward(family):
    model, decisions = tiny_model(family), [*mixed_rows(), *candidates()]
    expected = score(model, decisions, batch_size=100, pad_token_id=PAD)
    shapes = count_forwards(model)
    by_rows = score(model, decisions, batch_size=2, pad_token_id=PAD)
    assert max(rows for rows, _ in shapes) == 2
    shapes.clear()
    by_tokens = score(model, decisions, batch_size=100, pad_token_id=PAD, batch_tokens=130)
    assert all(rows == 1 or rows * length <= 130 for rows, length in shapes)
    assert max(rows for rows, _ in shapes) > 1
    for got in (by_rows, by_tokens):
        assert got == [pytest.approx(values, **LIKE) for values in expected]


def test_labels_never_pay_for_a_look_at_the_cache():
    model = tiny_model()
    shapes = count_forwards(model)
    score(model, mixed_rows()[:1], batch_size=1, pad_token_id=PAD)
    assert len(shapes) == 1
