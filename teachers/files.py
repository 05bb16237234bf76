"""The teacher `file:PATH`: rationales that somebody already has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dhrd_plugin.decisions import TaskDecisions
from dhrd_plugin.errors import DHRDError
from teachers.base import Prediction, Question, Reply, Request, register
from teachers.records import load_rationales


@register("file:PATH")
class FileTeacher:
    """Hands out the rationales of a JSONL file, as full records or bare lines.

    A line without a split belongs to the split that is asked for; one without an origin was
    written by a person. Rows that have no line are passed over.
    """

    adapter = "file"
    asks = False

    def __init__(self, model: str, splits: Sequence[TaskDecisions]) -> None:
        """Read the file named `model` and hold it against the splits.

        Raises:
            DHRDError: an unreadable file, a line that fits no row, or a split without any line.
        """
        self.model = model
        self.params: dict[str, Any] = {}
        rows = {decision.id: decision for split in splits for decision in split.decisions}
        self._lines = load_rationales([model], rows, default_split=splits[0].split)
        for split in splits:
            if not any(decision.id in self._lines for decision in split.decisions):
                raise DHRDError(
                    f"{model} has no rationale for {split.task}/{split.split}. Its lines need "
                    f'"task": "{split.task}" and, unless it is "{split.split}", a "split".'
                )

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Look the requested rows up, in order."""
        for request in requests:
            line = self._lines.get(request.decision.id)
            if line is not None:
                rationale = line["rationale"].strip()
                problem = None if rationale else "empty rationale"
                origin = line.get("origin", "human")
                probs = line.get("label_probs")
                yield (
                    request,
                    Reply(
                        rationale,
                        None,
                        origin,
                        text=rationale,
                        problem=problem,
                        label_probs=None if probs is None else tuple(probs),
                    ),
                )

    def predict(self, questions: Iterator[Question]) -> Iterator[tuple[Question, Prediction]]:
        """A file has no answers to questions.

        Raises:
            DHRDError: always.
        """
        raise DHRDError(
            f"file:{self.model} cannot be asked for soft labels or verification. Name a --judge."
        )
