"""Checkpoints to resume from: `checkpoint-<step>/`, whole or not there.

Weights are safetensors; torch's own format (the optimizer) is read with `weights_only`, which runs
no code. Data order, learning rate and dropout are functions of seed and step: nothing of them is
stored.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dhrd_plugin.checkpoint import CONFIG_FILE, StudentConfig, read_student_config
from dhrd_plugin.errors import EXIT_FAILED, DHRDError

TRAIN_LOG = "train_log.jsonl"
PROGRESS = "progress.json"


def trainable_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies on the CPU of the parameters that train, by name."""
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_trainable_state(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Copy `state` into the parameters of the same names.

    Raises:
        DHRDError: names or shapes that differ (another backbone, head or task list).
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    same = parameters.keys() == state.keys() and all(
        parameters[name].shape == value.shape for name, value in state.items()
    )
    if not same:
        raise DHRDError(
            "The checkpoint holds other parameters than this model trains: --backbone, --head, "
            "--full and --task must be those of the run that wrote it. Use another --output."
        )
    with torch.no_grad():
        for name, value in state.items():
            parameters[name].copy_(value)


def finished_student(output: Path, settings: Mapping[str, Any]) -> StudentConfig | None:
    """The student that a run with `settings` has already left in `output`; None before its end.

    Raises:
        DHRDError: the run in `output`, finished or not, had other settings; or `output` holds
            files of other origin, which a student's would overwrite.
    """
    finished = read_student_config(output) if (output / CONFIG_FILE).is_file() else None
    unfinished = Checkpoints(output).progress()
    if finished is not None:
        saved = finished.training
    elif unfinished is not None:
        saved = unfinished.get("settings", {})  # another trainer's progress.json has none
    elif output.is_dir() and any(output.iterdir()) and not (output / TRAIN_LOG).exists():
        raise DHRDError(
            f"--output {output}: the folder holds other files, and no run of dhrd-distill. Name a "
            "new or an empty folder."
        )
    else:
        return None
    check_same_settings(output, saved, settings)
    return finished


def check_same_settings(
    output: Path, saved: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Only what was begun with the same settings may be continued.

    Raises:
        DHRDError: `saved`, those of the run in `output`, are others.
    """
    changed = [
        f"{name.replace('_', '-')} {saved.get(name)} → {value}"
        for name, value in settings.items()
        if saved.get(name) != value
    ]
    if changed:
        raise DHRDError(
            f"{output} holds a run with other settings (old → new): {', '.join(changed)}.\n"
            "Repeat that run's settings to continue it, or use another --output."
        )


class Checkpoints:
    """The resumable state under `output`; only the newest checkpoint is kept."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def save(
        self,
        step: int,
        *,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        best: dict[str, torch.Tensor],
        progress: dict[str, Any],
    ) -> None:
        """Write `checkpoint-<step>`; the older ones go only once it is whole.

        Args:
            best: trainable state of the best dev result so far.
            progress: plain values: settings, best metric and what else the loop needs.

        Raises:
            DHRDError: a full disk, say; the last checkpoint is still there.
        """
        target = self.output / f"checkpoint-{step}"
        staging = self.output / f".checkpoint-{step}.partial"
        with writable(target):
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            save_file(trainable_state(model), staging / "trainable.safetensors")
            save_file(best, staging / "best.safetensors")
            torch.save(optimizer.state_dict(), staging / "optimizer.pt")
            (staging / PROGRESS).write_text(json.dumps({"step": step, **progress}, indent=2))
            for file in staging.iterdir():  # on disk before the folder has its name
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
        for folder in self._folders():
            if folder != target:
                shutil.rmtree(folder)

    def load(
        self, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Restore the newest checkpoint; (best state, progress), or None when there is none.

        Raises:
            DHRDError: a damaged checkpoint, or one of another model.
        """
        progress = self.progress()
        if progress is None:
            return None
        folder = self.output / f"checkpoint-{progress['step']}"
        with _readable(folder):
            trainable = load_file(folder / "trainable.safetensors")
            best = load_file(folder / "best.safetensors")
            moments = torch.load(folder / "optimizer.pt", weights_only=True)
        load_trainable_state(model, trainable)
        optimizer.load_state_dict(moments)
        return best, progress

    def progress(self) -> dict[str, Any] | None:
        """progress.json of the newest checkpoint."""
        folders = self._folders()
        if not folders:
            return None
        with _readable(folders[-1]):
            return json.loads((folders[-1] / PROGRESS).read_text())

    def remove(self) -> None:
        """Delete all checkpoints, half-written ones too (the run is done)."""
        for folder in [*self._folders(), *self.output.glob(".checkpoint-*.partial")]:
            shutil.rmtree(folder)

    def _folders(self) -> list[Path]:
        # Other trainers call their folders the same; those are left alone.
        ours = (p.parent for p in self.output.glob(f"checkpoint-*/{PROGRESS}"))
        found = [p for p in ours if p.name[11:].isdigit()]
        return sorted(found, key=lambda p: int(p.name[11:]))


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say what could not be written, and how to go on.

    Raises:
        DHRDError: instead of the library's own error.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DHRDError(
            f"Cannot write {folder}: {str(error).splitlines()[0]}\nThe last checkpoint is kept: "
            "make room, and the same command continues from it.",
            exit_code=EXIT_FAILED,
        ) from error


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    damaged = (OSError, ValueError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError)
    try:
        yield
    except damaged as error:
        raise DHRDError(
            f"Checkpoint {folder} is damaged ({str(error).splitlines()[0]}). Delete it to start "
            "afresh, or use another --output."
        ) from error


class TrainLog:
    """`train_log.jsonl`: one line per optimizer step, each step once, also after a resume.

    Raises:
        DHRDError: an output folder that cannot be made or written to, or a full disk.
    """

    def __init__(self, output: Path, resumed_step: int) -> None:
        self.path = output / TRAIN_LOG
        try:
            output.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise DHRDError(
                f"--output {output}: cannot write there ({error.strerror}). Name another folder."
            ) from None
        kept = []
        if resumed_step and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # torn by the interruption, and to be written again
                    continue
                if entry["step"] <= resumed_step:
                    kept.append(line)
        with writable(self.path):
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        with writable(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
