"""A summary as a rich table, as Markdown and as JSON. All three hold the same numbers."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dhrd_plugin import stats
from dhrd_plugin.evaluated import COT_MARKS, ZERO_SHOT_MARK
from dhrd_plugin.report.summary import Column, Estimate, Row, Summary

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

METRIC_NAMES = {"f1": "F1", "f1a": "F1a", "em": "EM"}  # as papers write them
NO_VALUE = "–"
NAME_WIDTH = 30  # characters before a row's name is wrapped


class Line(NamedTuple):
    """One line of a cell; `strong` only where an interval excludes zero."""

    text: str
    strong: bool = False


Cells = list[list[Line]]


def rich_report(summary: Summary, console: Console) -> Group:
    """The table and its notes; columns that the console is too narrow for go into further tables
    below."""
    from rich.console import Group
    from rich.text import Text

    heads, body = _grid(summary)
    unlimited = console.options.update(width=sys.maxsize)
    blocks: list[list[int]] = [[]]
    for i in range(len(heads)):
        wider = _table(heads, body, [*blocks[-1], i])
        if blocks[-1] and console.measure(wider, options=unlimited).maximum > console.width:
            blocks.append([])
        blocks[-1].append(i)
    tables = [_table(heads, body, block) for block in blocks]
    spaced = [part for table in tables for part in (table, Text())]
    return Group(*spaced, *(Text(note) for note in notes(summary)))


def _table(heads: list[list[str]], body: list[tuple[str, Cells]], shown: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", max_width=NAME_WIDTH)
    for i in shown:
        table.add_column(Text("\n".join(heads[i])), no_wrap=True)
    for name, cells in body:
        lines = (
            Text("\n").join(Text(text, "bold" if strong else "") for text, strong in cells[i])
            for i in shown
        )
        table.add_row(Text(name), *lines)
    return table


def markdown(summary: Summary) -> str:
    """A GitHub table and the notes as a list."""
    heads, body = _grid(summary)
    rows = [["", *("<br>".join(head) for head in heads)], ["---"] * (len(heads) + 1)]
    for name, cells in body:
        rows.append([_escape(name), *("<br>".join(map(_emphasise, cell)) for cell in cells)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- {_escape(note)}" for note in notes(summary))]
    return "\n".join(lines) + "\n"


def _emphasise(line: Line) -> str:
    text = _escape(line.text)
    return f"**{text}**" if line.strong else text


def _escape(text: str) -> str:
    """A bar would open another column, and an asterisk emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


def as_json(summary: Summary) -> str:
    """The whole summary in points, unrounded, with the notes; an interval that excludes zero marks
    a difference as significant."""
    content = dataclasses.asdict(summary)
    for row in content["rows"]:
        differences = [d for cell in row["cells"].values() for d in cell["differences"].values()]
        for difference in filter(None, [*differences, row["average_difference"]]):
            difference["significant"] = Estimate(**difference).excludes_zero
    content["notes"] = notes(summary)
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def notes(summary: Summary) -> list[str]:
    """What a reader must know to read the table, as far as it applies to this one."""
    found = ["Points (0–100). " + " ".join(_interval_notes(summary))]
    if summary.baseline is not None:
        found.append(
            f"Δ: difference to {summary.baseline!r} on the same documents, ± its 95% interval over "
            "documents and, for several runs, seeds (a difference of single runs says nothing "
            "about other seeds). *: the interval excludes 0; not corrected for several comparisons."
        )
    if summary.average_over:
        found.append(
            f"SuperGLUE average: over {', '.join(summary.average_over)}, a task with two metrics "
            "(CB, MultiRC, ReCoRD) first averaged over these; only for rows that have them all."
        )
    if any(row.name.endswith(tuple(COT_MARKS.values())) for row in summary.rows):
        found.append("(CoT): the same questions answered by decoding; acc is exact match.")
    if unparsable := list(_unparsable(summary)):
        found.append(
            f"Answers that name no choice, counted as wrong, in percent: {'; '.join(unparsable)}."
        )
    if any(row.name.endswith(ZERO_SHOT_MARK) for row in summary.rows):
        found.append(
            "(zero-shot): tasks the student has no head for, scored by its choices' log-likelihood."
        )
    sizes = ", ".join(_detectable(column) for column in summary.columns)
    found.append(
        f"Smallest difference in accuracy that this many documents show with {stats.POWER:.0%} "
        f"power (two single runs, McNemar, two-sided 5%, {stats.DISAGREEMENT:.0%} of documents "
        f"answered right by one only); smaller ones mostly go unseen: {sizes}."
    )
    return found


