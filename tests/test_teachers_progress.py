"""Counts, rates and costs of a pass, on a terminal, as JSON lines, and not at all."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import pytest
from rich import console as rich_console

from teachers.budget import Usage
from teachers.progress import Tally, follow


@dataclass(frozen=True)
class Answered:
    reason: str | None = None
    failure: str | None = None
    final: bool = True
    usage: Usage = field(default_factory=lambda: Usage(10, 20, 0.5))


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


EVENTS = [Answered(), Answered("leak", final=False), Answered("answer"), Answered()]


def test_figures_count_this_run_and_cost_the_whole_file():
    clock = Clock()
    tally = Tally(total=10, done=2, spent_before=1.0, clock=clock)
    for event in EVENTS:
        tally.count(event)
    clock.now = 2.0
    assert tally.figures() == {
        "done": 5,
        "total": 10,
        "kept": 2,
        "rejected": {"leak": 1, "answer": 1},
        "prompt_tokens": 40,
        "completion_tokens": 80,
        "cost": 3.0,
        "seconds": 2.0,
        "rows_per_second": 1.5,
        "tokens_per_second": 60.0,
        "seconds_left": pytest.approx(5 / 1.5, abs=0.05),
    }
    assert tally.finished == 3


def test_nothing_done_has_no_rate_and_no_price_no_cost():
    tally = Tally(total=3, clock=Clock())
    assert tally.figures()["seconds_left"] is None
    assert tally.figures()["cost"] is None


def test_json_lines_come_at_intervals_and_at_the_end(capsys):
    clock = Clock()

    def events():
        for event in EVENTS:
            clock.now += 3.0  # a line is due after 6 and 12 seconds
            yield event

    follow("teaching", events(), Tally(total=3, clock=clock), log_json=True)
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.err.splitlines()]
    assert [line["seconds"] for line in lines] == [6.0, 12.0, 12.0]
    assert [line["done"] for line in lines] == [1, 3, 3]
    assert all(line["pass"] == "teaching" for line in lines)
    assert captured.out == ""


def test_last_json_line_is_written_when_the_pass_fails(capsys):
    def events():
        yield Answered()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow("teaching", events(), Tally(total=3), log_json=True)
    assert json.loads(capsys.readouterr().err)["kept"] == 1


def test_bar_shows_rate_kept_rejected_and_cost(monkeypatch):
    screen = io.StringIO()
    terminal = rich_console.Console(file=screen, force_terminal=True, width=140)
    monkeypatch.setattr(rich_console, "Console", lambda **_: terminal)
    clock = Clock()
    tally = Tally(total=3, clock=clock)
    clock.now = 2.0
    follow("teaching", iter(EVENTS), tally)
    last = screen.getvalue()
    for part in ("teaching", "3/3", "1.5 rows/s", "60 tokens/s", "2 kept", "2 rejected", "$2.0000"):
        assert part in last
    assert tally.done == 3


@pytest.mark.parametrize("settings", [{}, {"silent": True, "log_json": True}])
def test_nothing_is_shown_where_nobody_looks(capsys, settings):
    follow("teaching", iter(EVENTS), tally := Tally(total=3), **settings)
    assert tally.kept == 2
    assert capsys.readouterr() == ("", "")
