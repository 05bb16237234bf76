"""Experiment trackers get what the log gets."""

from __future__ import annotations

import pytest
from accelerate import tracking
from conftest import read_log
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from distill.trackers import check_trackers
from distill.train import train


def test_tensorboard_has_every_step_and_the_dev_results(distill_config, tmp_path):
    train(distill_config(tmp_path / "out", max_steps=3, trackers=("tensorboard",)))
    events = EventAccumulator(str(tmp_path / "out" / "out"))
    events.Reload()
    log = read_log(tmp_path / "out")
    for name in ("loss", "loss_cls", "loss_reason", "lr", "grad_norm"):
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert logged == pytest.approx({entry["step"]: entry[name] for entry in log})
    (dev,) = events.Scalars("dev_nll")
    assert (dev.step, dev.value) == (3, pytest.approx(log[-1]["dev"]["nll"]))


def test_unknown_tracker_names_the_known_ones():
    with pytest.raises(DHRDError, match=r"--tracker paper: unknown; .*tensorboard.*wandb") as bad:
        check_trackers(["tensorboard", "paper"])
    assert bad.value.exit_code == EXIT_BAD_INPUT


def test_tracker_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(DHRDError, match="pip install tensorboard"):
        check_trackers(["tensorboard"])
