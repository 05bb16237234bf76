"""Scores by task, with their 95% intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dhrd_plugin.report.plots.style import Look, finish, new_figure, points
from dhrd_plugin.report.summary import Estimate, Summary
from dhrd_plugin.report.table import metric_name

LINE = 0.09  # inches from row to row
GAP = 0.12  # between groups, and around them
LABEL = 0.28  # of a group: two lines
AXIS = 0.4  # for ticks and label


def draw(summary: Summary, looks: Mapping[str, Look]) -> Figure | None:
    """A group per task and metric, the SuperGLUE average last; in it a line per row, in the order
    of the table. None without any score."""
    groups = _groups(summary)
    if not groups:
        return None
    rows = [row.name for row in summary.rows]
    pitch = max(LINE * len(rows) + GAP, LABEL)
    figure = new_figure(pitch * len(groups) + AXIS)
    axes = figure.subplots()
    for i, name in enumerate(rows):
        offset = LINE * (i - (len(rows) - 1) / 2)
        found = [(pitch * g + offset, s[name]) for g, (_, s) in enumerate(groups) if name in s]
        y, estimates = [y for y, _ in found], [estimate for _, estimate in found]
        spans = [(estimate.low, estimate.high) for estimate in estimates]
        points(axes, [e.value for e in estimates], y, looks[name], name, x_spans=spans)
    centres = pitch * np.arange(len(groups))
    axes.set_yticks(centres, [label for label, _ in groups])
    axes.set_ylim(centres[-1] + pitch / 2, -pitch / 2)  # downwards, as in the table
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    for border in centres[1:] - pitch / 2:
        axes.axhline(border, color="#bbbbbb", linewidth=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10)))
    axes.set_xlabel("score (points), 95% interval")
    return finish(figure)


def _groups(summary: Summary) -> list[tuple[str, dict[str, Estimate]]]:
    """(label, estimate by row name)."""
    groups = []
    for column in summary.columns:
        for metric in column.metrics:
            cells = {r.name: r.cells[column.task] for r in summary.rows if column.task in r.cells}
            scores = {n: cell.scores[metric] for n, cell in cells.items() if metric in cell.scores}
            groups.append((f"{column.task}\n{metric_name(metric)}", scores))
    if summary.average_over:
        averages = {row.name: row.average for row in summary.rows if row.average is not None}
        groups.append(("SuperGLUE\naverage", averages))
    return groups
