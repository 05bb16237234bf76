"""How every picture looks: sizes, fonts, colours, legends, files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

COLUMN, PAGE = 3.3, 6.8  # width in inches of a column, and of a page
SMALL = 7  # points, the smallest text
LETTERS_PER_INCH = 14  # of that size, beside the sign in a legend
MAX_LEGEND_COLUMNS = 4
# Okabe & Ito (2008), "Color Universal Design", less its yellow, which is lost on white paper. The
# numbers of colours, markers and lines have no common factor: 280 rows before a look recurs.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
QUIET = "#999999"  # what is not data
RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.dpi": 300,
    "font.size": SMALL,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "legend.borderaxespad": 0.2,
    "legend.borderpad": 0.2,
    "legend.columnspacing": 1.2,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "dhrd",
    "text.parse_math": False,  # a name may hold dollars
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
}


Span = tuple[float | None, float | None]  # an interval's ends


class Look(NamedTuple):
    """Of a row: three ways of telling it from another, since print may be grey."""

    color: str
    marker: str
    line: str | tuple


def looks(names: Iterable[str]) -> dict[str, Look]:
    """By name, in their order."""
    unique = dict.fromkeys(names)
    return {
        name: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, name in enumerate(unique)
    }


def applied() -> AbstractContextManager:
    """Within it matplotlib has its own defaults and RC, whatever the user has configured."""
    return matplotlib.style.context(RC, after_reset=True)


def new_figure(height: float, width: float = COLUMN) -> Figure:
    """Empty, in inches; `finish` makes it higher by its legend."""
    return Figure(figsize=(width, height), layout="constrained")


def points(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    look: Look,
    label: str,
    *,
    x_spans: Sequence[Span] | None = None,
    y_spans: Sequence[Span] | None = None,
) -> None:
    """A row's values with their intervals, where they have one."""
    if x_spans is not None:
        axes.hlines(y, *_ends(x_spans), color=look.color, linewidth=0.9)
    if y_spans is not None:
        axes.vlines(x, *_ends(y_spans), color=look.color, linewidth=0.9)
    axes.plot(x, y, linestyle="", marker=look.marker, color=look.color, label=label)


def _ends(spans: Sequence[Span]) -> NDArray[np.float64]:
    """(2, N), NaN for None."""
    return np.array(spans, dtype=float).T


def finish(figure: Figure) -> Figure:
    """Put a legend of all labelled artists below the panels, in as many columns as fit, and fix the
    layout, which each drawing would otherwise find anew and not always the same."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        width, height = figure.get_size_inches()
        labels = [textwrap.fill(label, int(LETTERS_PER_INCH * width)) for label in entries]
        for columns in range(min(len(labels), MAX_LEGEND_COLUMNS), 0, -1):
            legend = figure.legend(
                list(entries.values()), labels, loc="outside lower center", ncols=columns
            )
            box = legend.get_window_extent()
            if box.width <= figure.bbox.width or columns == 1:
                break
            legend.remove()
        figure.set_figheight(height + box.height / figure.dpi)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def svg(figure: Figure) -> str:
    """The `<svg>` element, without the document type, which names a file on a server."""
    text = _saved(figure, "svg", dict.fromkeys(("Date", "Creator", "Format", "Type"))).decode()
    return text[text.index("<svg") :]


def png(figure: Figure) -> bytes:
    return _saved(figure, "png", {"Software": None})


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    """`metadata`: what is not to be written down, such as the date."""
    buffer = io.BytesIO()
    with applied():
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()
