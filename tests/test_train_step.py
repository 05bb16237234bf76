"""The gradient of one optimizer step, however its rows are cut and spread over processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from accelerate import Accelerator
from conftest import REPO, read_log
from made_decisions import label_decision
from safetensors.torch import load_file
from tiny_models import encoder, mixed_rows, tiny_model
from two_processes import SOFT_TARGETS, WINDOWS, harness_scores, step_gradients

from dhrd_plugin.batching import NO_TARGET, collate
from distill.losses import token_cross_entropy
from distill.objective import Objective
from distill.step import rows_not_finite, train_step
from distill.train import train

PAD = 257
KD = ("kd_label", "kd_token")


def assert_same_gradients(got, expected):
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            got[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="module")
def whole_step():
    """Of eight ragged rows of both formulations, with and without rationales, in one batch."""
    return step_gradients(mixed_rows(), batch_size=8, trace=True, **SOFT_TARGETS)


def assert_same_result(got, expected):
    assert got["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert got["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    assert got["trunk_grad_norms"] == pytest.approx(expected["trunk_grad_norms"], rel=1e-3)
    assert got["finite"] and expected["finite"]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_gradient_does_not_depend_on_the_batches(whole_step, batch_size):
    gradients, result = step_gradients(
        mixed_rows(), batch_size=batch_size, trace=True, **SOFT_TARGETS
    )
    assert_same_result(asdict(result), asdict(whole_step[1]))
    assert_same_gradients(gradients, whole_step[0])


def test_gradient_is_that_of_the_two_means():
    """Written out by hand: mean over decisions plus mean over all tokens that have a target."""
    model = tiny_model()
    rows = mixed_rows()
    cls_losses, token_losses = [], []
    for row in rows:
        batch = collate([row], PAD)
        output = model(
            batch.input_ids,
            batch.attention_mask,
            batch.pool_index,
            batch.head_index,
            batch.targets,
            token_cross_entropy,
        )
        probs = batch.decision_logits(output.logits)[0].softmax(-1)
        cls_losses.append(-probs[sorted(row.gold)].sum().log())
        token_losses.append(output.token_losses)
    cls = torch.stack(cls_losses).mean()
    reason = torch.cat(token_losses).mean()
    (0.5 * cls + 2 * reason).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    gradients, result = step_gradients(rows, batch_size=3, alpha=2, beta=0.5)
    assert result.losses["loss_cls"] == pytest.approx(cls.item(), rel=1e-5)
    assert result.losses["loss_reason"] == pytest.approx(reason.item(), rel=1e-5)
    assert result.losses["loss"] == pytest.approx((0.5 * cls + 2 * reason).item(), rel=1e-5)
    assert_same_gradients(gradients, expected)
    norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-5)


def test_trace_is_the_gradient_of_each_weighted_term_alone(whole_step):
    for term, weight in {"cls": 1.0, "reason": 1.0, "kd_label": 0.5, "kd_token": 2.0}.items():
        weights = dict.fromkeys(("cls", "reason", *KD), 0.0) | {term: weight}
        only = SOFT_TARGETS | {"weights": weights}
        gradients, _ = step_gradients(mixed_rows(), batch_size=8, **only)
        trunk = [g.flatten() for name, g in gradients.items() if name.startswith("lm.model")]
        norm = torch.cat(trunk).norm().item()
        assert norm > 0
        assert whole_step[1].trunk_grad_norms[term] == pytest.approx(norm, rel=1e-4)


def test_trace_changes_no_gradient(whole_step):
    gradients, result = step_gradients(mixed_rows(), batch_size=8, **SOFT_TARGETS)
    assert result.trunk_grad_norms is None
    for name, gradient in gradients.items():
        assert torch.equal(gradient, whole_step[0][name]), name


def test_step_that_is_not_finite_changes_no_weight():
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1.0))
    result = train_step(
        prepared,
        mixed_rows(),
        accelerator=accelerator,
        optimizer=optimizer,
        objective=Objective({"cls": float("nan")}),
        batch_size=8,
        max_grad_norm=1.0,
        pad_token_id=PAD,
    )
    assert not result.finite
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_rows_whose_own_loss_is_not_finite_are_found():
    rows = mixed_rows()
    rows[5] = replace(rows[5], label_probs=(float("inf"), 0.5))
    broken = rows_not_finite(
        tiny_model(),
        rows,
        accelerator=Accelerator(cpu=True),
        objective=Objective({"cls": 1.0, "kd_label": 1.0}),
        pad_token_id=PAD,
    )
    assert list(broken) == [5]


def test_rows_without_any_rationale_give_no_reasoning_loss_and_no_nan():
    rows = mixed_rows(rationales=False)
    gradients, result = step_gradients(rows, batch_size=3, alpha=1)
    assert result.losses["loss_reason"] == 0
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert_same_gradients(gradients, step_gradients(rows, batch_size=3, alpha=0)[0])


def test_alpha_zero_is_training_on_rows_without_a_rationale_and_without_the_lm_head():
    def fail(*_):
        raise AssertionError("the LM head ran")

    model = tiny_model()
    model.lm.get_output_embeddings().register_forward_pre_hook(fail)
    gradients, result = step_gradients(mixed_rows(), batch_size=3, alpha=0, model=model)
    plain, _ = step_gradients(mixed_rows(rationales=False), batch_size=3, alpha=0)
    assert "loss_reason" not in result.losses
    assert_same_gradients(gradients, plain)
    with pytest.raises(AssertionError, match="the LM head ran"):
        step_gradients(mixed_rows(), batch_size=3, alpha=1, model=model)


def test_alpha_zero_is_a_plain_pooled_classifier_bit_for_bit():
    """Three steps against a loop that knows of nothing but a trunk, a head and cross-entropy."""
    ours, plain = tiny_model(), tiny_model()
    rows = [encoder().encode(label_decision(index, gold=index % 3)) for index in range(8)]
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(ours, torch.optim.AdamW(ours.parameters(), lr=1e-2))
    plain_optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    texts = torch.tensor([row.inputs[0] for row in rows])  # all of one length
    gold = torch.tensor([min(row.gold) for row in rows])
    for _ in range(3):
        train_step(
            prepared,
            rows,
            accelerator=accelerator,
            optimizer=optimizer,
            objective=Objective({"cls": 1.0}),
            batch_size=8,
            max_grad_norm=1.0,
            pad_token_id=PAD,
        )
        logits = plain.heads[0](plain.lm.model(texts).last_hidden_state[:, -1])
        torch.nn.functional.cross_entropy(logits, gold).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        plain_optimizer.step()
        plain_optimizer.zero_grad()
    for (name, got), expected in zip(ours.named_parameters(), plain.parameters(), strict=True):
        if not name.startswith("heads.1"):  # the candidates' head, decayed by AdamW in ours only
            assert torch.equal(got, expected), name


def test_beta_zero_leaves_the_classification_heads_alone():
    gradients, _ = step_gradients(mixed_rows(), batch_size=8, beta=0)
    assert not any(g.any() for name, g in gradients.items() if name.startswith("heads"))
    assert any(g.any() for name, g in gradients.items() if name.startswith("lm"))


def test_token_losses_are_counted_once_per_target():
    """The denominator that `train_step` uses is the number of losses that the model returns."""
    batch = collate(mixed_rows(), PAD)
    weights = dict.fromkeys(("cls", "reason", *KD), 1.0)
    losses = Objective(**SOFT_TARGETS | {"weights": weights}).losses(tiny_model(), batch)
    n_targets = int((batch.targets != NO_TARGET).sum())
    assert {term: values.shape for term, values in losses.items()} == {
        "cls": (8,),
        "kd_label": (8,),
        "reason": (n_targets,),
        "kd_token": (n_targets,),
    }


# Two processes


@pytest.fixture(scope="module")
def runs(distill_config, untied_backbone):
    """Settings of whole runs to compare, for one process."""
    pooled = {"alpha": 0, "rationales": (), "full": True, "lr": 1e-3, "max_length": 512}
    return {
        "dhrd": {"epochs": 1, "lora_dropout": 0.0},
        "pooled, untied": pooled | {"epochs": 1, "backbone": untied_backbone},
    }


@pytest.fixture(scope="module")
def two_processes(distill_config, runs, student, tmp_path_factory):
    """What two processes leave behind: gradients of `WINDOWS`, the runs, and `student`'s scores."""
    output = tmp_path_factory.mktemp("two-processes")
    settings = {
        name: asdict(distill_config(output / name, **changes, batch_size=4))
        for name, changes in runs.items()
    }
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    common |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO)}
    script = str(REPO / "tests" / "two_processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(output), str(student), json.dumps(settings, default=str)],
            env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        for process in processes:
            text, _ = process.communicate(timeout=900)
            assert process.returncode == 0, text
    finally:
        for process in processes:
            process.kill()
    return output


@pytest.mark.parametrize("window", WINDOWS)
def test_two_processes_have_the_gradient_of_one(two_processes, window):
    gradients, result = step_gradients(
        mixed_rows()[: WINDOWS[window]], batch_size=8, trace=True, **SOFT_TARGETS
    )
    assert_same_gradients(load_file(two_processes / f"{window}.safetensors"), gradients)
    assert_same_result(json.loads((two_processes / f"{window}.json").read_text()), asdict(result))


@pytest.mark.parametrize("name", ["dhrd", "pooled, untied"])
def test_two_processes_train_the_student_of_one(
    two_processes, runs, distill_config, tmp_path, name
):
    student = train(distill_config(tmp_path, **runs[name]))
    ours, theirs = read_log(tmp_path), read_log(two_processes / name)
    assert [entry["step"] for entry in theirs] == [1, 2, 3, 4, 5]
    for one, two in zip(ours, theirs, strict=True):
        for key in {"loss", "loss_cls", "loss_reason", "lr", "grad_norm"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=1e-3), (one["step"], key)
    for key in ("score", "nll"):
        assert theirs[-1]["dev"][key] == pytest.approx(ours[-1]["dev"][key], abs=1e-3)
    card = json.loads((two_processes / name / "dhrd.json").read_text())["training"]
    assert card["processes"] == 2 and student.training["processes"] == 1


def test_two_processes_score_as_one(two_processes, student, made_tasks):
    """Each scores its share, not everything; the first gathers them, padding left out."""
    expected = harness_scores(student, str(made_tasks))
    got = json.loads((two_processes / "scores.json").read_text())
    scored = [json.loads((two_processes / f"scored-{i}.json").read_text()) for i in (0, 1)]
    assert scored == [[12], [9]]  # of three tasks with heads, 4 and 3 documents
    assert got.keys() == expected.keys() and len(got) == 4
    for task, wanted in expected.items():
        assert len(wanted["samples"]) == 7
        for one, two in zip(wanted["samples"], got[task]["samples"], strict=True):
            assert two[:2] == one[:2]
            for (log_prob, greedy), reply in zip(one[2], two[2], strict=True):
                assert reply == [pytest.approx(log_prob, abs=1e-5), greedy]
        assert got[task]["metrics"] == pytest.approx(wanted["metrics"], abs=1e-5)
