"""Training and dev rows: decisions of the training split joined with what the teacher gave."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dhrd_plugin.checkpoint import TaskHead
from dhrd_plugin.decisions import Decision, load_decisions
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task, split_docs
from distill.controls import apply_control
from teachers.records import load_rationales

DEV_SHARE = 0.1
DEV_CAP = 200


@dataclass(frozen=True)
class TrainingData:
    """Rows of all tasks.

    Attributes:
        heads: what the student must know of each task.
        tasks: the harness tasks, in the same order.
        train: decisions to learn from.
        rationales: texts for some of them, by id.
        label_probs: the teacher's distribution over the choices for some of them, by id.
        dev, dev_docs: decisions kept back for choosing the checkpoint, and their harness documents.
    """

    heads: dict[str, TaskHead]
    tasks: dict[str, Any]
    train: list[Decision]
    rationales: dict[str, str]
    label_probs: dict[str, tuple[float, ...]]
    dev: list[Decision]
    dev_docs: list[dict]

    @property
    def sha(self) -> str:
        """Hash of rows and records: tells whether a run would continue on the same data."""
        rows = [
            (
                d.id,
                d.input_sha,
                sorted(d.gold),
                self.rationales.get(d.id),
                self.label_probs.get(d.id),
            )
            for d in [*self.train, *self.dev]
        ]
        return _sha(rows)

    @property
    def records_sha(self) -> str:
        """Hash of the teacher's records alone: the same for every choice of dev rows."""
        return _sha([sorted(self.rationales.items()), sorted(self.label_probs.items())])

    def under_control(self, control: str, seed: int) -> TrainingData:
        """The same with the training rows' rationales replaced as `control` says."""
        train, rationales = apply_control(control, self.train, self.rationales, seed=seed)
        return replace(self, train=train, rationales=rationales)


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def load_training_data(
    tasks: Sequence[str],
    rationale_files: Sequence[Path],
    *,
    dev_rows: int | None,
    seed: int,
    include_path: str | None = None,
) -> TrainingData:
    """Load the training split of every task; dev rows are carved out of it.

    The harness's validation split is never looked at: it is what the student is scored on.

    Raises:
        DHRDError: unknown task, no training split, rows without gold, rationales that do not fit.
    """
    heads: dict[str, TaskHead] = {}
    harness_tasks: dict[str, Any] = {}
    train: list[Decision] = []
    dev: list[Decision] = []
    dev_docs: list[dict] = []
    for name in tasks:
        task = harness_tasks[name] = load_task(name, include_path)
        loaded = load_decisions(task, "train")
        heads[name] = TaskHead(
            formulation=loaded.formulation,
            choices=loaded.choices,
            version=loaded.version,
            template_sha=loaded.template_sha,
        )
        docs = list(split_docs(task, "train"))
        kept_back = carve_dev(loaded.decisions, dev_rows, seed, groups=passages(docs))
        train += [d for d in loaded.decisions if d.index not in kept_back]
        dev += [d for d in loaded.decisions if d.index in kept_back]
        dev_docs += [docs[d.index] for d in loaded.decisions if d.index in kept_back]
    records = load_rationales(rationale_files, {d.id: d for d in [*train, *dev]})
    rationales = {key: record["rationale"] for key, record in records.items()}
    if rationale_files and not any(d.id in rationales for d in train):
        files = ", ".join(map(str, rationale_files))
        raise DHRDError(
            f"No rationale in {files} belongs to a training row of {', '.join(tasks)}. Write some "
            "with `dhrd-teach --task …`, or train the pooled baseline with `--alpha 0`."
        )
    return TrainingData(
        heads=heads,
        tasks=harness_tasks,
        train=train,
        rationales=rationales,
        label_probs={
            key: tuple(record["label_probs"])
            for key, record in records.items()
            if record.get("label_probs")
        },
        dev=dev,
        dev_docs=dev_docs,
    )


def passages(docs: Sequence[Mapping[str, Any]]) -> list[Hashable] | None:
    """What each document is about, where several are about the same; None where none are.

    SuperGLUE says it in a nested `idx`, whose outermost level is the passage: MultiRC asks several
    answers of several questions about one, ReCoRD several queries.
    """
    if not all(isinstance(doc.get("idx"), Mapping) and doc["idx"] for doc in docs):
        return None
    return [next(iter(doc["idx"].values())) for doc in docs]


def carve_dev(
    decisions: Sequence[Decision],
    dev_rows: int | None,
    seed: int,
    groups: Sequence[Hashable] | None = None,
) -> set[int]:
    """Indices of the dev rows, drawn by `seed`.

    Without groups: stratified by gold label where classes allow it. With them, whole groups are
    drawn until there are enough rows, so that no dev row has a relative among the training rows.

    Raises:
        DHRDError: too few rows (or groups) to keep some back and still train.
    """
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state

    n = dev_rows if dev_rows is not None else min(round(DEV_SHARE * len(decisions)), DEV_CAP)
    n = max(n, 1)
    too_few = DHRDError(
        f"Task {decisions[0].task!r} has {len(decisions)} training rows, too few to keep {n} "
        "back for choosing the checkpoint. Use a task with more rows or a smaller --dev-rows."
    )
    if n >= len(decisions):
        raise too_few
    if groups is not None:
        rows_of: dict[Hashable, list[int]] = {}
        for decision, group in zip(decisions, groups, strict=True):
            rows_of.setdefault(group, []).append(decision.index)
        drawn: set[int] = set()
        for i in check_random_state(seed).permutation(len(rows_of)):
            if len(drawn) >= n:
                return drawn
            drawn.update(list(rows_of.values())[i])
        raise too_few
    labels = [decision.label for decision in decisions]
    counts = Counter(labels)
    fits = min(counts.values()) > 1 and len(counts) <= min(n, len(labels) - n)
    _, dev = train_test_split(
        [decision.index for decision in decisions],
        test_size=n,
        random_state=seed,
        stratify=labels if fits else None,
    )
    return set(dev)
