"""The teacher `file:PATH`: rationales that somebody already has."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from dhrd_plugin.decisions import TaskDecisions
from dhrd_plugin.errors import DHRDError
from teachers.base import Reply, Request, register
from teachers.records import load_rationales

logger = logging.getLogger(__name__)


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
        self._lines: dict[str, dict[str, Any]] = {}
        for split in splits:
            rows = {decision.id: decision for decision in split.decisions}
            found = load_rationales([model], rows, default_split=split.split)
            if not found:
                raise DHRDError(
                    f"{model} has no rationale for {split.task}/{split.split}. Its lines need "
                    f'"task": "{split.task}" and, unless it is "{split.split}", a "split".'
                )
            self._lines.update(found)
        if not all("input_sha" in line for line in self._lines.values()):
            logger.warning(
                "%s has lines without input_sha: whether they were written for this version of "
                "the data cannot be checked.",
                model,
            )

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Look the requested rows up, in order."""
        for request in requests:
            line = self._lines.get(request.decision.id)
            if line is not None:
                rationale = line["rationale"].strip()
                problem = None if rationale else "empty rationale"
                origin = line.get("origin", "human")
                yield request, Reply(rationale, None, origin, text=rationale, problem=problem)
