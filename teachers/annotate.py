"""Pass 2 of `dhrd-teach`: a judge predicts the label of every kept row, for soft labels and to
verify its rationale. It can be stopped at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from teachers.base import Prediction, Question, Teacher, describe_teacher
from teachers.budget import Usage
from teachers.output.store import RecordStore
from teachers.prompts import JudgePrompt, View
from teachers.records import make_unanswered

HOPELESS = 16  # questions without an answer, and none with one, after which no more is asked


@dataclass(frozen=True)
class Annotated:
    """What became of one question.

    Attributes:
        failure: why it has no answer, if so; the next run asks it again.
        usage: what it cost.
    """

    decision_id: str
    view: View
    failure: str | None
    usage: Usage

    @property
    def reason(self) -> str | None:
        """A key of `checks.REASONS`, or None when it was answered."""
        return None if self.failure is None else "failed"

    @property
    def final(self) -> bool:
        """Always: no question is asked twice in a run."""
        return True


def views_for(*, soft_labels: bool, verify: bool) -> tuple[View, ...]:
    """What a judge is shown of a row for the wanted annotations, one question each."""
    if verify:
        return get_args(View)
    return ("input",) if soft_labels else ()


def open_views(record: Mapping[str, Any], *, soft_labels: bool, verify: bool) -> list[View]:
    """Which of those views of a record are still to be asked."""
    answered = (record.get("judge") or {}).get("views", {})
    wanted = views_for(soft_labels=soft_labels and not record.get("label_probs"), verify=verify)
    return [view for view in wanted if answered.get(view) is None]


def count_questions(
    decisions: Sequence[Decision], store: RecordStore, *, soft_labels: bool, verify: bool
) -> int:
    """How many questions `annotate` would ask."""
    ids = {decision.id for decision in decisions}
    return sum(
        len(open_views(record, soft_labels=soft_labels, verify=verify))
        for record in store.records()
        if record.get("id") in ids
    )


def claim_judge(
    store: RecordStore, judge: Teacher, *, prompts_sha: str, votes: int
) -> dict[str, Any]:
    """Note in the sidecar whose answers the file has; what records call the judge.

    Raises:
        DHRDError: the file has answers of another judge.
    """
    description = describe_teacher(judge, prompts_sha)
    store.claim("judge", {**description, "votes": votes})
    return description


def annotate(
    decisions: Sequence[Decision],
    judge: Teacher,
    store: RecordStore,
    *,
    prompts: Mapping[View, JudgePrompt],
    prompts_sha: str,
    soft_labels: bool,
    verify: bool,
    votes: int,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Annotated]:
    """Ask what is not known yet about the kept rows; each answer is stored before it is yielded.

    The records themselves have the answers once the iterator has ended: `label_probs` (soft
    labels), `checks.sufficiency` and `checks.leakage` (verification), and `judge`.

    Args:
        prompts: the judge's wording; `prompts_sha` is its hash.
        votes: samples per question where the judge gives no probabilities.
        stop: once it says so, nothing more is asked; what is being worked on is still stored.

    Raises:
        DHRDError: the file has answers of another judge, the judge answers none of the first
            questions, or what the judge raises.
    """
    description = claim_judge(store, judge, prompts_sha=prompts_sha, votes=votes)
    rows = {decision.id: decision for decision in decisions}
    answered = failed = 0

    def is_hopeless() -> bool:
        return failed >= HOPELESS and not answered

    def questions() -> Iterator[Question]:
        for record in store.records():
            decision = rows.get(record.get("id", ""))
            if decision is None:
                continue
            for view in open_views(record, soft_labels=soft_labels, verify=verify):
                if stop() or is_hopeless():
                    return
                store.sync()
                shown = "" if view == "input" else record["rationale"]
                yield Question(decision, prompts[view], shown, votes)

    for question, prediction in judge.predict(questions()):
        decision, view = question.decision, question.prompt.view
        if prediction.probs is None:
            failed += 1
            store.reject(
                make_unanswered(
                    decision,
                    view=view,
                    detail=prediction.failure or "",
                    judge=description,
                    usage=prediction.usage,
                )
            )
        else:
            answered += 1
            store.answer(_answer(question, prediction, description, soft_label=soft_labels))
        yield Annotated(decision.id, view, prediction.failure, prediction.usage)
    store.merge(soft_labels=soft_labels)
    if is_hopeless():
        raise DHRDError(
            f"The judge answered none of its first {failed} questions; the last: "
            f"{prediction.failure}\nName another --judge, or change what it is asked (--prompts).",
            exit_code=EXIT_FAILED,
        )


def _answer(
    question: Question, prediction: Prediction, judge: Mapping[str, Any], *, soft_label: bool
) -> dict[str, Any]:
    """An answer as `merging.merge_answers` takes it."""
    probs = [float(p) for p in prediction.probs or ()]
    return {
        "id": question.decision.id,
        "view": question.prompt.view,
        "probs": probs,
        "method": prediction.method,
        "gold_prob": sum(probs[choice] for choice in question.decision.gold),
        "soft_label": soft_label,
        "judge": dict(judge),
        "usage": asdict(prediction.usage),
    }
