"""The loop of `dhrd-teach`: ask, check, store, try again. It can be stopped at any moment."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dhrd_plugin.decisions import Decision, TaskDecisions
from teachers.base import Request, Teacher, describe_teacher
from teachers.checks import Verdict, judge
from teachers.prompts import Prompt
from teachers.records import REJECTED_SCHEMA, make_record
from teachers.store import RecordStore


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt.

    Attributes:
        reason: a key of `checks.REASONS`, or None when the rationale was kept.
        final: whether the row will not be tried again in this run.
    """

    decision: Decision
    reason: str | None
    final: bool


def made_from(split: TaskDecisions, teacher: Teacher, prompt: Prompt) -> dict[str, Any]:
    """What the rationales of a split depend on: the sidecar's entry for it."""
    rows = [[d.input_sha, sorted(d.gold)] for d in split.decisions]
    return {
        "task_version": split.version,
        "template_sha": split.template_sha,
        "data_sha": hashlib.sha256(repr(rows).encode()).hexdigest()[:16],
        "teacher": describe_teacher(teacher, prompt),
    }


def teach(
    decisions: Sequence[Decision],
    teacher: Teacher,
    store: RecordStore,
    *,
    prompt: Prompt,
    max_attempts: int,
) -> Iterator[Outcome]:
    """Get rationales for the rows that have none yet; everything is on disk before it is yielded.

    A row gets at most `max_attempts` attempts, those of earlier runs included. A request that
    failed (a server's error, not the teacher's) is not tried again in this run and counts as none.
    """
    if not teacher.asks:
        max_attempts = 1
    queue: deque[Request] = deque()
    for decision in decisions:
        used = len(store.rejected[decision.id]) if teacher.asks else 0
        if decision.id not in store.kept and used < max_attempts:
            queue.append(Request(decision, used + 1, prompt))
    description = describe_teacher(teacher, prompt)
    while queue:
        # Retries join the queue that the teacher is working off.
        for request, reply in teacher.explain(_drain(queue)):
            decision = request.decision
            if reply.failure is not None:
                verdict = Verdict("failed", reply.failure, checks={})
            else:
                verdict = judge(
                    decision, reply.rationale, answer=reply.answer, problem=reply.problem
                )
            record = make_record(
                decision,
                rationale=reply.rationale,
                origin=reply.origin,
                attempts=request.attempt,
                checks=verdict.checks,
                teacher=description,
                usage=reply.usage,
                label_probs=reply.label_probs,
            )
            if verdict.reason is None:
                store.keep(record)
                yield Outcome(decision, None, final=True)
                continue
            # An imported rationale that was rejected before is not logged over and over.
            if teacher.asks or reply.rationale not in store.rejected[decision.id]:
                why = {"reason": verdict.reason, "detail": verdict.detail, "text": reply.text}
                store.reject({**record, "schema": REJECTED_SCHEMA, **why})
            again = verdict.reason != "failed" and request.attempt < max_attempts
            if again:
                queue.append(replace(request, attempt=request.attempt + 1))
            yield Outcome(decision, verdict.reason, final=not again)


def _drain(queue: deque[Request]) -> Iterator[Request]:
    while queue:
        yield queue.popleft()
