"""Two models on the tasks that both have answered: every document, and what it comes to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.metrics import mean_sums
from dhrd_plugin.report.answers import Answer, load_answers
from dhrd_plugin.report.arms import check_same_documents
from dhrd_plugin.report.diff.documents import (
    BOTH_RIGHT,
    BOTH_WRONG,
    BROKEN,
    FIXED,
    KINDS,
    Document,
    Reply,
    pair_up,
)
from dhrd_plugin.report.results import Run, TaskScore, drop_superseded, load_runs
from dhrd_plugin.significance import holm, mcnemar, t_test
from dhrd_plugin.stats import document_error

MAX_CLASSES = 10  # right answers of more kinds than this are no classes to count by
NO_CHOICE = "none of them"  # said of a decoded answer


@dataclass(frozen=True)
class Model:
    """One side: a model's scores, each with the results file that it is from."""

    name: str
    scores: tuple[tuple[TaskScore, Path], ...]


@dataclass(frozen=True)
class Tally:
    """Numbers of documents."""

    both_right: int
    fixed: int
    broken: int
    both_wrong: int

    @property
    def n(self) -> int:
        return self.both_right + self.fixed + self.broken + self.both_wrong

    @property
    def a_right(self) -> int:
        return self.both_right + self.broken

    @property
    def b_right(self) -> int:
        return self.both_right + self.fixed


@dataclass(frozen=True)
class GoldClass:
    """Documents with the same right answer.

    Attributes:
        a_said, b_said: how often each answer was given.
    """

    label: str
    tally: Tally
    a_said: dict[str, int]
    b_said: dict[str, int]


@dataclass(frozen=True)
class TaskComparison:
    """One task, answered by both models.

    Attributes:
        name: the question's task and how it was answered, unless by one forward.
        column: the question's task.
        split: whose documents were scored.
        softmaxed: the sides ("A", "B") whose probabilities of the choices are no distribution by
            themselves, as a language model's, and were made one.
        p_value: of fixed against broken: McNemar's exact test, or a t-test over questions where
            several documents belong to one (`clustered`); None without any variance.
        p_adjusted: the same after Holm's correction over all tasks compared.
        documents: all of them.
    """

    name: str
    column: str
    split: str
    softmaxed: tuple[str, ...]
    clustered: bool
    p_value: float | None
    p_adjusted: float | None
    documents: tuple[Document, ...]

    @property
    def slug(self) -> str:
        """The name as part of an address."""
        return re.sub(r"\W+", "-", self.name).strip("-")

    @property
    def tally(self) -> Tally:
        return _tally(self.documents)

    @property
    def disagreements(self) -> list[Document]:
        """By kind, and within a kind the surer the wrong model was, the earlier."""
        order = list(KINDS)
        return sorted(
            (document for document in self.documents if document.differs),
            key=lambda d: (order.index(d.kind), -d.confidence, d.doc_id),
        )

    @property
    def classes(self) -> list[GoldClass]:
        """The documents by right answer, in the order of the choices; [] where choices differ from
        document to document, or freely written answers are of too many kinds."""
        if len({document.choices for document in self.documents}) > 1:
            return []
        groups: dict[str, list[Document]] = {}
        for document in sorted(self.documents, key=lambda d: min(d.gold, default=0)):
            groups.setdefault(document.gold_text, []).append(document)
        if len(groups) > MAX_CLASSES:
            return []
        return [_gold_class(label, documents) for label, documents in groups.items()]


def _gold_class(label: str, documents: Sequence[Document]) -> GoldClass:
    return GoldClass(
        label=label,
        tally=_tally(documents),
        a_said=_count(documents[0].choices, (_said(d, d.a) for d in documents)),
        b_said=_count(documents[0].choices, (_said(d, d.b) for d in documents)),
    )


def _tally(documents: Sequence[Document]) -> Tally:
    kinds = Counter(document.kind for document in documents)
    return Tally(kinds[BOTH_RIGHT], kinds[FIXED], kinds[BROKEN], kinds[BOTH_WRONG])


def _count(choices: Sequence[str], said: Iterable[str]) -> dict[str, int]:
    """In the order of the choices; of other answers, the most frequent first."""
    counts = Counter(said)
    order = [*choices, *(text for text, _ in counts.most_common())]
    return {text: counts[text] for text in order if counts[text]}


def _said(document: Document, reply: Reply) -> str:
    if reply.said is not None:
        return document.choices[reply.said]
    return NO_CHOICE if document.choices else (reply.written or "")


