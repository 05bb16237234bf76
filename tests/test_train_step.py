"""The gradient of one optimizer step, however its rows are cut and spread over processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from conftest import REPO, read_log
from safetensors.torch import load_file
from tiny_models import mixed_rows, tiny_model
from two_processes import WINDOWS, harness_answers, step_gradients

from dhrd_plugin.batching import NO_TARGET, collate
from distill import train as training
from distill.losses import token_cross_entropy
from distill.train import train

PAD = 257


def assert_same_gradients(got, expected):
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            got[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="module")
def whole_gradient():
    """Of eight ragged rows of both formulations, with and without rationales, in one batch."""
    return step_gradients(mixed_rows(), batch_size=8)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_gradient_does_not_depend_on_the_batches(whole_gradient, batch_size):
    gradients, losses = step_gradients(mixed_rows(), batch_size=batch_size)
    assert losses == pytest.approx(whole_gradient[1], rel=1e-5)
    assert_same_gradients(gradients, whole_gradient[0])


def test_gradient_is_that_of_the_two_means(whole_gradient):
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
    gradients, losses = step_gradients(rows, batch_size=3, alpha=2, beta=0.5)
    assert losses["loss_cls"] == pytest.approx(cls.item(), rel=1e-5)
    assert losses["loss_reason"] == pytest.approx(reason.item(), rel=1e-5)
    assert losses["loss"] == pytest.approx((0.5 * cls + 2 * reason).item(), rel=1e-5)
    assert_same_gradients(gradients, expected)


def test_rows_without_any_rationale_give_no_reasoning_loss_and_no_nan():
    rows = mixed_rows(rationales=False)
    gradients, losses = step_gradients(rows, batch_size=3, alpha=1)
    assert losses["loss_reason"] == 0
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert_same_gradients(gradients, step_gradients(rows, batch_size=3, alpha=0)[0])


def test_alpha_zero_is_training_on_rows_without_a_rationale_and_without_the_lm_head():
    def fail(*_):
        raise AssertionError("the LM head ran")

    model = tiny_model()
    model.lm.get_output_embeddings().register_forward_pre_hook(fail)
    gradients, losses = step_gradients(mixed_rows(), batch_size=3, alpha=0, model=model)
    plain, _ = step_gradients(mixed_rows(rationales=False), batch_size=3, alpha=0)
    assert losses["loss_reason"] == 0
    assert_same_gradients(gradients, plain)
    with pytest.raises(AssertionError, match="the LM head ran"):
        step_gradients(mixed_rows(), batch_size=3, alpha=1, model=model)


def test_beta_zero_leaves_the_classification_heads_alone():
    gradients, _ = step_gradients(mixed_rows(), batch_size=8, beta=0)
    assert not any(g.any() for name, g in gradients.items() if name.startswith("heads"))
    assert any(g.any() for name, g in gradients.items() if name.startswith("lm"))


def test_token_losses_are_counted_once_per_target():
    """The denominator that `train_step` uses is the number of losses that the model returns."""
    batch = collate(mixed_rows(), PAD)
    _, reason = training.batch_losses(tiny_model(), batch, with_reasoning=True)
    assert len(reason) == int((batch.targets != NO_TARGET).sum())


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
def two_processes(distill_config, runs, tmp_path_factory):
    """What two processes leave behind: gradients of `WINDOWS`, and the runs."""
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
            [sys.executable, script, str(output), json.dumps(settings, default=str)],
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
    gradients, losses = step_gradients(mixed_rows()[: WINDOWS[window]], batch_size=8)
    assert_same_gradients(load_file(two_processes / f"{window}.safetensors"), gradients)
    assert json.loads((two_processes / f"{window}.json").read_text()) == pytest.approx(losses)


@pytest.mark.parametrize("name", ["dhrd", "pooled, untied"])
def test_two_processes_train_the_student_of_one(
    two_processes, runs, distill_config, tmp_path, name
):
    student = train(distill_config(tmp_path, **runs[name]))
    ours, theirs = read_log(tmp_path), read_log(two_processes / name)
    assert [entry["step"] for entry in theirs] == [1, 2, 3, 4, 5]
    for one, two in zip(ours, theirs, strict=True):
        for key in ("loss", "loss_cls", "loss_reason", "lr"):
            assert two[key] == pytest.approx(one[key], rel=1e-3), (one["step"], key)
    assert theirs[-1]["dev"] == pytest.approx(ours[-1]["dev"], abs=1e-3)
    card = json.loads((two_processes / name / "dhrd.json").read_text())["training"]
    assert card["processes"] == 2 and student.training["processes"] == 1


def test_two_processes_score_as_one(two_processes, made_tasks):
    """Each scores its share, not everything; the first gathers them, padding left out."""
    expected = harness_answers(two_processes / "dhrd", str(made_tasks))
    got = json.loads((two_processes / "answers.json").read_text())
    scored = [json.loads((two_processes / f"scored-{i}.json").read_text()) for i in (0, 1)]
    assert scored == [[4], [3]]
    assert len(expected) == 7
    assert got == [pytest.approx(values, abs=1e-5) for values in expected]
