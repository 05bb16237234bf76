"""Shows how a bench goes: a bar on a terminal, and a line for every figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dhrd_plugin.report.benches import Kind
from dhrd_plugin.report.throughput import LABELS, rate

if TYPE_CHECKING:
    from dhrd_plugin.bench.measure import Found, Step


class BenchDisplay:
    """A context manager; `show` takes the events of a side."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("rendering the documents", total=None)

    def __enter__(self) -> BenchDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def show(self, kind: Kind, event: Step | Found) -> None:
        if not isinstance(event, dict):
            self._progress.update(
                self._task,
                description=f"{LABELS[kind]}: {event.stage}, {event.parallel} at a time",
                completed=event.done,
                total=event.total,
            )
            return
        for line in _lines(event):
            self._console.print(f"{LABELS[kind]}: {line}", highlight=False)


def _lines(found: Found) -> list[str]:
    lines = []
    if "search" in found:
        newest = found["search"][-1]
        reached = newest["queries_per_second"]
        shown = "out of memory" if reached is None else f"{rate(reached)} queries/s"
        lines.append(f"{newest['size']} at a time: {shown}")
    if "seconds" in found:
        lines.append(f"timed run {len(found['seconds'])}: {found['seconds'][-1]:.2f} s")
    if "problem" in found:
        lines.append(found["problem"])
    return lines