def load_model(argument: str) -> Model:
    """The one model whose results are in a file or folder, given as `PATH` or `NAME=PATH`.

    Raises:
        DHRDError: results of several models, or of one task asked in several ways (named).
    """
    runs = drop_superseded(load_runs([argument]))
    scores = {(score.task, score.mark): (score, run.path) for run in runs for score in run.scores}
    if len({run.identity for run in runs}) > 1 or len(scores) < sum(len(r.scores) for r in runs):
        listed = "\n".join(f"  {run.path}  ({_describe(run)})" for run in runs)
        raise DHRDError(
            f"{argument} holds {len(runs)} results, and a model is compared with one other:\n"
            f"{listed}\nGive one of these files."
        )
    marks = {mark for _, mark in scores}
    name = runs[0].name + (marks.pop() if len(marks) == 1 else "")
    return Model(name, tuple(scores.values()))


def _describe(run: Run) -> str:
    tasks = ", ".join(score.task for score in run.scores)
    shots = max(score.num_fewshot for score in run.scores)
    return f"{run.name}, seed {run.seed}, {tasks}" + (f", {shots} shots" if shots else "")


def compare(a: Model, b: Model, tasks: Sequence[str] = ()) -> list[TaskComparison]:
    """Every task that both have answered, or those of `tasks` (a decoded `X_cot` is X, too).

    What was answered in one way by both is compared; where no way is common, every way of A's with
    every one of B's: a pooled head with decoding, say.

    Raises:
        DHRDError: no common task, one of `tasks` that is not common, or different documents or
            choices.
    """
    columns = {score.column: None for score, _ in a.scores}
    pairs = [pair for column in columns for pair in _pairs(a, b, column)]
    names = {task for (one, _), (other, _) in pairs for task in (one.column, one.task, other.task)}
    unknown = [task for task in tasks if task not in names]
    if unknown or not pairs:
        have = [", ".join(score.task for score, _ in model.scores) for model in (a, b)]
        raise DHRDError(
            f"{f'--task: {unknown[0]} is not' if unknown else 'No task is'} in both results.\n"
            f"A ({a.name}) has: {have[0]}\nB ({b.name}) has: {have[1]}"
        )
    compared = [
        _compare_task(one, other, path)
        for (one, path), (other, _) in pairs
        if not tasks or {one.column, one.task, other.task} & set(tasks)
    ]
    adjusted = iter(holm([task.p_value for task in compared if task.p_value is not None]))
    return [
        task if task.p_value is None else replace(task, p_adjusted=next(adjusted))
        for task in compared
    ]


def _pairs(
    a: Model, b: Model, column: str
) -> list[tuple[tuple[TaskScore, Path], tuple[TaskScore, Path]]]:
    ours, theirs = ([p for p in model.scores if p[0].column == column] for model in (a, b))
    every = [(one, other) for one in ours for other in theirs]
    return [pair for pair in every if pair[0][0].mark == pair[1][0].mark] or every


def _compare_task(a: TaskScore, b: TaskScore, results_file: Path) -> TaskComparison:
    check_same_documents(a, b)
    answers = [load_answers(score) for score in (a, b)]
    _check_same_choices(b.samples_path, *answers)
    documents = tuple(pair_up(one, other) for one, other in zip(*answers, strict=True))
    clusters = [sample.cluster for sample in a.samples]
    right = [mean_sums([answer.right for answer in given], clusters) for given in answers]
    clustered = len(set(clusters)) < a.n
    if clustered:
        difference = sum(d.b.right - d.a.right for d in documents) / a.n
        p_value = t_test(difference, [document_error(right[1:], right[:1])])
    else:
        p_value = mcnemar(right[1], right[0])
    return TaskComparison(
        name=_name(a, b),
        column=a.column,
        split=_evaluated_split(results_file, a.task),
        softmaxed=tuple(
            side
            for side, given in zip("AB", answers, strict=True)
            if any(answer.probs and not answer.normalised for answer in given)
        ),
        clustered=clustered,
        p_value=p_value,
        p_adjusted=None,
        documents=documents,
    )


def _check_same_choices(b_path: Path, a: Sequence[Answer], b: Sequence[Answer]) -> None:
    for one, other in zip(a, b, strict=True):
        if one.choices and other.choices and one.choices != other.choices:
            raise DHRDError(
                f"{b_path}: document {other.doc_id} offers {list(other.choices)}, but A's "
                f"{list(one.choices)}.\nModels are compared on the same choices only: evaluate "
                "both on the same version of the task."
            )


def _evaluated_split(results_file: Path, task: str) -> str:
    """The test split where the task names one, as the harness chooses."""
    config = json.loads(results_file.read_text(encoding="utf-8"))["configs"][task]
    return "test" if config.get("test_split") else "validation"


def _name(a: TaskScore, b: TaskScore) -> str:
    """`cb`, `cb (CoT)`, or `cb vs cb (CoT)`."""
    return " vs ".join(dict.fromkeys(score.column + score.mark for score in (a, b)))
