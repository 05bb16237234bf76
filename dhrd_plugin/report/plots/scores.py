"""The one score by which a row stands in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from dhrd_plugin.report.summary import Column, Estimate, Row, Summary
from dhrd_plugin.report.table import metric_name


class Scale(NamedTuple):
    """What an axis measures, and the estimates (points) of the rows that have one."""

    label: str
    by_row: dict[str, Estimate]


def on_average(summary: Summary, rows: Sequence[Row]) -> Scale | None:
    """The SuperGLUE average, if each of the rows has one."""
    by_row = {row.name: row.average for row in rows if row.average is not None}
    return Scale("SuperGLUE average (points)", by_row) if 0 < len(by_row) == len(rows) else None


def on_task(column: Column, rows: Sequence[Row]) -> Scale | None:
    """A task's accuracy, or the first metric of one that has none."""
    metrics = [m for m in column.metrics if m.partition(",")[0] == "acc"] or column.metrics
    if not metrics:
        return None
    cells = {row.name: row.cells[column.task].scores for row in rows if column.task in row.cells}
    by_row = {name: scores[metrics[0]] for name, scores in cells.items() if metrics[0] in scores}
    return Scale(f"{column.task} {metric_name(metrics[0])} (points)", by_row)


def overall(summary: Summary, rows: Sequence[Row]) -> Scale | None:
    """The SuperGLUE average, else the mean over the tasks that all of the rows have done."""
    average = on_average(summary, rows)
    if average is not None:
        return average
    scales = [scale for column in summary.columns if (scale := on_task(column, rows))]
    shared = [scale for scale in scales if len(scale.by_row) == len(rows)]
    if len(shared) < 2:
        return shared[0] if shared else None
    means = {
        row.name: Estimate(fmean(s.by_row[row.name].value for s in shared), None, None, None, 1)
        for row in rows
    }
    return Scale(f"mean of {len(shared)} tasks (points)", means)
