"""How far a pass is: a bar on a terminal, JSON lines for machines, else nothing."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from teachers.budget import Usage

LOG_INTERVAL = 5.0  # seconds between JSON lines


class Event(Protocol):
    """One answered request: an attempt at a rationale, or a question of the second pass.

    Attributes:
        reason: why it came to nothing, a key of `checks.REASONS`; None for a success.
        failure: why there was no usable reply, in words, if so.
        final: whether no more of the same is to come in this run.
        usage: what it cost.
    """

    @property
    def reason(self) -> str | None: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def final(self) -> bool: ...
    @property
    def usage(self) -> Usage: ...


@dataclass
class Tally:
    """What a pass has come to.

    Attributes:
        total: rows (or questions) there are.
        done: those that are through, by earlier runs included.
        spent_before: US dollars that earlier runs cost; None where no prices are known.
        kept: successes of this run.
        rejected: what came to nothing in this run, by reason.
        last_failure: why the last request without a usable reply had none.
        usage: what this run has used.
        clock: seconds, for the rates.
    """

    total: int
    done: int = 0
    spent_before: float | None = None
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    last_failure: str | None = None
    usage: Usage = field(default_factory=Usage)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._done_before = self.done

    def count(self, event: Event) -> None:
        self.done += event.final
        self.usage += event.usage
        if event.reason is None:
            self.kept += 1
        else:
            self.rejected[event.reason] += 1
            self.last_failure = event.failure or self.last_failure

    @property
    def finished(self) -> int:
        """How many this run has brought through."""
        return self.done - self._done_before

    def figures(self) -> dict[str, Any]:
        """All of it with rates, for the bar and the JSON lines; cost includes earlier runs."""
        seconds = max(self.clock() - self._started, 1e-9)
        rate = self.finished / seconds
        costs = [c for c in (self.spent_before, self.usage.cost) if c is not None]
        return {
            "done": self.done,
            "total": self.total,
            "kept": self.kept,
            "rejected": dict(self.rejected),
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "cost": sum(costs) if costs else None,
            "seconds": round(seconds, 3),
            "rows_per_second": round(rate, 3),
            "tokens_per_second": round(self.usage.tokens / seconds, 1),
            "seconds_left": round((self.total - self.done) / rate, 1) if rate else None,
        }


def follow(
    name: str,
    events: Iterable[Event],
    tally: Tally,
    *,
    log_json: bool = False,
    silent: bool = False,
) -> None:
    """Run through `events`, counting them in `tally`, and show how it goes.

    Args:
        name: what is being done ("teaching").
        log_json: JSON lines on stderr instead of the bar, one every few seconds and one at the end.
        silent: neither.
    """
    if log_json and not silent:
        _follow_in_json(name, events, tally)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
        disable=silent or not console.is_terminal,
    ) as progress:
        bar = progress.add_task(name, total=tally.total, completed=tally.done, status="")
        for event in events:
            tally.count(event)
            progress.update(bar, completed=tally.done, status=_status(tally.figures()))


def _status(figures: dict[str, Any]) -> str:
    """`1.4 rows/s, 310 tokens/s, 12 kept, 3 rejected, $0.0120`."""
    parts = [
        f"{figures['rows_per_second']:.1f} rows/s",
        f"{figures['tokens_per_second']:.0f} tokens/s",
        f"{figures['kept']} kept",
        f"{sum(figures['rejected'].values())} rejected",
    ]
    if figures["cost"]:  # a model on this machine costs nothing
        parts.append(f"${figures['cost']:.4f}")
    return ", ".join(parts)


def _follow_in_json(name: str, events: Iterable[Event], tally: Tally) -> None:
    def log() -> None:
        print(json.dumps({"pass": name, **tally.figures()}), file=sys.stderr, flush=True)

    logged = tally.clock()
    try:
        for event in events:
            tally.count(event)
            if (now := tally.clock()) - logged >= LOG_INTERVAL:
                log()
                logged = now
    finally:  # an error or interruption is reported after the last figures
        log()
