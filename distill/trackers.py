"""Experiment trackers (TensorBoard, W&B, trackio …), through accelerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from dhrd_plugin.errors import DHRDError


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed, which accelerate would leave out silently.

    Raises:
        DHRDError: one of them.
    """
    known = sorted(LOGGER_TYPE_TO_CLASS)
    available = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in known:
            raise DHRDError(f"--tracker {name}: unknown; use one of {', '.join(known)}.")
        if name not in available:
            raise DHRDError(f"--tracker {name} is not installed: pip install {name}")


def start_trackers(accelerator: Accelerator, output: Path, settings: Mapping[str, Any]) -> None:
    """Begin a run named after the output folder, with the settings as its configuration."""
    plain = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in settings.items()
    }
    accelerator.init_trackers(output.name, config=plain)


def finish_trackers(accelerator: Accelerator) -> None:
    """End the run. `Accelerator.end_training` would also end the processes' connection, which the
    next of several runs needs.
    """
    for tracker in accelerator.trackers:
        tracker.finish()
