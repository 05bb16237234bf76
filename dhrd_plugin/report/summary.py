"""From runs to a table of numbers: rows, columns, averages, differences. No text, no layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dhrd_plugin import stats
from dhrd_plugin.report.arms import Arm, Arms, check_same_documents, find_row, fold
from dhrd_plugin.report.results import Run

# The metrics whose mean is a task's score in the SuperGLUE average (the paper's convention, and
# SuperGLUE's own). Stock `multirc` reports neither F1a nor EM and so has no part in it.
SUPERGLUE_METRICS = {
    "boolq": ("acc",),
    "cb": ("f1", "acc"),
    "copa": ("acc",),
    "multirc": ("f1a", "em"),
    "record": ("f1", "em"),
    "rte": ("acc",),
    "wic": ("acc",),
    "wsc": ("acc",),
    "wsc.fixed": ("acc",),
}


@dataclass(frozen=True)
class Estimate:
    """A score or a difference in points (0-100) with its 95% interval.

    `method` says what the interval is over (see stats.Interval); low, high and method are None
    where there is none. `runs` counts the seeds folded into the value (of an average: the fewest of
    its tasks).
    """

    value: float
    low: float | None
    high: float | None
    method: str | None
    runs: int

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Cell:
    """`unparsable`: decoded answers that name no choice, in points; None for other answers."""

    n: int
    unparsable: float | None
    scores: dict[str, Estimate]
    differences: dict[str, Estimate]


@dataclass(frozen=True)
class Row:
    name: str
    cells: dict[str, Cell]
    average: Estimate | None
    average_difference: Estimate | None
    files: list[str]


@dataclass(frozen=True)
class Column:
    """`groups` counts independent documents or questions; `smallest_difference` (points) is what
    they could have shown between two runs, None when nothing."""

    task: str
    metrics: list[str]
    n: int
    n_total: int
    groups: int
    smallest_difference: float | None


@dataclass(frozen=True)
class Summary:
    """`average_over` names the SuperGLUE tasks that the average covers; empty: no average."""

    columns: list[Column]
    rows: list[Row]
    baseline: str | None
    average_over: list[str]


def summarise(runs: Sequence[Run], baseline: str | None = None) -> Summary:
    """Fold runs (none superseded) into rows and compare them with the row called `baseline`.

    Raises:
        DHRDError: an unknown baseline, runs of one row that are no seeds of one setting, or
            documents that differ where runs are folded or compared.
    """
    arms = fold(runs)
    base_name = find_row(baseline, arms) if baseline is not None else None
    base = arms[base_name] if base_name is not None else {}
    columns = _columns(arms)
    average_over = _average_columns(arms, columns)
    rows = []
    for name in sorted(arms, key=lambda name: name != base_name):  # the baseline first
        row_arms = arms[name]
        compared = {} if name == base_name else base
        cells = {column: _cell(arm, compared.get(column)) for column, arm in row_arms.items()}
        average, difference = _averages(row_arms, compared, average_over)
        files = sorted({str(run.path) for arm in row_arms.values() for run in arm.runs})
        rows.append(Row(name, cells, average, difference, files))
    return Summary(columns, rows, base_name, list(average_over))


def _columns(arms: Arms) -> list[Column]:
    columns = []
    for task in dict.fromkeys(column for row in arms.values() for column in row):
        there = [row[task] for row in arms.values() if task in row]
        largest = max((arm.scores[0] for arm in there), key=lambda score: score.n)
        groups = len({sample.cluster for sample in largest.samples})
        smallest = stats.smallest_difference(groups)
        columns.append(
            Column(
                task=task,
                metrics=list(dict.fromkeys(m for arm in there for m in arm.metrics)),
                n=largest.n,
                n_total=largest.n_total,
                groups=groups,
                smallest_difference=None if smallest is None else 100 * smallest,
            )
        )
    return columns


def _cell(arm: Arm, base: Arm | None) -> Cell:
    if base is not None:
        check_same_documents(base.scores[0], arm.scores[0])
    shared = [m for m in arm.metrics if m in base.metrics] if base is not None else []
    unparsable = [score.unparsable for score in arm.scores if score.unparsable is not None]
    return Cell(
        n=arm.scores[0].n,
        unparsable=100 * fmean(unparsable) if unparsable else None,
        scores={m: _score(arm, m) for m in arm.metrics},
        differences={m: _difference(arm, base, m) for m in shared if base is not None},
    )


def _score(arm: Arm, metric: str) -> Estimate:
    values, sums = arm.values([metric]), arm.sums([metric])
    interval = None
    if len(values) > 1:
        interval = stats.interval_around(fmean(values), arm.seed_errors([metric]), "seeds")
    elif sums is not None:
        interval = stats.document_interval(sums[0])
    return _points(fmean(values), interval, len(values))


def _difference(arm: Arm, base: Arm, metric: str) -> Estimate:
    difference = fmean(arm.values([metric])) - fmean(base.values([metric]))
    ours, theirs = arm.sums([metric]), base.sums([metric])
    documents = None
    if ours is not None and theirs is not None:
        documents = [stats.document_error(ours, theirs)]
    seeds = [*arm.seed_errors([metric]), *base.seed_errors([metric])]
    interval = _interval(difference, documents, seeds, "combined")
    return _points(difference, interval, len(arm.scores))


def _average_columns(arms: Arms, columns: Iterable[Column]) -> dict[str, tuple[str, ...]]:
    """Column -> metrics of the SuperGLUE tasks in the table, if there are at least two."""
    found = {}
    for column in columns:
        arm = next(row[column.task] for row in arms.values() if column.task in row)
        metrics = SUPERGLUE_METRICS.get(arm.scores[0].dataset or "", ())
        if metrics and set(metrics) <= set(column.metrics):
            found[column.task] = metrics
    return found if len(found) > 1 else {}


def _averages(
    row: dict[str, Arm], base: dict[str, Arm], over: dict[str, tuple[str, ...]]
) -> tuple[Estimate | None, Estimate | None]:
    """The row's average over the tasks `over` and its difference to the baseline's; a row without
    all of them has none, since averages over different tasks cannot be compared."""

    def complete(arms: dict[str, Arm]) -> bool:
        return all(task in arms and set(over[task]) <= set(arms[task].metrics) for task in over)

    if not over or not complete(row):
        return None, None
    value = _mean_over_tasks(row, over)
    runs = min(len(row[task].scores) for task in over)
    seeds = _seed_errors_of_average(row, over)
    documents = [] if runs > 1 else _document_errors_of_average(row, {}, over)
    method = "seeds" if runs > 1 else "combined" if seeds else "bootstrap"
    average = _points(value, _interval(value, documents, seeds, method), runs)
    if not base or not complete(base):
        return average, None
    difference = value - _mean_over_tasks(base, over)
    documents = _document_errors_of_average(row, base, over)
    seeds = [*seeds, *_seed_errors_of_average(base, over)]
    return average, _points(difference, _interval(difference, documents, seeds, "combined"), runs)


def _mean_over_tasks(row: dict[str, Arm], over: dict[str, tuple[str, ...]]) -> float:
    return fmean(fmean(row[task].values(metrics)) for task, metrics in over.items())


def _seed_errors_of_average(
    row: dict[str, Arm], over: dict[str, tuple[str, ...]]
) -> list[stats.ErrorTerm]:
    """If the same models did all tasks, from the average of each (a joint student's tasks are not
    independent); else the tasks' trainings are taken as independent."""
    models = sorted(row[next(iter(over))].identities)
    if len(models) > 1 and all(sorted(row[task].identities) == models for task in over):
        by_model = [
            dict(zip(row[task].identities, row[task].values(metrics), strict=True))
            for task, metrics in over.items()
        ]
        return [stats.seed_error([fmean(task[model] for task in by_model) for model in models])]
    errors = [row[task].seed_errors(metrics) for task, metrics in over.items()]
    return [error.scaled(1 / len(over)) for terms in errors for error in terms]


def _document_errors_of_average(
    row: dict[str, Arm], base: dict[str, Arm], over: dict[str, tuple[str, ...]]
) -> list[stats.ErrorTerm] | None:
    """Of the difference to `base`, or of the average itself where `base` is empty. Tasks have
    different documents, so their errors are independent. None: a metric cannot be recomputed."""
    errors = []
    for task, metrics in over.items():
        ours = row[task].sums(metrics)
        theirs = base[task].sums(metrics) if base else []
        if ours is None or theirs is None:
            return None
        errors.append(stats.document_error(ours, theirs).scaled(1 / len(over)))
    return errors


def _interval(
    value: float,
    documents: list[stats.ErrorTerm] | None,
    seeds: list[stats.ErrorTerm],
    method: str,
) -> stats.Interval | None:
    if documents is None:
        return None
    return stats.interval_around(value, [*documents, *seeds], method)


def _points(value: float, interval: stats.Interval | None, runs: int) -> Estimate:
    if interval is None:
        return Estimate(100 * value, None, None, None, runs)
    return Estimate(100 * value, 100 * interval.low, 100 * interval.high, interval.method, runs)
