"""The documents as every side is asked them: rendered once, by the harness, for all sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from dhrd_plugin.batching import REASON
from dhrd_plugin.checkpoint import TaskHead
from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.evaluated import COT_MARKS
from dhrd_plugin.harness import load_task, render_requests, task_folders
from dhrd_plugin.parity import ParityCheck

COT_SUFFIX = next(iter(COT_MARKS))  # greedy decoding


@dataclass(frozen=True)
class Query:
    """One document.

    Attributes:
        decision: what a classification head reads.
        requests: the harness's own, a log-likelihood per choice (auxiliary ones are left out).
        reasoning: the harness's own, to write a chain of thought; None where that is not measured.
    """

    decision: Decision
    requests: tuple[Instance, ...]
    reasoning: Instance | None


def load_queries(
    task: str, head: TaskHead, *, limit: int | None, include_path: str | None
) -> list[Query]:
    """The documents of `task` that the harness scores, in its order, without reasoning.

    Raises:
        DHRDError: a task that cannot be loaded, has nothing to score, or is another one than `head`
            was trained on.
    """
    loaded = load_task(task, include_path)
    scored = loaded.has_validation_docs() or loaded.has_test_docs()
    docs = list(loaded.eval_docs)[:limit] if scored else []
    if not docs:
        raise DHRDError(f"Task {task} has no documents to answer: it needs a validation split.")
    requests = [tuple(render_requests(loaded, doc, i)) for i, doc in enumerate(docs)]
    checked = ParityCheck({task: head}, include_path)
    decisions = checked.decisions(r for per_document in requests for r in per_document)
    return [
        Query(decision, own[: len(decision.choices)], None)
        for decision, own in zip(decisions.values(), requests, strict=True)
    ]


class Reasoning(NamedTuple):
    """The queries with a request for a chain of thought each.

    Attributes:
        prompt: what these requests are, in words.
        gen_kwargs: what `lm_eval --gen_kwargs` would have to be given for the same ones.
    """

    queries: list[Query]
    prompt: str
    gen_kwargs: dict[str, Any]


def add_reasoning(
    queries: Sequence[Query], *, max_new_tokens: int, include_path: str | None
) -> Reasoning:
    """Requests of the task's twin `<task>_cot` where there is one, else the student's own training
    form: the input and the opening of a rationale.

    Raises:
        DHRDError: a twin with other documents, or a task of candidates without a twin.
    """
    task = queries[0].decision.task
    twin = task + COT_SUFFIX
    if _is_shipped_or_own(twin, include_path):
        prompt = f"task {twin}"
        asked = _twin_requests(twin, queries, include_path)
    elif queries[0].decision.formulation == "labels":
        prompt = "the student's training form"
        asked = [_training_form(query) for query in queries]
    else:
        raise DHRDError(
            f"Task {task} asks about candidates, and there is no task {twin} that lists them for a "
            "chain of thought. Write one (tasks/super_glue_cot shows how) and name its folder with "
            "--include-path, or leave out the side cot: --sides pooled plain loglikelihood."
        )
    changed = asked[0].args[1].get("max_gen_toks") != max_new_tokens
    for instance in asked:
        instance.args[1]["max_gen_toks"] = max_new_tokens
    return Reasoning(
        queries=[replace(q, reasoning=r) for q, r in zip(queries, asked, strict=True)],
        prompt=prompt,
        gen_kwargs={"max_gen_toks": max_new_tokens} if changed else {},
    )


def _is_shipped_or_own(task: str, include_path: str | None) -> bool:
    folders = [*map(str, task_folders()), *([include_path] if include_path else [])]
    return task in TaskManager(include_path=folders, include_defaults=False).task_index


def _twin_requests(twin: str, queries: Sequence[Query], include_path: str | None) -> list[Instance]:
    loaded = load_task(twin, include_path)
    docs = list(loaded.eval_docs)[: len(queries)]
    if docs != [query.requests[0].doc for query in queries]:
        raise DHRDError(
            f"The documents of {twin} are not those of {queries[0].decision.task}: the sides would "
            "answer different questions. Give both tasks the same data, split and process_docs."
        )
    return [render_requests(loaded, doc, i) for i, doc in enumerate(docs)]


def _training_form(query: Query) -> Instance:
    """A student stops by itself; a base model goes on with a next example, behind its answer."""
    first = query.requests[0]
    settings: dict[str, Any] = {"do_sample": False, "until": [REASON]}
    return Instance(
        request_type="generate_until",
        doc=first.doc,
        arguments=(query.decision.inputs[0] + REASON, settings),
        idx=0,
        metadata=(first.task_name, first.doc_id, 1),
    )
