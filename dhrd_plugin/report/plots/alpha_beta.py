"""Scores over the weights of the two losses."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dhrd_plugin.evaluated import OF_ONE_RUN
from dhrd_plugin.report.plots.scores import overall
from dhrd_plugin.report.plots.style import COLUMN, PAGE, finish, new_figure
from dhrd_plugin.report.summary import Estimate, Row, Summary

CELL = 0.42  # inches, width and height
MARGINS = 0.95  # around the cells, for labels and scale
MIDDLE_GREY = 0.179  # relative luminance on which black and white stand out alike (WCAG 2.2)
Cells = dict[tuple[float, float], Row]  # by (α, β)


def draw(summary: Summary) -> Figure | None:
    """A cell per (α, β), with its score and the 95% interval written into it.

    The colours span the intervals, so that scores which these cannot tell apart look alike.

    Only students that differ in α and β alone (and the seed) stand in one map: of several kinds
    (another schedule, span of the loss, learning rate, …) the one with most cells, of these the
    first; of several rows for one cell also the first. None where no kind has two cells.
    """
    kinds: dict[str, Cells] = {}
    for row in summary.rows:
        if not row.mark and {"alpha", "beta"} <= row.training.keys():
            cells = kinds.setdefault(_kind(row), {})
            cells.setdefault((row.training["alpha"], row.training["beta"]), row)
    cells = max(kinds.values(), key=len, default={})
    scale = overall(summary, list(cells.values())) if len(cells) > 1 else None
    if scale is None:
        return None
    return heat_map({pair: scale.by_row[row.name] for pair, row in cells.items()}, scale.label)


def _kind(row: Row) -> str:
    apart = OF_ONE_RUN | {"alpha", "beta", "setting"}  # which names both
    return json.dumps({k: v for k, v in row.training.items() if k not in apart}, sort_keys=True)


def heat_map(scores: Mapping[tuple[float, float], Estimate], label: str) -> Figure:
    """A cell per (α, β), at most PAGE wide; `label` says what the scores (points) are."""
    alphas, betas = (sorted({pair[i] for pair in scores}) for i in range(2))
    values = np.full((len(betas), len(alphas)), np.nan)
    for (alpha, beta), score in scores.items():
        values[betas.index(beta), alphas.index(alpha)] = score.value
    ends = [end for s in scores.values() for end in (s.value, s.low, s.high) if end is not None]
    width = min(max(COLUMN, CELL * len(alphas) + MARGINS), PAGE)
    figure = new_figure(CELL * len(betas) + MARGINS, width)
    axes = figure.subplots()
    mesh = axes.pcolormesh(
        values, cmap="cividis", vmin=min(ends), vmax=max(ends), edgecolors="white", linewidth=1
    )
    colors = mesh.to_rgba(values)
    for (alpha, beta), score in scores.items():
        x, y = alphas.index(alpha), betas.index(beta)
        color = _readable_on(colors[y, x])
        axes.text(x + 0.5, y + 0.5, _written(score), color=color, ha="center", va="center")
    axes.set_xticks(np.arange(len(alphas)) + 0.5, [f"{alpha:g}" for alpha in alphas])
    axes.set_yticks(np.arange(len(betas)) + 0.5, [f"{beta:g}" for beta in betas])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("α, weight of the reasoning loss")
    axes.set_ylabel("β")
    bar = figure.colorbar(mesh, ax=axes, label=label, location="top", aspect=40)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(6, steps=(1, 2, 5, 10))
    return finish(figure)


def _written(score: Estimate) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.1f}"
    return f"{score.value:.1f}\n{score.low:.0f}–{score.high:.0f}"


def _readable_on(rgba: ArrayLike) -> str:
    """Black or white, whichever has the higher contrast."""
    srgb = np.asarray(rgba, dtype=float)[:3]
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > MIDDLE_GREY else "white"
