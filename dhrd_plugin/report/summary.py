"""From runs to a table of numbers: rows, columns, averages, differences. No text, no layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from dhrd_plugin.evaluated import in_common
from dhrd_plugin.report.arms import Arm, Arms, check_same_documents, find_row, fold
from dhrd_plugin.report.estimates import Difference, Estimate, difference, score
from dhrd_plugin.report.results import Run
from dhrd_plugin.significance import holm, smallest_difference

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
}


@dataclass(frozen=True)
class Cell:
    """`unparsable`: decoded answers that name no choice, in points; None for other answers."""

    n: int
    unparsable: float | None
    scores: dict[str, Estimate]
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Row:
    """One model or setting.

    Attributes:
        mark: "" or one of evaluated.MARKS, how it answered; the name ends in it.
        recipes: of its runs; several where the user named them.
        training: what its students' training summaries have in common; {} for other models.
        files: the results files it is made from.
    """

    name: str
    mark: str
    recipes: list[str]
    training: dict[str, Any]
    cells: dict[str, Cell]
    average: Estimate | None
    average_difference: Difference | None
    files: list[str]

    @property
    def differences(self) -> list[Difference]:
        """Those of its cells and of its average."""
        found = [d for cell in self.cells.values() for d in cell.differences.values()]
        return found if self.average_difference is None else [*found, self.average_difference]


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
            documents that differ where runs are folded or compared or share a column.
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
        row_runs = [run for arm in row_arms.values() for run in arm.runs]
        rows.append(
            Row(
                name=name,
                mark=next(iter(row_arms.values())).scores[0].mark,
                recipes=list(dict.fromkeys(run.recipe for run in row_runs)),
                training=in_common([run.training for run in row_runs]),
                cells={task: _cell(task, row_arms, compared) for task in row_arms},
                average=score(row_arms, average_over),
                average_difference=difference(row_arms, compared, average_over),
                files=sorted({str(run.path) for run in row_runs}),
            )
        )
    return Summary(columns, _corrected(rows), base_name, list(average_over))


def _columns(arms: Arms) -> list[Column]:
    columns = []
    for task in dict.fromkeys(column for row in arms.values() for column in row):
        there = [row[task] for row in arms.values() if task in row]
        largest = max((arm.scores[0] for arm in there), key=lambda found: found.n)
        for arm in there:  # a row of fewer documents shows how many
            if arm.scores[0].n == largest.n:
                check_same_documents(largest, arm.scores[0])
        groups = len({sample.cluster for sample in largest.samples})
        smallest = smallest_difference(groups)
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


def _cell(task: str, row: dict[str, Arm], base: dict[str, Arm]) -> Cell:
    arm, parts = row[task], {metric: {task: [metric]} for metric in row[task].metrics}
    unparsable = [run.unparsable for run in arm.scores if run.unparsable is not None]
    return Cell(
        n=arm.scores[0].n,
        unparsable=100 * fmean(unparsable) if unparsable else None,
        scores={m: found for m, over in parts.items() if (found := score(row, over))},
        differences={
            m: found for m, over in parts.items() if (found := difference(row, base, over))
        },
    )


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """With p_adjusted. All tests of the table are one family, those of the average included: its
    star claims as much as any other, and Holm's correction allows for tests that share data."""
    p_values = [d.p_value for row in rows for d in row.differences if d.p_value is not None]
    adjusted = iter(holm(p_values))

    def correct(found: Difference) -> Difference:
        return found if found.p_value is None else replace(found, p_adjusted=next(adjusted))

    def correct_cell(cell: Cell) -> Cell:
        return replace(cell, differences={m: correct(d) for m, d in cell.differences.items()})

    return [
        replace(
            row,
            cells={task: correct_cell(cell) for task, cell in row.cells.items()},
            average_difference=row.average_difference and correct(row.average_difference),
        )
        for row in rows
    ]


def _average_columns(arms: Arms, columns: Iterable[Column]) -> dict[str, tuple[str, ...]]:
    """Column -> metrics of the SuperGLUE tasks in the table, if there are at least two.

    A dataset counts once: of several tasks made from it (the paper's form of COPA beside the
    harness's) that which most rows have done, of equals the first.
    """
    found: dict[str, tuple[int, str, tuple[str, ...]]] = {}
    for column in columns:
        there = [row[column.task] for row in arms.values() if column.task in row]
        dataset = (there[0].scores[0].dataset or "").removesuffix(".fixed")
        metrics = SUPERGLUE_METRICS.get(dataset, ())
        if not metrics or not set(metrics) <= set(column.metrics):
            continue
        if dataset not in found or len(there) > found[dataset][0]:
            found[dataset] = (len(there), column.task, metrics)
    return {task: metrics for _, task, metrics in found.values()} if len(found) > 1 else {}
