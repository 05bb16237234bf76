"""Training and dev rows: decisions of the training split joined with their rationales."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dhrd_plugin.checkpoint import TaskHead
from dhrd_plugin.decisions import Decision, load_decisions
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task
from teachers.records import load_rationales

DEV_SHARE = 0.1
DEV_CAP = 200


@dataclass(frozen=True)
class TrainingData:
    """Rows of all tasks.

    Attributes:
        heads: what the student must know of each task.
        train: decisions to learn from; `rationales` has texts for some of them, by id.
        dev: decisions kept back for choosing the checkpoint.
    """

    heads: dict[str, TaskHead]
    train: list[Decision]
    dev: list[Decision]
    rationales: dict[str, str]

    @property
    def sha(self) -> str:
        """Hash of rows and rationales: tells whether a run would continue on the same data."""
        rows = [(d.id, d.input_sha, self.rationales.get(d.id)) for d in [*self.train, *self.dev]]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


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
    train: list[Decision] = []
    dev: list[Decision] = []
    for name in tasks:
        loaded = load_decisions(load_task(name, include_path), "train")
        heads[name] = TaskHead(
            formulation=loaded.formulation,
            choices=loaded.choices,
            version=loaded.version,
            template_sha=loaded.template_sha,
        )
        kept_back = carve_dev(loaded.decisions, dev_rows, seed)
        train += [d for d in loaded.decisions if d.index not in kept_back]
        dev += [d for d in loaded.decisions if d.index in kept_back]
    records = load_rationales(rationale_files, {d.id: d for d in [*train, *dev]})
    rationales = {key: record["rationale"] for key, record in records.items()}
    if rationale_files and not any(d.id in rationales for d in train):
        files = ", ".join(map(str, rationale_files))
        raise DHRDError(
            f"No rationale in {files} belongs to a training row of {', '.join(tasks)}. Write some "
            "with `dhrd-teach --task …`, or train the pooled baseline with `--alpha 0`."
        )
    return TrainingData(heads=heads, train=train, dev=dev, rationales=rationales)


def carve_dev(decisions: Sequence[Decision], dev_rows: int | None, seed: int) -> set[int]:
    """Indices of the dev rows: drawn by `seed`, stratified by gold label where classes allow it.

    Raises:
        DHRDError: too few rows to keep some back and still train.
    """
    from sklearn.model_selection import train_test_split

    n = dev_rows if dev_rows is not None else min(round(DEV_SHARE * len(decisions)), DEV_CAP)
    n = max(n, 1)
    if n >= len(decisions):
        raise DHRDError(
            f"Task {decisions[0].task!r} has {len(decisions)} training rows, too few to keep {n} "
            "back for choosing the checkpoint. Use a task with more rows or a smaller --dev-rows."
        )
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
