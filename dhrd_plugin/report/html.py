"""The report as one page: the numbers of the other formats, to sort, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import dhrd_plugin
from dhrd_plugin.evaluated import in_common
from dhrd_plugin.report import pages, plots
from dhrd_plugin.report.benches import Bench
from dhrd_plugin.report.estimates import Difference, Estimate
from dhrd_plugin.report.results import Run
from dhrd_plugin.report.summary import Row, Summary
from dhrd_plugin.report.table import (
    NO_VALUE,
    Line,
    column_head,
    estimate_line,
    metric_name,
    notes,
    p_text,
)
from dhrd_plugin.report.throughput import ThroughputTable, throughput_tables

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

NBSP = "\N{NO-BREAK SPACE}"  # what follows the first other space is printed in grey
TESTS = {"mcnemar": "exact McNemar", "bootstrap": "bootstrap", "t": "t", None: NO_VALUE}


class Number(NamedTuple):
    """A cell that is sorted by `value`, empty ones last."""

    value: float | None
    lines: Sequence[Line]


Cell = str | Number


class Table(NamedTuple):
    """A row begins with its name; `groups` are titles, each over a number of heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()


class Score(NamedTuple):
    """What a row has in one column of metrics; `n` where it is not the column's."""

    task: str
    metric: str
    estimate: Estimate | None
    difference: Difference | None
    n: int | None


def html_report(
    summary: Summary,
    *,
    runs: Sequence[Run],
    benches: Sequence[Bench],
    figures: Mapping[str, Figure],
) -> str:
    """The page; `runs` are those that the summary was made of, `figures` come from `plots.draw`."""
    common, training = _training(summary)
    return pages.render(
        "report.html.j2",
        summary=summary,
        dates=sorted({_date(run.date).partition(" ")[0] for run in runs}),
        scores=_scores(summary),
        differences=_differences(summary),
        notes=notes(summary),
        benches=[(bench, _throughput(bench)) for bench in throughput_tables(benches)],
        pictures=[_picture(name, figure) for name, figure in figures.items()],
        files=_files(summary, runs),
        common=common,
        training=training,
        version=dhrd_plugin.__version__,
    )


def _scores(summary: Summary) -> Table:
    """A column per metric, the difference below the score."""
    groups = [
        (f"{column.task} {column_head(column)[2]}", len(column.metrics))
        for column in summary.columns
        if column.metrics
    ]
    heads = ["Model", *(metric_name(m) for column in summary.columns for m in column.metrics)]
    if summary.average_over:
        groups.append(("SuperGLUE", 1))
        heads.append("average")
    rows: list[list[Cell]] = []
    for row in summary.rows:
        cells = [Number(_value(s.estimate), list(_lines(s))) for s in _of(row, summary)]
        rows.append([row.name, *cells])
    return Table(heads, rows, groups)


def _of(row: Row, summary: Summary) -> Iterator[Score]:
    """In the order of the columns, the average last."""
    for column in summary.columns:
        cell = row.cells.get(column.task)
        for metric in column.metrics:
            yield Score(
                column.task,
                metric_name(metric),
                cell.scores.get(metric) if cell else None,
                cell.differences.get(metric) if cell else None,
                cell.n if cell and cell.n != column.n else None,
            )
    if summary.average_over:
        yield Score("SuperGLUE", "average", row.average, row.average_difference, None)


def _lines(score: Score) -> Iterator[Line]:
    yield estimate_line(score.estimate)
    if score.n is not None:
        yield Line(f"n={score.n}")
    if score.difference is not None:
        text, strong = estimate_line(score.difference)
        yield Line(f"Δ{NBSP}{text}", strong)


