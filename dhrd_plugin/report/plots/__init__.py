"""Pictures of a report, each as SVG and PNG. Needs matplotlib (`pip install 'dhrd[plots]'`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dhrd_plugin.errors import DHRDError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dhrd_plugin.report.audits import RationaleAudit
    from dhrd_plugin.report.benches import Bench
    from dhrd_plugin.report.results import Run
    from dhrd_plugin.report.summary import Summary
    from dhrd_plugin.report.train_logs import TrainLog

# What a picture shows, and what it is made from.
PICTURES = {
    "tasks": "scores by task: results with a metric of which more is better",
    "throughput": "accuracy against throughput: a bench_*.json of `dhrd-bench` for their models",
    "alpha-beta": "scores over α and β: students that differ in these alone (and the seed)",
    "reliability": "reliability diagrams: tasks answered by choosing, not by decoding",
    "coverage": "accuracy by coverage: tasks answered by choosing, not by decoding",
    "training": "training curves: --train-log",
    "rationales": "histogram of rationales: --audit",
}


def draw(
    summary: Summary,
    runs: Sequence[Run] = (),
    benches: Sequence[Bench] = (),
    train_logs: Sequence[TrainLog] = (),
    audits: Sequence[RationaleAudit] = (),
) -> dict[str, Figure]:
    """The pictures for which there is data: a key of PICTURES, followed by `-TASK` where each task
    has a picture of its own.

    A row looks the same in all of them, and so does a training log of its name.

    Args:
        runs: those that the summary was made of.

    Raises:
        DHRDError: without matplotlib.
    """
    require_matplotlib()
    from dhrd_plugin.report.plots import (
        alpha_beta,
        rationales,
        reliability,
        style,
        tasks,
        throughput,
        training,
    )

    looks = style.looks([row.name for row in summary.rows] + [log.name for log in train_logs])
    with style.applied():
        judged = reliability.load(runs)
        figures = {
            "tasks": tasks.draw(summary, looks),
            **throughput.draw(summary, benches, looks),
            "alpha-beta": alpha_beta.draw(summary),
            **reliability.draw_reliability(judged, looks),
            **reliability.draw_coverage(judged, looks),
            "training": training.draw(train_logs, looks),
            "rationales": rationales.draw(audits),
        }
    return {name: figure for name, figure in figures.items() if figure is not None}


def left_out(figures: Mapping[str, Figure]) -> list[str]:
    """The entries of PICTURES that were not drawn."""
    drawn = tuple(figures)
    return [
        needs
        for picture, needs in PICTURES.items()
        if not any(name == picture or name.startswith(f"{picture}-") for name in drawn)
    ]


def save(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write `NAME.svg` and `NAME.png` into `folder`, which is made for them.

    Raises:
        DHRDError: nothing to write, or a folder that cannot be written to.
    """
    if not figures:
        raise DHRDError(f"--plots: nothing to draw. {'; '.join(PICTURES.values())}.")
    from dhrd_plugin.report.plots import style

    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            for kind, content in (("svg", svg(figure).encode()), ("png", style.png(figure))):
                path = folder / f"{name}.{kind}"
                path.write_bytes(content)
                paths.append(path)
    except OSError as error:
        raise DHRDError(f"--plots: cannot write {folder}: {error.strerror or error}.") from None
    return paths


def svg(figure: Figure) -> str:
    """The `<svg>` element: text as text, no reference to anything outside, the same every time."""
    from dhrd_plugin.report.plots import style

    return style.svg(figure)


def require_matplotlib() -> None:
    """
    Raises:
        DHRDError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise DHRDError("Pictures need matplotlib: pip install 'dhrd[plots]'") from None
