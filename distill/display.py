"""Rich progress of a training run; plain lines where the output is no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
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
from distill.many import SeedSummary

if TYPE_CHECKING:
    from distill.train import Progress as TrainingProgress


class TrainingDisplay:
    """Shows steps, losses, tokens per second, the last dev result and the time left.

    Args:
        output: the student's folder.
        console: where to.
    """

    def __init__(self, output: Path, console: Console) -> None:
        self.output = output
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
            self.dev = f"dev {progress.dev['score']:.3f} nll {progress.dev['nll']:.3f}"
            if not self.console.is_terminal:
                self.console.print(
                    f"step {progress.step}/{progress.total_steps} {_losses(losses)} {self.dev}"
                )
        self._progress.update(
            self._task,
            description=progress.setting,
            completed=progress.step,
            total=progress.total_steps,
            state=f"{_losses(losses)} {progress.tokens_per_second:.0f} tok/s {self.dev}",
        )

    def summary(self, student: StudentConfig) -> None:
        if not self.steps_done:
            self.console.print(f"{self.output} is finished: nothing was left to train.")
        training = student.training
        table = Table(title=f"{training['setting']} student in {self.output}")
        table.add_column("setting")
        table.add_column("value")
        for key in ("lr", "steps", "train_rows", "train_rows_with_rationale", "dev_rows"):
            table.add_row(key, f"{training[key]}")
        dev = training["dev"]
        table.add_row("best dev result at step", f"{dev['step']}")
        for task, metrics in dev["metrics"].items():
            fit = training["calibration"][task]
            before, after = fit["before"], fit["after"]
            for metric, value in metrics.items():
                table.add_row(f"{task}: {metric}", f"{value:.3f}")
            table.add_row(f"{task}: temperature", f"{fit['temperature']:.3f}")
            for key in ("ece", "brier"):
                table.add_row(f"{task}: {key}, calibrated", f"{before[key]:.3f}, {after[key]:.3f}")
            table.add_row(
                f"{task}: accuracy of the surest 50%, 80%, 90%",
                ", ".join(f"{before[f'accuracy_at_{share}']:.3f}" for share in (50, 80, 90)),
            )
        table.add_row("wall seconds", f"{training['wall_seconds']}")
        self.console.print(table)
        self.console.print(
            f"Score it: lm_eval --model dhrd --model_args pretrained={self.output} "
            f"--tasks {','.join(student.tasks)}",
            soft_wrap=True,
        )


def summary_table(summaries: Sequence[SeedSummary]) -> Table:
    """Dev results of several students, with mean and interval where they are seeds."""
    table = Table(title="Dev results (the checkpoint was chosen on these rows: optimistic)")
    for column in ("student", "tasks", "score", "-log p"):
        table.add_column(column)
    for summary in summaries:
        tasks = ",".join(summary.tasks)
        for folder, score in summary.scores.items():
            table.add_row(folder, tasks, f"{score:.3f}", f"{summary.nlls[folder]:.3f}")
        if summary.half_width is not None:
            interval = f"{summary.mean:.3f} ± {summary.half_width:.3f}"
            table.add_row(
                "mean, 95% interval over seeds", tasks, interval, "", style="bold", end_section=True
            )
    return table


def _losses(losses: Mapping[str, float]) -> str:
    return " ".join(
        f"{name.removeprefix('loss_')} {value:.3f}"
        for name, value in losses.items()
        if name != "loss"
    )
