"""The sweep as a picture over alpha and beta."""

from __future__ import annotations

from pathlib import Path

from dhrd_plugin.report.estimates import Estimate
from dhrd_plugin.report.plots import require_matplotlib, save
from distill.sweep.space import Space, searched
from distill.sweep.trials import Sweep

NAME = "alpha-beta"


def draw(sweep: Sweep, space: Space) -> list[Path]:
    """Write the heat map into the sweep's folder, as SVG and PNG; returns the files.

    A cell shows the best score of its alpha and beta, whatever the other settings were: what the
    two can reach once the rest is tuned. No files without two cells of listed alpha and beta.

    Raises:
        DHRDError: matplotlib is not installed, or the folder cannot be written to.
    """
    if not all(isinstance(space.get(name), tuple) for name in ("alpha", "beta")):
        return []
    cells: dict[tuple[float, float], Estimate] = {}
    for trial in sweep.ranked:
        if trial.score is not None:
            score = Estimate(100 * trial.score, None, None, None, len(trial.scores))
            cells.setdefault((trial.params["alpha"], trial.params["beta"]), score)
    if len(cells) < 2:
        return []
    require_matplotlib()
    from dhrd_plugin.report.plots import alpha_beta, style

    with style.applied():
        figure = alpha_beta.heat_map(cells, _label(sweep, space))
    return save({NAME: figure}, sweep.folder)


def _label(sweep: Sweep, space: Space) -> str:
    others = [n.replace("_", "-") for n in searched(space) if n not in ("alpha", "beta")]
    label = f"dev score (points), best over {', '.join(others)}" if others else "dev score (points)"
    if sweep.smallest_difference is not None:
        label += f"\nless than {100 * sweep.smallest_difference:.1f} apart may be chance"
    return label
