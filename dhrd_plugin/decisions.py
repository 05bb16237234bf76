"""Decisions: the one place where a harness document becomes text, classes and a gold answer.

A decision is built from the harness's own request instances, so that the teacher explains, the
student trains on, and the adapter answers exactly what the harness asks. Nothing is rendered twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import render_requests, split_docs

Formulation = Literal["labels", "candidates"]
# Of the harness's metrics, those that divide a choice's log-likelihood by its length or subtract
# that of an empty context: a classifier's probabilities have neither.
UNDEFINED_FOR_CLASSIFIERS = ("acc_norm", "acc_bytes", "acc_mutual_info")
Pair = tuple[str, str]  # (context, continuation), as in a harness loglikelihood request


@dataclass(frozen=True)
class Decision:
    """One classification question exactly as the harness asks it.

    Attributes:
        task, split, index: where it comes from; `index` counts after the task's `process_docs`.
        inputs: what the classification head reads. One text for the labels formulation (K logits),
            one per candidate (context + continuation, one logit each) for candidates.
        choices: what is chosen between, for people: label words or candidate texts, stripped.
        gold: indices of the choices that the harness rewards; empty when it was not asked for.
        context: the part of the question that all choices share.
        formulation: "labels" or "candidates", the same for the whole task.
    """

    task: str
    split: str
    index: int
    inputs: tuple[str, ...]
    choices: tuple[str, ...]
    gold: frozenset[int]
    context: str
    formulation: Formulation

    @property
    def id(self) -> str:
        """`task/split/index`, unique within a data set."""
        return f"{self.task}/{self.split}/{self.index}"

    @property
    def input_sha(self) -> str:
        """Hash of everything rendered: tells whether a rationale still belongs to this row."""
        rendered = json.dumps([self.inputs, self.choices], ensure_ascii=False)
        return hashlib.sha256(rendered.encode()).hexdigest()[:16]

    @property
    def label(self) -> int:
        """The first gold choice: the one a rationale argues for."""
        return min(self.gold)

    @property
    def label_text(self) -> str:
        return self.choices[self.label]


@dataclass(frozen=True)
class TaskDecisions:
    """All decisions of one split and what they have in common.

    Attributes:
        choices: the label words for the labels formulation, None for candidates.
        template_sha: hash of the task's prompt template, stored with a student.
    """

    task: str
    split: str
    formulation: Formulation
    choices: tuple[str, ...] | None
    version: str
    template_sha: str
    decisions: list[Decision]


def load_decisions(task: Any, split: str, limit: int | None = None) -> TaskDecisions:
    """Render `split` of a `multiple_choice` harness task.

    The formulation is inferred from the whole split, also under `limit` (on one row, COPA would
    look like a labels task).

    Raises:
        DHRDError: not a multiple-choice task, a task that demands few-shot examples, no such split,
            or a row without a gold answer (named).
    """
    config = task.config
    name = config.task
    if config.output_type != "multiple_choice":
        raise DHRDError(
            f"Task {name!r} is a {config.output_type} task. A classification head needs a "
            "`multiple_choice` task, whose choices are known beforehand."
        )
    if config.num_fewshot:
        raise DHRDError(
            f"Task {name!r} demands {config.num_fewshot} few-shot examples. A student is trained "
            "and scored zero-shot; use a copy of its YAML with `num_fewshot: 0`."
        )
    docs = list(split_docs(task, split))
    if not docs:
        raise DHRDError(f"Task {name!r}: its {split} split is empty.")
    questions = [request_pairs(render_requests(task, doc, i)) for i, doc in enumerate(docs)]
    formulation, choices = infer_formulation(questions)
    decisions = []
    for index, (doc, pairs) in enumerate(zip(docs, questions, strict=True)):
        if limit is not None and index >= limit:
            break
        gold = gold_choices(task, doc, len(pairs), row=f"{name}/{split}/{index}")
        decisions.append(
            build_decision(pairs, formulation, task=name, split=split, index=index, gold=gold)
        )
    return TaskDecisions(
        task=name,
        split=split,
        formulation=formulation,
        choices=choices,
        version=task_version(task),
        template_sha=template_sha(task),
        decisions=decisions,
    )


def request_pairs(instances: Iterable[Any]) -> list[Pair]:
    """(context, continuation) of a document's instances in choice order.

    Auxiliary requests (`acc_mutual_info`: the same continuations behind an empty context) are no
    choices and stay out. Where every context is empty, whole sentences are the choices (BLiMP).
    """
    ordered = sorted(instances, key=lambda instance: instance.idx)
    pairs = [(i.args[0], i.args[1]) for i in ordered]
    return [pair for pair in pairs if pair[0] != ""] or pairs


def infer_formulation(
    questions: Sequence[Sequence[Pair]],
) -> tuple[Formulation, tuple[str, ...] | None]:
    """Labels when every document offers the same choices, candidates otherwise.

    The common prefix of a document's continuations counts as input (MultiRC repeats the answer to
    be judged before its "yes" and "no").
    """
    offered = {_labels_view(pairs)[1] if _one_context(pairs) else None for pairs in questions}
    if len(offered) == 1 and None not in offered:
        return "labels", tuple(choice.strip() for choice in offered.pop() or ())
    return "candidates", None


def build_decision(
    pairs: Sequence[Pair],
    formulation: Formulation,
    *,
    task: str,
    split: str,
    index: int,
    gold: frozenset[int] = frozenset(),
) -> Decision:
    """A decision from a document's (context, continuation) pairs."""
    if formulation == "labels":
        text, continuations = _labels_view(pairs)
        inputs: tuple[str, ...] = (text,)
        context, choices = text, continuations
    else:
        inputs = tuple(context + continuation for context, continuation in pairs)
        if _one_context(pairs):
            context, choices = pairs[0][0], tuple(continuation for _, continuation in pairs)
        else:  # the choices are in the contexts (winogrande): each input is a candidate
            context, choices = "", inputs
    return Decision(
        task=task,
        split=split,
        index=index,
        inputs=inputs,
        choices=tuple(choice.strip() for choice in choices),
        gold=gold,
        context=context,
        formulation=formulation,
    )


