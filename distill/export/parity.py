"""Is the exported model the student? Both answer the first rows of the student's own task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from scipy.special import log_softmax

from dhrd_plugin.checkpoint import TaskHead
from dhrd_plugin.decisions import (
    Decision,
    build_decision,
    request_pairs,
    task_version,
    template_sha,
)
from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from dhrd_plugin.harness import load_task, render_requests, split_docs

N_ROWS = 64


@dataclass(frozen=True)
class Comparison:
    """The largest difference in the probability of a choice.

    Attributes:
        rows: how many rows were compared.
        row: id of the row with the largest difference.
        too_long: rows left out, whose inputs the exported model cannot cut as the student does.
    """

    difference: float
    rows: int
    row: str
    too_long: int = 0


def first_rows(name: str, head: TaskHead, include_path: str | None) -> list[Decision]:
    """The first 64 rows of the task's validation split, else of its training split.

    Raises:
        DHRDError: a task that cannot be loaded, or that asks otherwise than in training.
    """
    task = load_task(name, include_path)
    if template_sha(task) != head.template_sha or task_version(task) != head.version:
        raise DHRDError(
            f"Task {name}: its prompt is another one (version {task_version(task)}) than the "
            f"student was trained on (version {head.version}). For a task of your own give its "
            "folder with --include-path; else install the version of it that was trained on."
        )
    split = "validation" if task.has_validation_docs() else "train"
    return [
        build_decision(
            request_pairs(render_requests(task, doc, index)),
            head.formulation,
            task=name,
            split=split,
            index=index,
        )
        for index, doc in enumerate(islice(split_docs(task, split), N_ROWS))
    ]


def choice_log_probs(
    decisions: Sequence[Decision], logits: Sequence[Sequence[float]]
) -> Iterator[list[float]]:
    """Log-probabilities (nats) of each decision's choices, from the outputs for all its inputs.

    For labels the choices are the outputs for one text, for candidates a text has one output.
    """
    outputs = iter(logits)
    for decision in decisions:
        own = [value for _ in decision.inputs for value in next(outputs)]
        yield log_softmax(own).tolist()


def compare(
    decisions: Sequence[Decision],
    student: Sequence[Sequence[float]],
    exported: Sequence[Sequence[float]],
) -> Comparison:
    """Log-probabilities of the student's and of the exported model's choices, row by row."""
    differences = [
        np.abs(np.exp(ours) - np.exp(theirs)).max()
        for ours, theirs in zip(student, exported, strict=True)
    ]
    worst = int(np.argmax(differences))  # of NaN, too
    return Comparison(float(differences[worst]), len(decisions), decisions[worst].id)


def require_equal(comparison: Comparison, tolerance: float, dtype: str) -> None:
    """Refuse an exported model that answers otherwise than the student.

    Raises:
        DHRDError: a probability differs by more than `tolerance`.
    """
    if comparison.difference <= tolerance:
        return
    way_out = (
        "Something in this backbone family or its tokenizer does not survive this format: try "
        "another --to, or score the student itself with `lm_eval --model dhrd`."
    )
    if dtype != "float32":
        way_out = f"Rounding to {dtype} costs that: use --dtype float32, or allow it."
    raise DHRDError(
        f"The exported model is not the student: on row {comparison.row} the probability of a "
        f"choice differs by {comparison.difference:.2g}, and --tolerance allows {tolerance:g}. "
        f"Nothing was kept.\n{way_out}",
        exit_code=EXIT_FAILED,
    )
