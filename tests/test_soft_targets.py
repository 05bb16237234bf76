"""Soft targets: which ones a run has, the token-level teacher, and whole runs with them."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_tokenizer, read_log
from tiny_models import mixed_rows, tiny_lm, tiny_model

from dhrd_plugin.batching import NO_TARGET, collate
from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from distill.data import load_training_data
from distill.objective import Objective, kd_terms
from distill.soft_targets import TokenTeacher, load_token_teacher, shared_vocabulary
from distill.train import train

PAD = 257
VOCABULARY = 258


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    """A GPT-2 of the student's vocabulary whose embedding is padded by 6 rows."""
    folder = tmp_path_factory.mktemp("teacher")
    lm = tiny_lm("GPT2")
    lm.resize_token_embeddings(VOCABULARY + 6)
    lm.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def soft_labels(made_tasks, tmp_path_factory):
    """The rationales of made_weather, all but two with a teacher's distribution."""
    lines = [json.loads(line) for line in (made_tasks / "rationales.jsonl").open()]
    lines = [line for line in lines if line["task"] == "made_weather"]
    for line in lines[2:]:
        line["label_probs"] = [0.1, 0.9] if line["index"] % 2 else [0.9, 0.1]
    path = tmp_path_factory.mktemp("soft") / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


# Which terms


def terms(config):
    data = load_training_data(
        config.tasks,
        config.rationales,
        dev_rows=config.dev_rows,
        seed=0,
        include_path=config.include_path,
    )
    return kd_terms(config, data)


def test_soft_targets_are_what_the_inputs_allow(distill_config, soft_labels, tmp_path):
    def of(**changes):
        return terms(distill_config(tmp_path, **changes))

    soft = {"kd_temperature": 2.0, "rationales": (soft_labels,)}
    assert of(rationales=(soft_labels,)) == ()
    assert of(**soft) == ("kd_label",)
    assert of(**soft, kd_target="label") == ("kd_label",)
    assert of(**soft, kd_teacher="t") == ("kd_label", "kd_token")
    assert of(**soft, kd_teacher="t", kd_target="token") == ("kd_token",)
    assert of(kd_temperature=2.0, kd_teacher="t") == ("kd_token",)


@pytest.mark.parametrize(
    "changes", [{}, {"kd_target": "label"}, {"kd_target": "both", "kd_teacher": "t"}]
)
def test_soft_targets_without_their_inputs_are_an_error(distill_config, tmp_path, changes):
    config = distill_config(tmp_path, kd_temperature=2.0, **changes)
    with pytest.raises(DHRDError, match=r"no training row has `label_probs`.*--kd-teacher") as bad:
        terms(config)
    assert bad.value.exit_code == EXIT_BAD_INPUT


def test_token_targets_need_rationales(distill_config, tmp_path):
    config = distill_config(
        tmp_path, alpha=0, rationales=(), kd_temperature=2.0, kd_teacher="teacher"
    )
    with pytest.raises(DHRDError, match="--kd-teacher needs --rationales"):
        terms(config)


def test_shuffled_pairs_cannot_keep_soft_labels(distill_config, soft_labels, tmp_path):
    config = distill_config(
        tmp_path, kd_temperature=2.0, rationales=(soft_labels,), control="shuffle-pair"
    )
    with pytest.raises(DHRDError, match="soft labels would still tell the true one"):
        terms(config)


# The token-level teacher


