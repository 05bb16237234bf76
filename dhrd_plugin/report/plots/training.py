"""Training curves from `train_log.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dhrd_plugin.report.plots.style import Look, finish, new_figure
from dhrd_plugin.report.train_logs import TrainLog

PANEL = 1.25  # inches high
SHORTEST_WINDOW = 10  # steps; a twentieth of a longer run
# The loss's terms: each is comparable between runs, their weighted sum is not.
TERMS = {
    "loss_cls": "classification\nloss (nats)",
    "loss_reason": "reasoning\nloss (nats)",
    "loss_kd_label": "divergence,\nlabels (nats)",
    "loss_kd_token": "divergence,\ntokens (nats)",
}


def draw(logs: Sequence[TrainLog], looks: Mapping[str, Look]) -> Figure | None:
    """A panel per term of the loss that a run has, and one for the score on dev rows.

    A line per run, seeds of one name alike: faint as logged, strong as a centred moving average
    (`smooth`). A term whose weight is 0 is logged as 0 and not drawn. None without logs.
    """
    terms = [term for term in TERMS if any(_has(log, term) for log in logs)]
    if not terms:
        return None
    figure = new_figure(PANEL * (len(terms) + 1) + 0.2)
    *panels, dev = figure.subplots(len(terms) + 1, sharex=True)
    for log in logs:
        color, marker, line = looks[log.name]
        for axes, term in zip(panels, terms, strict=True):
            if _has(log, term):
                values = np.array(log.losses[term])
                axes.plot(log.steps, values, color=color, linewidth=0.4, alpha=0.25)
                axes.plot(log.steps, smooth(values), color=color, linestyle=line, linewidth=0.9)
        steps, scores = [step for step, _ in log.dev], [score for _, score in log.dev]
        dev.plot(steps, scores, color=color, linestyle=line, marker=marker, label=log.name)
    for axes, term in zip(panels, terms, strict=True):
        axes.set_ylabel(TERMS[term])
    dev.set_ylabel("score on\ndev rows")
    dev.set_xlabel("optimizer step")
    figure.align_ylabels()
    return finish(figure)


def _has(log: TrainLog, term: str) -> bool:
    return any(log.losses.get(term, ()))


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) -> (N,) mean over the steps around each, fewer at the ends.

    >>> smooth(np.array([0.0, 6.0, 0.0]))
    array([3., 2., 3.])
    """
    window = np.ones(min(len(values), max(SHORTEST_WINDOW, len(values) // 20)))
    sums, counts = (np.convolve(v, window, "same") for v in (values, np.ones(len(values))))
    return sums / counts
