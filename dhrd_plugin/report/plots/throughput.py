"""Accuracy against throughput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from dhrd_plugin.evaluated import pooled_twin
from dhrd_plugin.report.benches import Bench, Side, throughput_of
from dhrd_plugin.report.plots.scores import Scale, on_average, on_task
from dhrd_plugin.report.plots.style import Look, finish, new_figure, points
from dhrd_plugin.report.summary import Summary

Sides = dict[str, Side]  # by row name


def draw(
    summary: Summary, benches: Sequence[Bench], looks: Mapping[str, Look]
) -> dict[str, Figure]:
    """A point per row whose throughput was measured.

    Longer documents take longer: a picture's throughputs are of one task. Its scores are the
    SuperGLUE average where every row with a throughput has one; of several tasks that were
    measured, the one with most rows (of these the first) stands for all. Else there is a picture
    per measured task, with the scores on that task.

    Bars: 95% intervals of scores, least and most of the bench's repeats.
    """
    measured = _measured(summary, benches)
    if not measured:
        return {}
    most = max(measured, key=lambda task: len(measured[task]))
    rows = [row for row in summary.rows if row.name in measured[most]]
    average = on_average(summary, rows)
    if average is not None:
        return {"throughput": _figure(average, most, measured[most], looks)}
    figures = {}
    for column in summary.columns:
        sides = measured.get(column.task, {})
        scale = on_task(column, [row for row in summary.rows if row.name in sides])
        if scale is not None and scale.by_row:
            figures[f"throughput-{column.task}"] = _figure(scale, column.task, sides, looks)
    return figures


def _measured(summary: Summary, benches: Sequence[Bench]) -> dict[str, Sides]:
    """By task, of the rows whose throughput on it is known."""
    by_task: dict[str, list[Bench]] = {}
    for bench in benches:
        by_task.setdefault(pooled_twin(bench.task)[0], []).append(bench)
    measured = {
        task: {row.name: side for row in summary.rows if (side := throughput_of(row, found))}
        for task, found in by_task.items()
    }
    return {task: sides for task, sides in measured.items() if sides}


def _figure(scale: Scale, task: str, sides: Sides, looks: Mapping[str, Look]) -> Figure:
    figure = new_figure(2.2)
    axes = figure.subplots()
    axes.set_xscale("log")
    for name, score in scale.by_row.items():
        side = sides[name]
        points(
            axes,
            np.array([side.queries_per_second], dtype=float),
            [score.value],
            looks[name],
            name,
            x_spans=[(side.low, side.high)],
            y_spans=[(score.low, score.high)],
        )
    axes.margins(0.1)
    axes.xaxis.set_major_locator(_locator(*axes.get_xlim()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"queries per second on {task}")
    axes.set_ylabel(scale.label)
    return finish(figure)


def _locator(low: float, high: float) -> Locator:
    """As many ticks as there is room for."""
    if high < 10 * low:
        return MaxNLocator(5, steps=(1, 2, 5, 10))
    return LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,))
