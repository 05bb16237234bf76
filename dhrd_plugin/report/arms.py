"""Fold runs into rows: the runs of one setting on one task, checked to be comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.evaluated import MARKS
from dhrd_plugin.metrics import ClusterSums, average_sums, recompute
from dhrd_plugin.report.results import Run, TaskScore


@dataclass
class Arm:
    """The runs of one row on one task, all on the same documents."""

    scores: list[TaskScore] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """Those that every run reports."""
        first, *others = self.scores
        return [m for m in first.metrics if all(m in other.metrics for other in others)]

    @property
    def identities(self) -> list[str]:
        return [run.identity for run in self.runs]

    def values(self, metrics: Sequence[str]) -> list[float]:
        """Per run the mean of `metrics`."""
        return [fmean(score.metrics[m] for m in metrics) for score in self.scores]


Arms = dict[str, dict[str, Arm]]  # row name -> column -> arm


def fold(runs: Sequence[Run]) -> Arms:
    """Rows in the order of `runs` (none superseded), the marked ones (CoT) right below their own.

    Raises:
        DHRDError: runs of one row that are no seeds of one setting, or on different documents.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    pairs = [(run, score) for run in runs for score in run.scores]
    order = ("", *MARKS)
    pairs.sort(key=lambda pair: (names.index(pair[0].name), order.index(pair[1].mark)))
    arms: Arms = {}
    for run, score in pairs:
        row = arms.setdefault(run.name + score.mark, {})
        arm = row.setdefault(score.column, Arm())
        if arm.scores:
            _check_same_setting(arm, run, score)
            check_same_documents(arm.scores[0], score)
        arm.runs.append(run)
        arm.scores.append(score)
    return arms


def _check_same_setting(arm: Arm, run: Run, score: TaskScore) -> None:
    shots = arm.scores[0].num_fewshot
    if score.num_fewshot != shots:
        raise DHRDError(
            f"{run.path}: {score.task} with {score.num_fewshot} examples in the prompt would share "
            f"the row {run.name!r} with {arm.runs[0].path}, which has {shots}.\n"
            "Name them apart: NAME=PATH, or leave one out."
        )
    if run.named:
        return
    for other in arm.runs:
        if other.recipe == run.recipe and other.seed != run.seed:
            continue
        raise DHRDError(
            f"Two different models would share the row {run.name!r}:\n{other.path}\n{run.path}\n"
            "Name them: NAME=PATH (paths of one NAME are folded as seeds), or leave one out."
        )


def check_same_documents(reference: TaskScore, score: TaskScore) -> None:
    """Gold answers are compared within a task; a CoT twin writes them in another form."""
    same_task = reference.task == score.task
    for expected, got in zip(reference.samples, score.samples, strict=False):
        same = (expected.doc_id, expected.doc_hash) == (got.doc_id, got.doc_hash)
        if not same or (same_task and expected.target != got.target):
            raise DHRDError(
                f"{score.samples_path}: document {got.doc_id} is not document {expected.doc_id} "
                f"of {reference.samples_path}.\nRuns are compared on the same documents only: "
                "evaluate both on the same data and task version."
            )
    if reference.n != score.n:
        raise DHRDError(
            f"{score.samples_path}: {score.n} documents, but {reference.samples_path} has "
            f"{reference.n}.\nRuns are compared on the same documents only: evaluate both with "
            "the same --limit."
        )


def recomputed(arms: Sequence[Arm], metrics: Sequence[str]) -> list[list[ClusterSums]] | None:
    """Per arm and run the mean of `metrics` as cluster sums; None if one cannot be recomputed.

    Raises:
        DHRDError: arms on different documents, which nothing may be computed from together.
    """
    scores = [score for arm in arms for score in arm.scores]
    for score in scores:
        check_same_documents(scores[0], score)
    clusters = [sample.cluster for sample in scores[0].samples]
    by_metric = []
    for metric in metrics:
        logged = [
            ([sample.values[metric] for sample in score.samples], score.metrics[metric])
            for score in scores
        ]
        found = recompute(logged, clusters)
        if found is None:
            return None
        by_metric.append(found)
    means = map(average_sums, zip(*by_metric, strict=True))
    return [list(islice(means, len(arm.scores))) for arm in arms]


def find_row(asked: str, arms: Arms) -> str:
    """A row by its name, or by a part of it that no other row (marked ones apart) has."""
    if asked in arms:
        return asked
    close = [
        name for name in arms if asked.casefold() in name.casefold() and not name.endswith(MARKS)
    ]
    if len(close) == 1:
        return close[0]
    problem = f"fits {len(close)} rows" if close else "is no row"
    raise DHRDError(f"--baseline {asked!r} {problem}. Rows: {', '.join(map(repr, arms))}.")
