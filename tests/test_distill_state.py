"""Continued and finished runs; what is in a checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import interrupt_at, read_log, weights

from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from distill.config import DistillConfig
from distill.dev import DevSet
from distill.state import (
    Checkpoints,
    TrainLog,
    finished_student,
    load_trainable_state,
    trainable_state,
)
from distill.train import train


def without_times(log):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in log]


@pytest.mark.parametrize(
    ("changes", "interruptions"),
    [
        ({}, [7]),  # in the second epoch; the checkpoint is of the first one's end
        ({"save_steps": 2}, [1, 3, 8]),  # before any checkpoint, and in the middle of epochs
        ({"save_steps": 3, "full": True, "head": "linear", "lr": 1e-3}, [4]),
    ],
)
def test_continued_run_is_the_uninterrupted_one_bit_for_bit(
    distill_config, tmp_path, changes, interruptions
):
    """With dropout, whose random numbers must go on, too."""
    whole = train(distill_config(tmp_path / "whole", **changes))
    parts = tmp_path / "parts"
    for step in interruptions:
        with pytest.raises(KeyboardInterrupt):
            train(distill_config(parts, **changes), report=interrupt_at(step))
        assert read_log(parts)[-1]["step"] == step
        assert not (parts / "dhrd.json").exists()
    steps = []
    student = train(
        distill_config(parts, **changes), report=lambda progress: steps.append(progress.step)
    )
    save_steps = changes.get("save_steps", 5)
    first = interruptions[-1] // save_steps * save_steps + 1
    assert steps == list(range(first, 11))  # it went on, it did not start afresh
    assert without_times(read_log(parts)) == without_times(read_log(tmp_path / "whole"))
    assert weights(parts) == weights(tmp_path / "whole")
    assert student.fingerprint == whole.fingerprint
    assert student.training["dev"] == whole.training["dev"]
    assert list(parts.glob("*checkpoint*")) == []


def test_best_result_and_patience_survive_an_interruption(distill_config, tmp_path, monkeypatch):
    """The best of four epochs is the second; patience of two ends training after the fourth."""
    results = iter([0.5, 0.9, 0.5, 0.5])

    def judge(*_):
        score = next(results)
        return {"metrics": {"made_weather": {"acc": score}}, "score": score, "nll": 1.0}

    monkeypatch.setattr(DevSet, "judge", judge)
    config = distill_config(tmp_path, epochs=9, patience=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, report=interrupt_at(16))
    student = train(config)
    assert student.training["dev"]["score"] == 0.9 and student.training["dev"]["step"] == 10
    assert student.training["steps"] == 20


@pytest.fixture(scope="module")
def interrupted(distill_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        train(distill_config(folder), report=interrupt_at(7))
    return folder


@pytest.fixture(scope="module")
def finished(distill_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(distill_config(folder, max_steps=1))
    return folder


OTHER_SETTINGS = [
    ({"lr": 0.02}, "lr 0.01 → 0.02"),
    ({"alpha": 0}, "alpha 1.0 → 0"),
    ({"seed": 1}, "seed 0 → 1, data"),
    ({"tasks": ("made_weather", "made_because")}, "tasks .*because"),
    ({"head": "linear"}, "head mlp → linear"),
    ({"control": "noise"}, "control None → noise"),
    ({"alpha_schedule": "linear"}, "alpha-schedule constant → linear"),
    ({"lm_span": "rationale"}, "lm-span full → rationale"),
    ({"full": True}, "full False → True"),
    ({"warmup_steps": 1, "epochs": 9}, "epochs 2 → 9, warmup-steps 5 → 1"),
]


@pytest.mark.parametrize(("changes", "shown"), OTHER_SETTINGS)
def test_run_with_other_settings_is_not_continued(distill_config, interrupted, changes, shown):
    before = {path: path.stat().st_mtime_ns for path in interrupted.rglob("*")}
    with pytest.raises(DHRDError, match=shown) as refusal:
        train(distill_config(interrupted, **changes))
    assert "use another --output" in str(refusal.value)
    assert refusal.value.exit_code == EXIT_BAD_INPUT
    assert {path: path.stat().st_mtime_ns for path in interrupted.rglob("*")} == before


def test_changed_rationales_are_other_settings(distill_config, made_tasks, interrupted, tmp_path):
    fewer = tmp_path / "fewer.jsonl"
    lines = (made_tasks / "rationales.jsonl").read_text().splitlines(keepends=True)
    fewer.write_text("".join(lines[1:]))
    with pytest.raises(DHRDError, match=r"\(old → new\): data \w+ → \w+, .*rationales"):
        train(distill_config(interrupted, rationales=(fewer,)))


def test_what_changes_nothing_may_change(distill_config, interrupted, made_tasks, tmp_path):
    """Where the same rationales lie, how often to save, and a default that is spelt out."""
    copy = tmp_path / "elsewhere.jsonl"
    copy.write_bytes((made_tasks / "rationales.jsonl").read_bytes())
    config = distill_config(interrupted, rationales=(copy,), save_steps=3, resume=True)
    steps = []

    def report(progress):
        steps.append(progress.step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, report=report)
    assert steps == [6]


def test_finished_run_is_not_trained_again(distill_config, finished):
    before = {path: path.read_bytes() for path in finished.iterdir()}
    reported = []
    student = train(distill_config(finished, max_steps=1), report=reported.append)
    assert reported == []
    assert student == read_student_config(finished)
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


def test_finished_run_with_other_settings_is_kept(distill_config, finished):
    before = weights(finished)
    with pytest.raises(DHRDError, match=r"max-steps 1 → 3, lr 0\.01 → 0\.5"):
        train(distill_config(finished, max_steps=3, lr=0.5))
    assert weights(finished) == before


def test_empty_output_holds_no_run(tmp_path):
    assert finished_student(tmp_path / "new", {"lr": 1}) is None


def test_settings_leave_out_only_what_changes_nothing():
    settings = DistillConfig().settings(lr=3.0, data="sha")
    left_out = {"output", "rationales", "include_path", "save_steps", "resume"}
    left_out |= {"loss_trace", "trackers", "gradient_checkpointing"}
    assert vars(DistillConfig()).keys() - settings.keys() == left_out
    assert settings["lr"] == 3.0 and settings["data"] == "sha"
    assert json.loads(json.dumps(settings)) == settings  # comparable after a round trip


# Checkpoints


def linear(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])


def one_step(model, optimizer):
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def save(checkpoints, step, model, optimizer, **progress):
    checkpoints.save(
        step, model=model, optimizer=optimizer, best=trainable_state(model), progress=progress
    )


def test_checkpoint_restores_weights_optimizer_and_progress(tmp_path):
    model, optimizer = linear()
    one_step(model, optimizer)
    save(Checkpoints(tmp_path), 3, model, optimizer, settings={"lr": 1})
    one_step(model, optimizer)
    other, other_optimizer = linear(seed=0)
    best, progress = Checkpoints(tmp_path).load(model=other, optimizer=other_optimizer)
    assert progress == {"step": 3, "settings": {"lr": 1}}
    assert best.keys() == {"1.weight", "1.bias"}
    one_step(other, other_optimizer)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_only_the_newest_checkpoint_is_kept(tmp_path):
    model, optimizer = linear()
    for step in (9, 10, 100):
        save(Checkpoints(tmp_path), step, model, optimizer)
        assert [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{step}"]
    assert Checkpoints(tmp_path).progress() == {"step": 100}


def test_newest_of_several_checkpoints_counts(tmp_path):
    """Killed after writing one and before removing the one before it."""
    model, optimizer = linear()
    save(Checkpoints(tmp_path), 9, model, optimizer)
    (tmp_path / "checkpoint-9").rename(tmp_path / "kept")
    save(Checkpoints(tmp_path), 10, model, optimizer)
    (tmp_path / "kept").rename(tmp_path / "checkpoint-9")
    assert Checkpoints(tmp_path).progress() == {"step": 10}


def test_half_written_checkpoint_counts_for_nothing(tmp_path, monkeypatch):
    model, optimizer = linear()
    save(Checkpoints(tmp_path), 1, model, optimizer)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(DHRDError, match=r"Cannot write .*checkpoint-2: disk full"):
            save(Checkpoints(tmp_path), 2, model, optimizer)
    assert Checkpoints(tmp_path).progress() == {"step": 1}
    Checkpoints(tmp_path).load(model=model, optimizer=optimizer)
    save(Checkpoints(tmp_path), 2, model, optimizer)  # over the half-written one
    assert Checkpoints(tmp_path).progress() == {"step": 2}


def test_removing_leaves_other_files_alone(tmp_path):
    model, optimizer = linear()
    save(Checkpoints(tmp_path), 1, model, optimizer)
    (tmp_path / ".checkpoint-2.partial").mkdir()
    (tmp_path / "checkpoint-of-mine").mkdir()
    (tmp_path / "dhrd.json").touch()
    Checkpoints(tmp_path).remove()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-of-mine", "dhrd.json"}


def test_other_trainers_checkpoints_are_neither_read_nor_removed(tmp_path):
    theirs = tmp_path / "checkpoint-500" / "trainer_state.json"
    theirs.parent.mkdir()
    theirs.touch()
    assert Checkpoints(tmp_path).progress() is None
    Checkpoints(tmp_path).remove()
    assert theirs.exists()


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_folder_of_other_origin_is_not_written_to(distill_config, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DHRDError, match="holds other files") as refusal:
        train(distill_config(tmp_path))
    assert refusal.value.exit_code == EXIT_BAD_INPUT
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["progress.json", "trainable.safetensors", "optimizer.pt"])
def test_damaged_checkpoint_is_named(tmp_path, name):
    model, optimizer = linear()
    save(Checkpoints(tmp_path), 1, model, optimizer)
    damaged = tmp_path / "checkpoint-1" / name
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(DHRDError, match=r"Checkpoint .*checkpoint-1 is damaged"):
        Checkpoints(tmp_path).load(model=model, optimizer=optimizer)


def test_checkpoint_cannot_run_code(tmp_path):
    """Nothing is unpickled but tensors and plain values."""
    model, optimizer = linear()
    save(Checkpoints(tmp_path), 1, model, optimizer)
    torch.save({"state": print}, tmp_path / "checkpoint-1" / "optimizer.pt")
    with pytest.raises(DHRDError, match=r"is damaged.*Weights only load failed"):
        Checkpoints(tmp_path).load(model=model, optimizer=optimizer)


def test_state_of_another_model_is_refused():
    model, _ = linear()
    state = trainable_state(model)
    wider = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
    for other in ({**state, "more": torch.zeros(1)}, {}, trainable_state(wider)):
        with pytest.raises(DHRDError, match="holds other parameters"):
            load_trainable_state(model, other)


def test_state_is_a_copy():
    model, _ = linear()
    state = trainable_state(model)
    with torch.no_grad():
        model[1].weight.add_(1)
    assert not torch.equal(state["1.weight"], model[1].weight)


# The log


def test_log_of_a_continued_run_drops_what_will_be_written_again(tmp_path):
    lines = [json.dumps({"step": step}) for step in (1, 2, 3, 4)]
    (tmp_path / "train_log.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')
    log = TrainLog(tmp_path, resumed_step=3)
    log.write({"step": 4, "again": True})
    assert read_log(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3}, {"step": 4, "again": True}]


def test_log_of_a_new_run_starts_empty(tmp_path):
    (tmp_path / "train_log.jsonl").write_text('{"step": 1}\n')
    TrainLog(tmp_path, resumed_step=0)
    assert read_log(tmp_path) == []
