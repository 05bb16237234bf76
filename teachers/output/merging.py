"""Bringing together what a run wrote: parts of several processes, answers of the second pass.

Every step can be killed at any moment and is made good by doing it again: nothing is lost, nothing
is there twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from dhrd_plugin.errors import EXIT_FAILED
from teachers.budget import Usage
from teachers.output.jsonl import cut_torn_line, explained, replace_lines
from teachers.prompts import View
from teachers.records import read_lines

# Where a view's probability of the gold choices goes among a record's checks.
CHECK_OF_VIEW: dict[View, str] = {"both": "sufficiency", "rationale": "leakage"}


def absorb(part: Path, whole: Path, log: Path) -> None:
    """Append the lines of `part` that `whole` does not hold yet, then delete `part`."""
    cut_torn_line(part, log)
    with explained(whole, exit_code=EXIT_FAILED):
        with whole.open("ab") as into, part.open("rb") as lines:
            held = _digests(whole)
            into.writelines(line for line in lines if hashlib.sha256(line).digest() not in held)
            into.flush()
            os.fsync(into.fileno())
        part.unlink()


def _digests(path: Path) -> set[bytes]:
    with path.open("rb") as lines:
        return {hashlib.sha256(line).digest() for line in lines}


def merge_answers(path: Path, journal: Path, *, soft_labels: bool = False) -> None:
    """Write the answers in `journal` into the records of `path`, then delete `journal`.

    Args:
        soft_labels: also take over, as `label_probs`, answers that were merged before.
    """
    with explained(journal, exit_code=EXIT_FAILED):
        journal.touch()
        with journal.open("rb") as answers:
            places = _places(answers)

            def merged() -> Iterator[dict[str, Any]]:
                for _, record in read_lines(path):
                    _add_answers(record, [answer(p) for p in places.get(record.get("id", ""), ())])
                    if soft_labels:
                        _add_soft_label(record)
                    yield record

            def answer(place: int) -> dict[str, Any]:
                answers.seek(place)
                return json.loads(answers.readline())

            replace_lines(path, merged())
        journal.unlink()


def _places(answers: Iterable[bytes]) -> dict[str, list[int]]:
    """Where each row's answers begin, in bytes: the answers themselves might not fit in memory."""
    places: dict[str, list[int]] = {}
    position = 0
    for line in answers:
        places.setdefault(json.loads(line)["id"], []).append(position)
        position += len(line)
    return places


def _add_answers(record: dict[str, Any], answers: Sequence[Mapping[str, Any]]) -> None:
    """Fill in views; nothing changes, and nothing is counted twice, where one is filled."""
    for answer in answers:
        view = answer["view"]
        if record.get("judge") is None:
            record["judge"] = answer["judge"] | {
                "views": dict.fromkeys(get_args(View)),
                "usage": asdict(Usage()),
            }
        judge = record["judge"]
        if judge["views"][view] is None:
            judge["views"][view] = {"probs": answer["probs"], "method": answer["method"]}
            judge["usage"] = vars(Usage.of(judge["usage"]) + Usage.of(answer["usage"]))
            if view in CHECK_OF_VIEW:
                record["checks"][CHECK_OF_VIEW[view]] = answer["gold_prob"]
        if answer["soft_label"]:
            _add_soft_label(record)


def _add_soft_label(record: dict[str, Any]) -> None:
    answered = (record.get("judge") or {}).get("views", {}).get("input")
    if record.get("label_probs") is None and answered is not None:
        record["label_probs"] = answered["probs"]


def show_types_first(path: Path, ids: set[str]) -> None:
    """Move the records called `ids` to the front.

    `datasets.load_dataset("json", …)` takes the types of a file from its first megabytes, and fails
    where a field that is null there has a value later on.
    """

    def records(first: bool) -> Iterator[dict[str, Any]]:
        return (record for _, record in read_lines(path) if (record.get("id") in ids) is first)

    replace_lines(path, chain(records(True), records(False)))


def types_of(record: Mapping[str, Any], prefix: str = "") -> set[tuple[str, type]]:
    """(dotted name, type) of every field that shows its type: a null or an empty list does not."""
    found: set[tuple[str, type]] = set()
    for name, value in record.items():
        kind = type(value)
        if kind is dict:
            found |= types_of(value, f"{prefix}{name}.")
        elif kind is list:
            found.update((f"{prefix}{name}[]", type(item)) for item in value[:1])
        elif value is not None:
            found.add((prefix + name, kind))
    return found