def _one_context(pairs: Sequence[Pair]) -> bool:
    return len({context for context, _ in pairs}) == 1


def _labels_view(pairs: Sequence[Pair]) -> tuple[str, tuple[str, ...]]:
    """Move what all continuations begin with, up to its last whitespace, into the input."""
    continuations = [continuation for _, continuation in pairs]
    shared = os.path.commonprefix(continuations)  # noqa: RUF071 (characters are meant)
    cut = max((i for i, char in enumerate(shared) if char.isspace()), default=0)
    return pairs[0][0] + shared[:cut], tuple(text[cut:] for text in continuations)


def gold_choices(task: Any, doc: dict, n_choices: int, row: str) -> frozenset[int]:
    """The choices that the harness rewards for `doc`.

    Read from `doc_to_target` (`doc_to_text` for multiple inputs) as `process_results` reads it; a
    task with its own `process_results` (ReCoRD) is asked once per choice, as if it had won, unless
    its primary metric is no number per document (of several documents put together, say).

    Raises:
        DHRDError: no choice is rewarded; the row is named.
    """
    if callable(task.config.process_results):
        rewards = _rewards(task, doc, n_choices)
        if all(isinstance(reward, Real) for reward in rewards):
            return _best_choices(task, rewards, row)
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    offered = task.doc_to_choice(doc)
    found = set()
    for item in target if isinstance(target, list) else [target]:
        index = offered.index(item) if isinstance(item, str) and item in offered else item
        if isinstance(index, int) and 0 <= index < n_choices:
            found.add(index)
    if not found:
        raise DHRDError(
            f"{row}: no gold answer: the target is {target!r}, and the choices are {offered!r}. "
            "A labelled split is needed (an index into the choices, or one of their texts)."
        )
    return frozenset(found)


def _rewards(task: Any, doc: dict, n_choices: int) -> list[Any]:
    """The document's primary metric for each choice, as if that had won."""
    rewards = []
    for winner in range(n_choices):
        results = [(0.0, True) if i == winner else (-1e4, False) for i in range(n_choices)]
        rewards.append(task.process_results(doc, results)[primary_metric(task)])
    return rewards


def _best_choices(task: Any, rewards: Sequence[float], row: str) -> frozenset[int]:
    metric = primary_metric(task)
    best = max(rewards) if task.higher_is_better().get(metric, True) else min(rewards)
    if min(rewards) == max(rewards):
        raise DHRDError(
            f"{row}: no gold answer: every one of its {len(rewards)} choices gets {metric} "
            f"{best:g}. A labelled split is needed, with choices of which some are right."
        )
    return frozenset(i for i, reward in enumerate(rewards) if reward == best)


def primary_metric(task: Any) -> str:
    """The first metric that the task lists: what dev rows and reports are led by."""
    return next(iter(task.aggregation()))


def task_version(task: Any) -> str:
    return str((task.config.metadata or {}).get("version", task.VERSION))


def template_sha(task: Any) -> str:
    """Hash of what makes up the prompt: templates as text, functions by name.

    A function's source does not count: a drop-in (`record`) is written differently and renders the
    same. That a function was changed is what the task's version is for.
    """
    fields = (
        "doc_to_text",
        "doc_to_target",
        "doc_to_choice",
        "process_docs",
        "description",
        "gen_prefix",
        "target_delimiter",
    )
    parts = [_as_text(getattr(task.config, field, None)) for field in fields]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _as_text(value: str | Callable | list | dict | None) -> str:
    return value.__name__ if callable(value) else repr(value)
