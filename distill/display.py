"""Rich progress of a training run; plain lines where the output is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dhrd_plugin.checkpoint import StudentConfig
from distill.config import DistillConfig

if TYPE_CHECKING:
    from distill.train import Progress as TrainingProgress


class TrainingDisplay:
    """Shows steps, losses, tokens per second, the last dev result and the time left."""

    def __init__(self, config: DistillConfig, console: Console) -> None:
        self.config = config
        self.console = console
        self.dev = ""
        self.steps_done = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task("loading", total=None, state="")

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def update(self, progress: TrainingProgress) -> None:
        losses = progress.losses
        self.steps_done += 1
        if progress.dev is not None:
            self.dev = f"dev acc {progress.dev['accuracy']:.3f} nll {progress.dev['nll']:.3f}"
            if not self.console.is_terminal:
                self.console.print(
                    f"step {progress.step}/{progress.total_steps} {_losses(losses)} {self.dev}"
                )
        self._progress.update(
            self._task,
            description=self.config.setting,
            completed=progress.step,
            total=progress.total_steps,
            state=f"{_losses(losses)} {progress.tokens_per_second:.0f} tok/s {self.dev}",
        )

    def summary(self, student: StudentConfig) -> None:
        if not self.steps_done:
            self.console.print(f"{self.config.output} is finished: nothing was left to train.")
        training = student.training
        table = Table(title=f"{training['setting']} student in {self.config.output}")
        table.add_column("setting")
        table.add_column("value")
        for key in ("lr", "steps", "train_rows", "train_rows_with_rationale", "dev_rows"):
            table.add_row(key, f"{training[key]}")
        dev = training["dev"]
        table.add_row("best dev accuracy", f"{dev['accuracy']:.3f} at step {dev['step']}")
        table.add_row("wall seconds", f"{training['wall_seconds']}")
        self.console.print(table)
        self.console.print(
            f"Score it: lm_eval --model dhrd --model_args pretrained={self.config.output} "
            f"--tasks {','.join(student.tasks)}",
            soft_wrap=True,
        )


def _losses(losses: dict[str, float]) -> str:
    return f"cls {losses['loss_cls']:.3f} reason {losses['loss_reason']:.3f}"
