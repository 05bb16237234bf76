"""Runs that end otherwise than planned: a full disk, kill -9, remains of other runs."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict

import pytest
from conftest import REPO, interrupt_at, read_log, weights

from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from distill.state import TrainLog
from distill.train import train


@contextmanager
def no_room(n_bytes):
    """Files can grow no larger, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_leaves_the_last_checkpoint_and_a_run_that_goes_on(distill_config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(distill_config(tmp_path, save_steps=2), report=interrupt_at(2))
    config = distill_config(tmp_path, save_steps=2)
    with (
        no_room(2**14),
        pytest.raises(DHRDError, match=r"Cannot write [\s\S]*make room") as failure,
    ):
        train(config)
    assert failure.value.exit_code == EXIT_FAILED
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert train(config).training["steps"] == 10
    assert not [path for path in tmp_path.iterdir() if "checkpoint" in path.name]


def test_full_disk_shows_in_the_log_first(tmp_path):
    log = TrainLog(tmp_path, 0)
    log.write({"step": 1})
    with no_room(20), pytest.raises(DHRDError, match=r"Cannot write .*train_log\.jsonl"):
        log.write({"step": 2, "loss": 0.123456789})
    again = TrainLog(tmp_path, 1)  # the torn line is dropped
    again.write({"step": 2})
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2]


def test_full_disk_at_the_end_costs_the_last_steps_only(distill_config, tmp_path):
    config = distill_config(tmp_path, save_steps=8)

    def fill_up(progress):
        if progress.step == 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(DHRDError, match="Cannot write"):
            train(config, report=fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "dhrd.json").exists()
    steps = []
    train(config, report=lambda progress: steps.append(progress.step))
    assert steps == [9, 10]


# Killed


def test_killed_run_is_continued_bit_for_bit(distill_config, tmp_path):
    """kill -9 somewhere behind a checkpoint; the student is that of an undisturbed run."""
    config = distill_config(tmp_path / "killed", save_steps=2)
    script = (
        "import sys, json; from pathlib import Path\n"
        "from distill.config import DistillConfig; from distill.train import train\n"
        "values = json.loads(sys.argv[1])\n"
        "values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}\n"
        "values['output'] = Path(values['output'])\n"
        "def wait(progress):\n"
        "    print(progress.step, flush=True)\n"
        "    if progress.step == 5: sys.stdin.read()\n"
        "train(DistillConfig(**values), report=wait)\n"
    )
    argv = [sys.executable, "-c", script, json.dumps(asdict(config), default=str)]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.strip() == "5":
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    assert [p.name for p in config.output.glob("checkpoint-*")] == ["checkpoint-4"]
    student = train(config)
    whole = train(distill_config(tmp_path / "whole", save_steps=2))
    assert weights(config.output) == weights(tmp_path / "whole")
    assert student.training["dev"] == whole.training["dev"]
    assert [entry["step"] for entry in read_log(config.output)] == list(range(1, 11))


# Remains


def test_left_over_checkpoint_of_a_finished_run_is_removed(distill_config, tmp_path):
    copy = tmp_path / "copy"
    train(distill_config(copy, max_steps=1))
    (copy / "checkpoint-1").mkdir()
    (copy / "checkpoint-1" / "progress.json").write_text('{"step": 1}')
    train(distill_config(copy, max_steps=1))
    assert not list(copy.glob("checkpoint-*"))


def test_progress_of_another_trainer_is_no_run_to_continue(distill_config, tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "progress.json").write_text('{"step": 5}')
    with pytest.raises(DHRDError, match="holds a run with other settings"):
        train(distill_config(tmp_path))
