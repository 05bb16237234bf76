"""How far the models' confidence can be trusted: reliability diagrams and accuracy by coverage.

Both need a probability per choice, the softmax over the log-likelihoods that the harness logged;
decoded answers have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhrd_plugin.confidence import BINS, accuracy_by_coverage, by_confidence
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.answers import load_answers
from dhrd_plugin.report.plots.style import QUIET, Look, finish, new_figure
from dhrd_plugin.report.results import Run, TaskScore

LARGEST = 40  # area of a bin's marker with all documents, in square points
FEWEST = 10  # documents from which on an accuracy is drawn


class Judged(NamedTuple):
    """One run's answers to a task: (N,) probability of the prediction, and whether it is right."""

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]


ByRow = dict[str, list[Judged]]  # the runs of each row, by its name


def load(runs: Sequence[Run]) -> dict[str, ByRow]:
    """By task, the rows that have probabilities."""
    found: dict[str, ByRow] = {}
    for run in runs:
        for score in run.scores:
            judged = _judged(score)
            if judged is not None:
                by_row = found.setdefault(score.column, {})
                by_row.setdefault(run.name + score.mark, []).append(judged)
    return found


def _judged(score: TaskScore) -> Judged | None:
    """None for decoded answers, and for a task of which no log tells what was right."""
    try:
        answers = load_answers(score)
    except DHRDError:
        return None
    confidence = [max(answer.probs) for answer in answers if answer.probs is not None]
    if len(confidence) < len(answers):
        return None
    return Judged(np.array(confidence), np.array([answer.right for answer in answers]))


def draw_reliability(judged: Mapping[str, ByRow], looks: Mapping[str, Look]) -> dict[str, Figure]:
    """Per task: accuracy over confidence by bin, a marker's area for the share of documents in it;
    below, these shares.

    The answers of a row's seeds are pooled, so that a bin holds more of them; the legend's expected
    calibration error is that of the bins drawn.
    """
    return {f"reliability-{task}": _reliability(rows, looks) for task, rows in judged.items()}


def _reliability(rows: ByRow, looks: Mapping[str, Look]) -> Figure:
    figure = new_figure(3.0)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.axline((0, 0), slope=1, color=QUIET, linewidth=0.8, zorder=1)
    edges = np.linspace(0, 1, BINS + 1)
    least = 1.0
    for name, look in looks.items():
        if name not in rows:
            continue
        pooled = Judged(*map(np.concatenate, zip(*rows[name], strict=True)))
        bins = by_confidence(*pooled)
        filled = bins.counts > 0
        least = min(least, edges[filled.argmax()])
        share = bins.counts / bins.counts.sum()
        x, y = bins.confidence[filled], bins.accuracy[filled]
        line = {"color": look.color, "linestyle": look.line, "linewidth": 0.6}
        upper.plot(x, y, **line)
        upper.scatter(x, y, s=LARGEST * share[filled], color=look.color, marker=look.marker)
        upper.plot([], [], marker=look.marker, label=f"{name}, ECE {bins.ece:.3f}", **line)
        lower.stairs(100 * share, edges, color=look.color, linestyle=look.line)
    upper.set_xlim(least, 1.01)
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("accuracy")
    lower.set_ylabel("share (%)")
    lower.set_xlabel("confidence: probability of the answer")
    figure.align_ylabels()
    return finish(figure)


def draw_coverage(judged: Mapping[str, ByRow], looks: Mapping[str, Look]) -> dict[str, Figure]:
    """Per task: accuracy when only the most confident answers count, over how many do.

    The mean over a row's seeds of each seed's curve: who sets a threshold has one model. It begins
    at FEWEST documents, before which it jumps.
    """
    return {f"coverage-{task}": _coverage(rows, looks) for task, rows in judged.items()}


def _coverage(rows: ByRow, looks: Mapping[str, Look]) -> Figure:
    figure = new_figure(2.2)
    axes = figure.subplots()
    for name, look in looks.items():
        if name not in rows:
            continue
        accuracy = np.mean([accuracy_by_coverage(*one) for one in rows[name]], axis=0)
        coverage = np.arange(1, len(accuracy) + 1) / len(accuracy)
        start = min(FEWEST, len(accuracy)) - 1
        axes.plot(
            100 * coverage[start:],
            100 * accuracy[start:],
            color=look.color,
            linestyle=look.line,
            label=name,
        )
    axes.set_xlim(0, 101)
    axes.set_xlabel("coverage, most confident first (%)")
    axes.set_ylabel("accuracy on these (%)")
    return finish(figure)