@pytest.fixture(scope="module")
def teacher(teacher_folder):
    return load_token_teacher(
        teacher_folder,
        make_tokenizer(),
        max_length=512,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def test_teacher_with_too_few_positions_is_refused(teacher_folder):
    with pytest.raises(DHRDError, match=r"--max-length 513: .* has positions for 512 tokens"):
        load_token_teacher(
            teacher_folder, make_tokenizer(), max_length=513, dtype=None, device=torch.device("cpu")
        )


def test_teacher_is_frozen_and_its_padding_cut_off(teacher):
    assert not any(p.requires_grad for p in teacher.lm.parameters())
    assert not teacher.lm.training
    assert teacher.vocab_size == VOCABULARY
    assert teacher.lm.get_output_embeddings().out_features == VOCABULARY + 6
    assert teacher.logits(torch.zeros(3, 32)).shape == (3, VOCABULARY)


def test_teachers_distribution_is_the_models_own(teacher):
    batch = collate(mixed_rows(), PAD)
    has_target = batch.targets != NO_TARGET
    hidden = teacher.hidden_states(batch)
    with torch.no_grad():
        whole = teacher.lm(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    got = teacher.logits(hidden[has_target])
    torch.testing.assert_close(got, whole[has_target][:, :VOCABULARY], rtol=1e-4, atol=1e-5)
    assert not hidden[~has_target.any(dim=1)].any()


def test_teacher_need_not_know_the_students_pad_token(teacher):
    batch = collate(mixed_rows(), VOCABULARY + 100)
    expected = teacher.hidden_states(collate(mixed_rows(), PAD))
    real = batch.attention_mask.bool()
    torch.testing.assert_close(teacher.hidden_states(batch)[real], expected[real])


def test_batch_without_any_target_asks_the_teacher_nothing(teacher, monkeypatch):
    monkeypatch.setattr(type(teacher.lm.base_model), "forward", None)  # would fail if called
    batch = collate(mixed_rows(rationales=False), PAD)
    assert not teacher.hidden_states(batch).any()


def test_student_that_is_the_teacher_has_no_divergence():
    model = tiny_model()
    objective = Objective(
        {"cls": 1.0, "kd_token": 1.0}, temperature=2.0, token_teacher=TokenTeacher(tiny_lm(), 258)
    )
    losses = objective.losses(model, collate(mixed_rows(), PAD))
    assert losses["kd_token"].shape[0] > 100
    assert losses["kd_token"].abs().max() < 1e-5
    assert losses.keys() == {"cls", "kd_token"}


@pytest.mark.parametrize("chunk_size", [7, 100_000])
def test_chunks_change_neither_term(teacher, chunk_size):
    objective = Objective(
        {"cls": 1.0, "reason": 1.0, "kd_token": 1.0}, temperature=2.0, token_teacher=teacher
    )
    batch = collate(mixed_rows(), PAD)
    expected = objective.losses(tiny_model(chunk_size=50), batch)
    got = objective.losses(tiny_model(chunk_size=chunk_size), batch)
    for term, values in expected.items():
        torch.testing.assert_close(got[term], values, rtol=1e-5, atol=1e-5)


def test_other_vocabulary_is_refused():
    ours, theirs = make_tokenizer(), make_tokenizer()
    theirs.add_tokens(["<think>"])
    with pytest.raises(DHRDError, match=r"--kd-teacher big: .*258 tokens; .*'<think>'") as refusal:
        shared_vocabulary("big", theirs, ours)
    assert refusal.value.exit_code == EXIT_BAD_INPUT


def test_end_of_text_is_no_padding_though_it_pads():
    ours, theirs = make_tokenizer(), make_tokenizer(eos="<end>")
    assert theirs.eos_token == theirs.pad_token == "<end>"
    with pytest.raises(DHRDError, match="<end>"):
        shared_vocabulary("big", theirs, ours)


def test_pad_token_of_one_side_only_is_padding():
    ours, theirs = make_tokenizer(), make_tokenizer()
    theirs.add_special_tokens({"pad_token": "<pad>"})
    assert len(theirs) == VOCABULARY + 1
    assert shared_vocabulary("big", theirs, ours) == VOCABULARY


# Whole runs


def test_every_loss_on_a_student_learns_its_rows(
    distill_config, soft_labels, teacher_folder, tmp_path
):
    config = distill_config(
        tmp_path,
        rationales=(soft_labels,),
        kd_temperature=2.0,
        kd_teacher=teacher_folder,
        epochs=12,
        lora_dropout=0.0,
        loss_trace=True,
        max_length=512,
    )
    student = train(config)
    log = read_log(tmp_path)
    assert log[-1]["loss_cls"] < 0.2 < 0.6 < log[0]["loss_cls"]
    for term in ("reason", "kd_label", "kd_token"):
        assert log[-1][f"loss_{term}"] < log[0][f"loss_{term}"], term
    for entry in log:
        weights = {"cls": 1, "reason": 1, "kd_label": 4, "kd_token": 4}
        total = sum(weight * entry[f"loss_{term}"] for term, weight in weights.items())
        assert entry["loss"] == pytest.approx(total)
        assert {entry[f"weight_{term}"] for term in weights} == {1, 4}
        norms = [entry[f"trunk_grad_norm_{term}"] for term in weights]
        assert norms[0] > 0
        assert 0 < entry["grad_norm"] <= sum(norms) * 10
    assert student.training["kd_target"] == ["label", "token"]
    assert student.training["setting"] == "DHRD (α=1 β=1, label+token KD γ=1 T=2)"


def test_soft_labels_alone_teach_a_pooled_student(distill_config, soft_labels, tmp_path):
    config = distill_config(
        tmp_path,
        rationales=(soft_labels,),
        alpha=0,
        beta=0,
        kd_temperature=1.0,
        epochs=12,
        lora_dropout=0.0,
    )
    train(config)
    log = read_log(tmp_path)
    assert "loss_reason" not in log[0]
    assert max(entry["loss_kd_label"] for entry in log[-5:]) < 0.05 < log[0]["loss_kd_label"]