def _interval_notes(summary: Summary) -> Iterator[str]:
    estimates = [
        e for row in summary.rows for cell in row.cells.values() for e in cell.scores.values()
    ]
    if any(estimate.method in ("wilson", "bootstrap") for estimate in estimates):
        yield (
            "(a–b): one run, 95% interval over documents (Wilson; a bootstrap for F1, averages and "
            "documents that share a question, which are drawn together)."
        )
    if any(estimate.method == "seeds" for estimate in estimates):
        yield "± and ×k: mean of k runs, 95% t-interval over seeds, for these documents only."
    if any(estimate.method is None for estimate in estimates):
        yield "No interval: the logged samples do not tell how the metric is computed."


def _unparsable(summary: Summary) -> Iterator[str]:
    """Per row that decodes, its share per task."""
    for row in summary.rows:
        shares = [
            f"{task} {cell.unparsable:.1f}"
            for task, cell in row.cells.items()
            if cell.unparsable is not None
        ]
        if shares:
            yield f"{row.name}: {', '.join(shares)}"


def _detectable(column: Column) -> str:
    smallest = column.smallest_difference
    unit = "n" if column.groups == column.n else "questions"
    shown = "none at all" if smallest is None else f"{smallest:.1f}"
    return f"{column.task} ({unit}={column.groups}) {shown}"


def _grid(summary: Summary) -> tuple[list[list[str]], list[tuple[str, Cells]]]:
    """Column heads, and named rows of cells, as lines of text."""
    heads = [_head(column) for column in summary.columns]
    if summary.average_over:
        heads.append(["SuperGLUE", "average"])
    body = []
    for row in summary.rows:
        body.append((row.name, _score_cells(summary, row)))
        if any(cell.differences for cell in row.cells.values()):
            body.append(("  Δ", _difference_cells(summary, row)))
    return heads, body


def _head(column: Column) -> list[str]:
    size = f"n={column.n}" + (f" of {column.n_total}" if column.n < column.n_total else "")
    return [column.task, " / ".join(map(_metric_name, column.metrics)), size]


def _score_cells(summary: Summary, row: Row) -> Cells:
    cells = []
    for column in summary.columns:
        cell = row.cells.get(column.task)
        lines = _lines(column, cell.scores if cell else {})
        if cell and cell.n != column.n:
            lines.append(Line(f"n={cell.n}"))
        cells.append(lines)
    if summary.average_over:
        cells.append([_line(row.average)])
    return cells


def _difference_cells(summary: Summary, row: Row) -> Cells:
    cells = []
    for column in summary.columns:
        cell = row.cells.get(column.task)
        cells.append(_lines(column, cell.differences if cell else {}, signed=True))
    if summary.average_over:
        cells.append([_line(row.average_difference, signed=True)])
    return cells


def _lines(column: Column, estimates: dict[str, Estimate], signed: bool = False) -> list[Line]:
    """A line per metric of the column, named where there are several."""
    if not estimates:
        return [Line(NO_VALUE)]
    names = [_metric_name(metric) for metric in column.metrics]
    width = max(map(len, names)) + 1 if len(names) > 1 else 0
    lines = []
    for metric, name in zip(column.metrics, names, strict=True):
        line = _line(estimates.get(metric), signed)
        lines.append(Line(f"{name:{width}}{line.text}" if width else line.text, line.strong))
    return lines


def _line(estimate: Estimate | None, signed: bool = False) -> Line:
    if estimate is None:
        return Line(NO_VALUE)
    text = f"{estimate.value:{'+' if signed else ''}z.1f}"
    if estimate.low is not None and estimate.high is not None:
        half = (estimate.high - estimate.low) / 2
        over_documents = estimate.method in ("wilson", "bootstrap")
        span = f"({estimate.low:z.1f}–{estimate.high:z.1f})" if over_documents else f"±{half:.1f}"
        text = f"{text} {span}"
    if signed:
        return Line(f"{text} *", True) if estimate.excludes_zero else Line(text)
    return Line(f"{text} ×{estimate.runs}" if estimate.runs > 1 else text)


def _metric_name(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric)
