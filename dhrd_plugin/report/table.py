"""A summary as lines of text and notes: what the table says in every format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dhrd_plugin import significance
from dhrd_plugin.evaluated import COT_MARKS, ZERO_SHOT_MARK
from dhrd_plugin.report.estimates import Difference, Estimate
from dhrd_plugin.report.summary import Column, Row, Summary

METRIC_NAMES = {"f1": "F1", "f1a": "F1a", "em": "EM"}  # as papers write them
TESTS = {
    "mcnemar": "exact McNemar (accuracy and EM of single runs)",
    "bootstrap": "standard error from a bootstrap over documents (other metrics of single runs)",
    "t": "t-test with the interval's standard error",
}
NO_VALUE = "–"


class Line(NamedTuple):
    """One line of a cell; `strong` only where a difference is significant."""

    text: str
    strong: bool = False


Cell = list[Line]


class Grid(NamedTuple):
    """Column heads, of several lines each, and named rows of cells."""

    heads: list[list[str]]
    rows: list[tuple[str, list[Cell]]]


def grid(summary: Summary) -> Grid:
    """A row per model, its differences to the baseline in a row below."""
    heads = [column_head(column) for column in summary.columns]
    if summary.average_over:
        heads.append(["SuperGLUE", "average"])
        if summary.baseline is not None:
            heads.append(["rel."])
    rows = []
    for row in summary.rows:
        rows.append((row.name, _score_cells(summary, row)))
        if row.differences:
            rows.append(("  Δ", _difference_cells(summary, row)))
    return Grid(heads, rows)


def column_head(column: Column) -> list[str]:
    """Task, metrics, documents."""
    size = f"n={column.n}" + (f" of {column.n_total}" if column.n < column.n_total else "")
    return [column.task, " / ".join(map(metric_name, column.metrics)), size]


def metric_name(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric)


def estimate_line(estimate: Estimate | None) -> Line:
    """A score or a difference with its interval."""
    if estimate is None:
        return Line(NO_VALUE)
    is_difference = isinstance(estimate, Difference)
    text = f"{estimate.value:{'+' if is_difference else ''}z.1f}"
    if estimate.low is not None and estimate.high is not None:
        half = (estimate.high - estimate.low) / 2
        over_documents = estimate.method in ("wilson", "bootstrap")
        span = f"({estimate.low:z.1f}–{estimate.high:z.1f})" if over_documents else f"±{half:.1f}"
        text = f"{text} {span}"
    if isinstance(estimate, Difference):
        return Line(f"{text} *", True) if estimate.significant else Line(text)
    return Line(f"{text} ×{estimate.runs}" if estimate.runs > 1 else text)


def _score_cells(summary: Summary, row: Row) -> list[Cell]:
    cells = []
    for column in summary.columns:
        cell = row.cells.get(column.task)
        lines = _lines(column, cell.scores if cell else {})
        if cell and cell.n != column.n:
            lines.append(Line(f"n={cell.n}"))
        cells.append(lines)
    if summary.average_over:
        cells.append([estimate_line(row.average)])
        if summary.baseline is not None:
            cells.append([Line("")])
    return cells


def _difference_cells(summary: Summary, row: Row) -> list[Cell]:
    cells = []
    for column in summary.columns:
        cell = row.cells.get(column.task)
        cells.append(_lines(column, cell.differences if cell else {}))
    if summary.average_over:
        average = row.average_difference
        relative = average.relative if average is not None else None
        cells.append([estimate_line(average)])
        cells.append([Line(NO_VALUE if relative is None else f"{relative:+z.1f}%")])
    return cells


def _lines(column: Column, estimates: Mapping[str, Estimate]) -> Cell:
    """A line per metric of the column, named where there are several."""
    if not estimates:
        return [Line(NO_VALUE)]
    names = [metric_name(metric) for metric in column.metrics]
    width = max(map(len, names)) + 1 if len(names) > 1 else 0
    lines = []
    for metric, name in zip(column.metrics, names, strict=True):
        text, strong = estimate_line(estimates.get(metric))
        lines.append(Line(f"{name:{width}}{text}" if width else text, strong))
    return lines


def notes(summary: Summary) -> list[str]:
    """What a reader must know to read the table, as far as it applies to this one."""
    found = ["Points (0–100). " + " ".join(_interval_notes(summary)), *_difference_notes(summary)]
    if summary.average_over:
        found.append(
            f"SuperGLUE average: over {', '.join(summary.average_over)}, a task with two metrics "
            "(CB, MultiRC, ReCoRD) first averaged over these; only for rows that have them all."
        )
    if any(row.mark in COT_MARKS.values() for row in summary.rows):
        found.append("(CoT): the same questions answered by decoding; acc is exact match.")
    if unparsable := list(_unparsable(summary)):
        found.append(
            f"Answers that name no choice, counted as wrong, in percent: {'; '.join(unparsable)}."
        )
    if any(row.mark == ZERO_SHOT_MARK for row in summary.rows):
        found.append(
            "(zero-shot): tasks the student has no head for, scored by its choices' log-likelihood."
        )
    sizes = ", ".join(_detectable(column) for column in summary.columns)
    found.append(
        f"Smallest difference in accuracy that this many documents show with "
        f"{significance.POWER:.0%} power (two single runs, McNemar, two-sided 5%, not corrected, "
        f"{significance.DISAGREEMENT:.0%} of documents answered right by one only); smaller ones "
        f"mostly go unseen: {sizes}."
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
        yield (
            "No interval and no test: the logged samples do not tell how the metric is computed."
        )


def _difference_notes(summary: Summary) -> Iterator[str]:
    if summary.baseline is None:
        return
    relative = "; rel.: the average's, in percent of the baseline's" if summary.average_over else ""
    yield (
        f"Δ: difference to {summary.baseline!r} on the same documents, ± its own 95% interval over "
        "documents and, for several runs, seeds (a difference of single runs says nothing about "
        f"other seeds){relative}."
    )
    tests = [d.test for row in summary.rows for d in row.differences if d.test is not None]
    if tests:
        average = ", and the average" if summary.average_over else ""
        used = "; ".join(text for test, text in TESTS.items() if test in tests)
        yield (
            "*: significant, p < 0.05 after Holm's correction for all differences tested here "
            f"({len(tests)}: every row, task and metric{average}), whereas the intervals are not "
            f"corrected: one that excludes 0 may bear no star. Two-sided paired tests: {used}."
        )


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


def p_text(p_value: float | None) -> str:
    if p_value is None:
        return NO_VALUE
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