def _differences(summary: Summary) -> Table | None:
    """A row per difference, with all that belongs to its test."""
    heads = ["Model", "Task", "Metric", "Baseline", "Score", "Δ", "95% interval", "rel."]
    heads += ["Test", "p", "p (Holm)"]
    rows: list[list[Cell]] = []
    for row in summary.rows:
        for score, base in zip(_of(row, summary), _of(summary.rows[0], summary), strict=True):
            if score.difference is not None:
                texts = [row.name, score.task, score.metric]
                rows.append([*texts, *_numbers(base.estimate, score.estimate, score.difference)])
    return Table(heads, rows) if rows else None


def _numbers(base: Estimate | None, score: Estimate | None, d: Difference) -> list[Cell]:
    strong = d.significant
    interval = NO_VALUE if d.low is None else f"{d.low:+z.1f}{NBSP}to{NBSP}{d.high:+z.1f}"
    return [
        _number(_value(base), "z.1f"),
        _number(_value(score), "z.1f"),
        Number(d.value, [Line(f"{d.value:+z.1f}{' *' if strong else ''}", strong)]),
        Number(d.low, [Line(interval)]),
        _number(d.relative, "+z.1f", "%"),
        TESTS[d.test],
        Number(d.p_value, [Line(p_text(d.p_value))]),
        Number(d.p_adjusted, [Line(p_text(d.p_adjusted), strong)]),
    ]


def _throughput(bench: ThroughputTable) -> Table:
    heads = ["Answers by", *(head.replace("\n", " ") for head in bench.heads[1:])]
    rows: list[list[Cell]] = [[name, *map(_measured, texts)] for name, *texts in bench.rows]
    return Table(heads, rows)


def _measured(text: str) -> Number:
    """Sorted by the number that the text begins with, if it does.

    >>> _measured("1,230\\n(1,190–1,260)").value, _measured("–").value
    (1230.0, None)
    """
    found = re.match(r"[\d,.]+", text)
    value = float(found[0].replace(",", "")) if found else None
    return Number(value, [Line(part.replace(" ", NBSP)) for part in text.split("\n")])


def _picture(name: str, figure: Figure) -> tuple[str, Markup]:
    """Its caption, and itself."""
    kind = next(kind for kind in plots.PICTURES if f"{name}-".startswith(f"{kind}-"))
    shows, _, _ = plots.PICTURES[kind].partition(":")
    task = name.removeprefix(kind).removeprefix("-")
    caption = shows[0].upper() + shows[1:] + (f", {task}" if task else "")
    svg = plots.svg(figure)
    return caption, pages.inline_svg(svg, label=caption, prefix=f"{name}-")


def _files(summary: Summary, runs: Sequence[Run]) -> Table:
    by_path = {str(run.path): run for run in runs}
    rows: list[list[Cell]] = [
        [row.name, by_path[file].seed, _date(by_path[file].date), file]
        for row in summary.rows
        for file in row.files
    ]
    return Table(["Model", "Seed", "Evaluated (UTC)", "File"], rows)


def _training(summary: Summary) -> tuple[dict[str, Cell], Table]:
    """What all students have in common, and the settings by which the rows differ."""
    students = {row.name: _settings(row) for row in summary.rows if row.training}
    common = in_common(list(students.values()))
    names = dict.fromkeys(key for found in students.values() for key in found)
    differing = [name for name in names if name not in common]
    rows: list[list[Cell]] = [
        [row, *(found.get(name, NO_VALUE) for name in differing)] for row, found in students.items()
    ]
    return common, Table(["Model", *differing], rows if differing else [])


def _settings(row: Row) -> dict[str, Cell]:
    """Without those that are not set, the results of training and what the row's name says."""
    return {
        key: _setting(value)
        for key, value in row.training.items()
        if key != "setting" and value is not None and not isinstance(value, Mapping)
    }


def _setting(value: Any) -> Cell:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool | str):
        return str(value)
    return _number(value, "g")


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _number(value: float | None, form: str, unit: str = "") -> Number:
    return Number(value, [Line(NO_VALUE if value is None else f"{value:{form}}{unit}")])
