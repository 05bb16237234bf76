"""Pass 1 of `dhrd-teach`: ask, check, store, try again. It can be stopped at any moment."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dhrd_plugin.decisions import Decision, TaskDecisions
from teachers.base import Reply, Request, Teacher, describe_teacher
from teachers.budget import Usage
from teachers.checks import Verdict, judge
from teachers.output.store import RecordStore
from teachers.prompts import Prompt
from teachers.records import make_record, make_rejected


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt.

    Attributes:
        reason: a key of `checks.REASONS`, or None when the rationale was kept.
        failure: why there was no reply, if so; not an attempt of the teacher's.
        final: whether the row will not be tried again in this run.
        usage: what the attempt cost.
    """

    decision: Decision
    reason: str | None
    failure: str | None
    final: bool
    usage: Usage


def made_from(
    split: TaskDecisions, teacher: Teacher, mode: str, prompts: Sequence[Prompt]
) -> dict[str, Any]:
    """What the rationales of a split depend on: the sidecar's entry for it."""
    rows = [[d.input_sha, sorted(d.gold)] for d in split.decisions]
    entry = {
        "task_version": split.version,
        "template_sha": split.template_sha,
        "data_sha": hashlib.sha256(repr(rows).encode()).hexdigest()[:16],
        "teacher": {"adapter": teacher.adapter, "model": teacher.model, "params": teacher.params},
    }
    if teacher.asks:
        entry |= {"mode": mode, "prompts": {prompt.origin: prompt.sha for prompt in prompts}}
    return entry


def teach(
    decisions: Sequence[Decision],
    teacher: Teacher,
    store: RecordStore,
    *,
    prompts: Sequence[Prompt],
    max_attempts: int,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Get rationales for the rows that have none yet; each is stored before it is yielded.

    A row gets at most `max_attempts` attempts with each prompt, in the prompts' order, those of
    earlier runs included. A request that failed (a server's error, not the teacher's) is not tried
    again in this run and counts as none.

    Args:
        stop: once it says so, nothing more is asked; what is being worked on is still stored.
    """

    def next_request(decision: Decision) -> Request | None:
        if not teacher.asks:  # what it has for a row will not change
            return Request(decision, 1, prompts[0])
        used = [store.attempts(decision.id, prompt.origin) for prompt in prompts]
        for prompt, attempts in zip(prompts, used, strict=True):
            if attempts < max_attempts:
                return Request(decision, sum(used) + 1, prompt)
        return None

    todo = (next_request(decision) for decision in decisions if decision.id not in store.kept)
    queue = deque(request for request in todo if request is not None)

    def requests() -> Iterator[Request]:
        while queue and not stop():
            store.sync()
            yield queue.popleft()

    while queue and not stop():
        # Retries join the queue that the teacher is working off.
        for request, reply in teacher.explain(requests()):
            decision = request.decision
            verdict = _verdict(request, reply)
            record = make_record(
                decision,
                rationale=reply.rationale,
                # Counted by it, so that attempts come to an end whatever a reply says.
                origin=request.prompt.origin if teacher.asks else reply.origin,
                attempts=request.attempt,
                checks=verdict.checks,
                teacher=describe_teacher(teacher, request.prompt.sha),
                usage=reply.usage,
                label_probs=reply.label_probs,
            )
            retry = None
            if verdict.reason is None:
                store.keep(record)
            # An imported rationale that was rejected before is not logged over and over.
            elif teacher.asks or not store.was_rejected(decision.id, reply.rationale):
                store.reject(
                    make_rejected(
                        record, reason=verdict.reason, detail=verdict.detail, text=reply.text
                    )
                )
                if teacher.asks and verdict.reason != "failed":
                    retry = next_request(decision)
            if retry is not None:
                queue.append(retry)
            yield Outcome(
                decision, verdict.reason, reply.failure, final=retry is None, usage=reply.usage
            )
    store.merge()


def _verdict(request: Request, reply: Reply) -> Verdict:
    if reply.failure is not None:
        return Verdict("failed", reply.failure, checks={})
    return judge(request.decision, reply.rationale, answer=reply.answer, problem=reply.problem)
