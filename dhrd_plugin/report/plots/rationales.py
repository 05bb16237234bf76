"""Rationales by length, and by what a judge makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from dhrd_plugin.report.audits import RationaleAudit
from dhrd_plugin.report.plots.style import COLUMN, PAGE, Look, finish, looks, new_figure

MAX_BINS = 30
WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # words per bin
VIEWS = {  # what the judge saw, and what its probability of gold then says
    "both": "probability of gold from\nquestion and rationale",
    "rationale": "probability of gold from\nthe rationale alone",
}


def draw(audits: Sequence[RationaleAudit]) -> Figure | None:
    """A histogram of the number of words and, where rationales were verified, of the probability
    that the judge gave the gold answer: from question and rationale (sufficiency) and from the
    rationale alone (leakage). A line per file. None without rationales.
    """
    audits = [audit for audit in audits if audit.rows]
    if not audits:
        return None
    judged = any(audit.gold_probs for audit in audits)
    figure = new_figure(1.9, PAGE if judged else COLUMN)
    lengths, *panels = figure.subplots(1, 1 + len(VIEWS) * judged, squeeze=False)[0]
    width = _bin_width([audit.words for audit in audits])
    for audit, look in zip(audits, looks(map(str, range(len(audits)))).values(), strict=True):
        starts = np.arange(min(audit.words) // width, max(audit.words) // width + 1) * width
        counts = np.zeros(len(starts))
        for words, rows in audit.words.items():
            counts[(words - starts[0]) // width] += rows
        edges = [*starts, starts[-1] + width]
        _histogram(lengths, counts, edges, look, f"{audit.name} (n={audit.rows:,})")
        for axes, view in zip(panels, VIEWS, strict=False):
            if audit.gold_probs:
                counts = np.array(audit.gold_probs[view])
                _histogram(axes, counts, np.linspace(0, 1, len(counts) + 1), look)
    lengths.set_xlabel("words per rationale")
    lengths.set_ylabel("rationales (%)")
    for axes, label in zip(panels, VIEWS.values(), strict=False):
        axes.set_xlabel(label)
    return finish(figure)


def _bin_width(counts: Sequence[Mapping[int, int]]) -> int:
    """Words per bin, so that all fit into MAX_BINS."""
    spread = max(map(max, counts)) - min(map(min, counts))
    return next((width for width in WIDTHS if spread / width < MAX_BINS), WIDTHS[-1])


def _histogram(
    axes: Axes, counts: np.ndarray, edges: ArrayLike, look: Look, label: str | None = None
) -> None:
    """Counts as percentages."""
    shares = 100 * counts / counts.sum()
    axes.stairs(shares, edges, color=look.color, fill=True, alpha=0.12)
    axes.stairs(shares, edges, color=look.color, linestyle=look.line, linewidth=1.1, label=label)
