"""A student is only asked what it was trained on: the harness's requests against its training."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance

from dhrd_plugin.checkpoint import TaskHead
from dhrd_plugin.decisions import (
    UNDEFINED_FOR_CLASSIFIERS,
    Decision,
    Pair,
    build_decision,
    request_pairs,
    task_version,
    template_sha,
)
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task, render_requests

logger = logging.getLogger(__name__)


class ParityCheck:
    """Turns requests into decisions, and refuses those of another shape than trained on.

    Args:
        heads: what was trained, by task.
        include_path: folder of the user's own task YAML files.
    """

    def __init__(self, heads: Mapping[str, TaskHead], include_path: str | None) -> None:
        self._heads = heads
        self._include_path = include_path
        self._tasks: dict[str, Any] = {}  # harness tasks by name; None for one that is not found

    def decisions(self, requests: Iterable[Instance]) -> dict[tuple[str, int], Decision]:
        """By task and document number, the questions that the requests ask.

        Raises:
            DHRDError: questions of another shape than trained on, or a document some of whose
                choices are missing.
        """
        documents: dict[tuple[str, int], dict[int, Instance]] = defaultdict(dict)
        for request in requests:  # ranks are padded by repeating a request: drop duplicates
            documents[request.task_name, request.doc_id].setdefault(request.idx, request)
        known = set(self._tasks)
        decisions = {
            (task, doc_id): self._decision(task, doc_id, [by_idx[idx] for idx in sorted(by_idx)])
            for (task, doc_id), by_idx in documents.items()
        }
        _warn_of_undefined_metrics({t: self._tasks[t] for t in self._tasks if t not in known})
        return decisions

    def _decision(self, task: str, doc_id: int, instances: Sequence[Instance]) -> Decision:
        pairs = request_pairs(instances)
        head = self._heads[task]
        if task not in self._tasks:
            self._tasks[task] = self._checked_task(task, instances[0], pairs)
        loaded = self._tasks[task]
        offered = len(loaded.doc_to_choice(instances[0].doc)) if loaded else len(pairs)
        # The choices come first, so that theirs are the lowest numbers.
        if [i.idx for i in instances[: len(pairs)]] != list(range(offered)):
            raise DHRDError(f"Task {task}, document {doc_id}: some of its choices are missing.")
        decision = build_decision(pairs, head.formulation, task=task, split="test", index=doc_id)
        if head.choices is not None and decision.choices != head.choices:
            raise DHRDError(
                f"Task {task}, document {doc_id}: its choices are {list(decision.choices)}, the "
                f"student was trained on {list(head.choices)}. Use the task it was trained on."
            )
        return decision

    def _checked_task(self, task: str, instance: Instance, pairs: list[Pair]) -> Any:
        """The harness task, if it asks what the student was trained on; None if it is not found.

        Refuses few-shot examples, chat templates and other prompts: the first document is rendered
        once more, zero-shot, and compared with what was asked.
        """
        try:
            loaded = load_task(task, self._include_path)
        except DHRDError as error:
            logger.warning(
                "Task %s cannot be loaded by name (%s): only its choices are compared with the "
                "training's, not its prompt. For a task of your own, add include_path=FOLDER to "
                "--model_args.",
                task,
                str(error).splitlines()[0],
            )
            return None
        head = self._heads[task]
        if template_sha(loaded) != head.template_sha or task_version(loaded) != head.version:
            raise DHRDError(
                f"Task {task}: its prompt is another one (version {task_version(loaded)}) than the "
                f"student was trained on (version {head.version}). Train the student anew, or "
                "install the version of the task that it was trained on. For a task of your own, "
                "add include_path=FOLDER to --model_args."
            )
        zero_shot = request_pairs(render_requests(loaded, instance.doc, instance.doc_id))
        if zero_shot != pairs:
            raise DHRDError(
                f"Task {task}: the context is not the zero-shot one the student was trained on: got"
                f"\n  {_end(pairs[0])}\nneeded\n  {_end(zero_shot[0])}\nLeave out --num_fewshot, "
                "--apply_chat_template and --system_instruction."
            )
        return loaded


def _warn_of_undefined_metrics(tasks: Mapping[str, Any]) -> None:
    """Once for all tasks that list such a metric."""
    listed = {
        name: [m for m in task.aggregation() if m in UNDEFINED_FOR_CLASSIFIERS]
        for name, task in tasks.items()
        if task is not None
    }
    concerned = [f"{name} ({', '.join(metrics)})" for name, metrics in listed.items() if metrics]
    if concerned:
        logger.warning(
            "Metrics that mean nothing for a classifier: %s. acc_norm and acc_bytes divide by a "
            "choice's length, acc_mutual_info subtracts its likelihood without the question; a "
            "classifier's probabilities have neither. Read acc.",
            "; ".join(concerned),
        )


def _end(pair: Pair, characters: int = 120) -> str:
    text = pair[0] + pair[1]
    return repr(text if len(text) <= characters else "…" + text[-characters:])
