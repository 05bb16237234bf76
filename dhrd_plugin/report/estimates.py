"""From the runs of a row to its numbers: scores and differences, with intervals and tests.

A score is a mean over tasks of a mean over metrics, `over` says which: one metric of one task, or
the SuperGLUE average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from dhrd_plugin import significance, stats
from dhrd_plugin.metrics import ClusterSums
from dhrd_plugin.report.arms import Arm, recomputed

Over = Mapping[str, Sequence[str]]  # column -> metrics


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


@dataclass(frozen=True)
class Difference(Estimate):
    """A row's score minus the baseline's.

    Attributes:
        relative: in percent of the baseline's value; None where that is zero.
        test: None without p_value, else "mcnemar" (exact; accuracies of single runs), "bootstrap"
            (other metrics of single runs) or "t", the last two from the interval's standard error.
        p_value, p_adjusted: of this test alone, and after Holm's correction over all differences
            of the table.
    """

    relative: float | None = None
    test: str | None = None
    p_value: float | None = None
    p_adjusted: float | None = None

    @property
    def significant(self) -> bool:
        return self.p_adjusted is not None and self.p_adjusted < significance.LEVEL


def score(row: Mapping[str, Arm], over: Over) -> Estimate | None:
    """None for a row without all of `over`: averages over different tasks cannot be compared."""
    if not _has(row, over):
        return None
    value, runs, seeds = _value(row, over), _fewest_runs(row, over), _seed_errors(row, over)
    if runs > 1:
        return _estimate(value, stats.interval_around(value, seeds, "seeds"), runs)
    tasks = _sums([row], over)
    if tasks is None:
        return _estimate(value, None, runs)
    if len(tasks) == 1:
        return _estimate(value, stats.document_interval(tasks[0][0][0]), runs)
    method = "combined" if seeds else "bootstrap"
    errors = [*_document_errors(tasks), *seeds]
    return _estimate(value, stats.interval_around(value, errors, method), runs)


def difference(row: Mapping[str, Arm], base: Mapping[str, Arm], over: Over) -> Difference | None:
    """`row` - `base`, both on the same documents; None where one of them lacks a part of `over`."""
    if not (_has(row, over) and _has(base, over)):
        return None
    theirs, runs = _value(base, over), _fewest_runs(row, over)
    value = _value(row, over) - theirs
    relative = 100 * value / theirs if theirs else None
    tasks = _sums([row, base], over)
    if tasks is None:
        return Difference(100 * value, None, None, None, runs, relative)
    seeds = [*_seed_errors(row, over), *_seed_errors(base, over)]
    errors = [*_document_errors(tasks), *seeds]
    test, p_value = _test(value, tasks, errors, has_seeds=bool(seeds))
    if stats.total_error(errors).variance == 0:  # equal answers: nothing to draw from
        return Difference(100 * value, None, None, None, runs, relative, test, p_value)
    found = stats.interval_around(value, errors, "combined")
    low, high = 100 * found.low, 100 * found.high
    return Difference(100 * value, low, high, found.method, runs, relative, test, p_value)


def _test(
    value: float,
    tasks: Sequence[list[list[ClusterSums]]],
    errors: Sequence[stats.ErrorTerm],
    has_seeds: bool,
) -> tuple[str | None, float | None]:
    binomial = all(run.is_binomial for arms in tasks for arm in arms for run in arm)
    if binomial and not has_seeds and len(tasks) == 1:
        (ours,), (theirs,) = tasks[0]
        return "mcnemar", significance.mcnemar(ours, theirs)
    p_value = significance.t_test(value, errors)
    if p_value is None:
        return None, None
    return "t" if binomial or has_seeds else "bootstrap", p_value


def _has(row: Mapping[str, Arm], over: Over) -> bool:
    return bool(over) and all(
        task in row and set(metrics) <= set(row[task].metrics) for task, metrics in over.items()
    )


def _value(row: Mapping[str, Arm], over: Over) -> float:
    return fmean(fmean(row[task].values(metrics)) for task, metrics in over.items())


def _fewest_runs(row: Mapping[str, Arm], over: Over) -> int:
    return min(len(row[task].scores) for task in over)


def _seed_errors(row: Mapping[str, Arm], over: Over) -> list[stats.ErrorTerm]:
    """If the same models did all tasks, from the average of each (a joint student's tasks are not
    independent); else the tasks' trainings are taken as independent. None of single runs, whose
    seed error cannot be known."""
    models = sorted(row[next(iter(over))].identities)
    if len(models) > 1 and all(sorted(row[task].identities) == models for task in over):
        by_model = [
            dict(zip(row[task].identities, row[task].values(metrics), strict=True))
            for task, metrics in over.items()
        ]
        return [stats.seed_error([fmean(task[model] for task in by_model) for model in models])]
    by_task = [row[task].values(metrics) for task, metrics in over.items()]
    errors = [stats.seed_error(values) for values in by_task if len(values) > 1]
    return [error.scaled(1 / len(over)) for error in errors]


def _sums(rows: Sequence[Mapping[str, Arm]], over: Over) -> list[list[list[ClusterSums]]] | None:
    """Per task, row and run; None if a metric cannot be recomputed."""
    tasks = [recomputed([row[task] for row in rows], metrics) for task, metrics in over.items()]
    known = [task for task in tasks if task is not None]
    return known if len(known) == len(tasks) else None


def _document_errors(tasks: Sequence[list[list[ClusterSums]]]) -> list[stats.ErrorTerm]:
    """Of the mean over tasks, which have different documents, so that errors are independent."""
    return [stats.document_error(*arms).scaled(1 / len(tasks)) for arms in tasks]


def _estimate(value: float, interval: stats.Interval | None, runs: int) -> Estimate:
    if interval is None:
        return Estimate(100 * value, None, None, None, runs)
    return Estimate(100 * value, 100 * interval.low, 100 * interval.high, interval.method, runs)
