"""The terminal's table: golden text, whatever the terminal is."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from result_files import rows, write_study
from rich.console import Console

from dhrd_plugin.report.cli import main
from dhrd_plugin.report.summary import Summary
from dhrd_plugin.report.terminal import rich_report

GOLDEN = Path(__file__).parent / "golden"
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def summary(results) -> Summary:
    return rows(results, baseline="pooled")[0]


def golden(width: int, kind: str) -> str:
    return (GOLDEN / f"report_{width}.{kind}").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize(
    "environment, kind",
    [
        pytest.param({}, "txt", id="no terminal"),
        pytest.param({"TERM": "dumb"}, "txt", id="dumb terminal"),
        pytest.param({**TERMINAL, "COLORFGBG": "15;0"}, "ansi", id="dark"),
        pytest.param({**TERMINAL, "COLORFGBG": "0;15"}, "ansi", id="light"),
        pytest.param({**TERMINAL, "NO_COLOR": "1"}, "ansi", id="no colour"),
    ],
)
def test_golden_output_of_the_command(results, capsys, monkeypatch, width, environment, kind):
    for name in ("FORCE_COLOR", "NO_COLOR", "COLORTERM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"COLUMNS": str(width), **environment}.items():
        monkeypatch.setenv(name, value)
    assert main([str(results), "--baseline", "pooled"]) == 0
    assert stripped(capsys.readouterr().out) == golden(width, kind)


@pytest.mark.parametrize("width", [80, 140])
def test_bold_is_the_only_emphasis_and_marks_what_is_significant(summary, width):
    """No colour that a background could swallow; what the bold says, the star says without it."""
    styled = golden(width, "ansi")
    assert set(re.findall(r"\x1b\[(.*?)m", styled)) == {"0", "1"}
    assert stripped(re.sub(r"\x1b\[.*?m", "", styled)) == golden(width, "txt")
    bold = [text for text in re.findall(r"\x1b\[1m(.*?)\x1b\[0m", styled) if "±" in text]
    assert bold and all(text.endswith(" *") for text in bold)
    differences = [d for row in summary.rows for d in row.differences]
    assert len(bold) == sum(d.significant for d in differences)
    assert any(d.high < 0 and not d.significant for d in differences)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_no_number_is_cut_at_any_width(summary, width):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(rich_report(summary, console))
    text = console.file.getvalue()
    assert "…" not in text
    assert "n=56" in text
    for row in summary.rows:
        for cell in row.cells.values():
            for estimate in (*cell.scores.values(), *cell.differences.values()):
                assert f"{estimate.value:.1f}" in text


def stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
