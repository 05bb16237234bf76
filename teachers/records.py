"""Rationale records: `rationales.jsonl`, one JSON object per line, append-only.

Two kinds of lines are read: full records, as `dhrd-teach` writes them, and bare lines
`{"task", "split", "index", "rationale"}`, as people already have them.
"""

from __future__ import annotations

import codecs
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError
from teachers.budget import Usage
from teachers.checks import distribution_problem

logger = logging.getLogger(__name__)

SCHEMA = "dhrd.rationale/1"
REJECTED_SCHEMA = "dhrd.rejected/1"  # a record's fields, with reason, detail and text
CHECKS = ("answer", "answer_matches", "leaked_words", "words", "sufficiency", "leakage")
ORIGINS = ("hinted", "blind", "human")  # gold shown; gold not shown; written by a person

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape that is half a character


def make_record(
    decision: Decision,
    *,
    rationale: str,
    origin: str,
    attempts: int,
    checks: Mapping[str, Any],
    teacher: Mapping[str, Any],
    usage: Usage,
    label_probs: Sequence[float] | None = None,
) -> dict[str, Any]:
    """A kept rationale as it is stored (its fields in the documented order)."""
    return {
        "schema": SCHEMA,
        "id": decision.id,
        "input_sha": decision.input_sha,
        "task": decision.task,
        "split": decision.split,
        "index": decision.index,
        "label": decision.label,
        "label_text": decision.label_text,
        "rationale": rationale,
        "origin": origin,
        "attempts": attempts,
        "checks": {name: checks.get(name) for name in CHECKS},
        "label_probs": None if label_probs is None else [float(p) for p in label_probs],
        "judge": None,
        "teacher": dict(teacher),
        "usage": asdict(usage),
        "created": _now(),
    }


def make_rejected(
    record: Mapping[str, Any], *, reason: str, detail: str, text: str
) -> dict[str, Any]:
    """A rejected attempt as it is stored: what would have been its record, and why it is none.

    Args:
        reason: a key of `checks.REASONS`; `detail` says it in words.
        text: the whole reply as it came.
    """
    return {**record, "schema": REJECTED_SCHEMA, "reason": reason, "detail": detail, "text": text}


def make_unanswered(
    decision: Decision, *, view: str, detail: str, judge: Mapping[str, Any], usage: Usage
) -> dict[str, Any]:
    """A question of the second pass that failed, for the rejected file; the record stays kept."""
    return {
        "schema": REJECTED_SCHEMA,
        "id": decision.id,
        "task": decision.task,
        "split": decision.split,
        "index": decision.index,
        "view": view,
        "reason": "failed",
        "detail": detail,
        "judge": dict(judge),
        "usage": asdict(usage),
        "created": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line of a JSONL file, one by one; blank lines are passed over.

    Raises:
        DHRDError: a file that cannot be read, or a line that is no JSON object (named).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield number, parse_line(text, f"{path}:{number}")
    except OSError as error:
        raise DHRDError(
            f"Cannot read rationales from {path}: {error.strerror or error}. "
            "Write them with `dhrd-teach --output F.jsonl` or name another file."
        ) from None


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """The object on a line.

    Raises:
        DHRDError: no JSON object; `where` (file:line) is named.
    """
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise DHRDError(f"{where}: not UTF-8 text ({error}); rationales are JSON lines.") from None
    except (ValueError, RecursionError) as error:  # numbers too long, nesting too deep, too
        torn = ""
        if not line.endswith(b"\n"):
            torn = " If `dhrd-teach` was writing it, the same command repairs it."
        raise DHRDError(
            f"{where}: not valid JSON ({getattr(error, 'msg', error)}).{torn}"
        ) from None
    if not isinstance(record, dict):
        raise DHRDError(f"{where}: got {type(record).__name__}, need a JSON object.")
    if _SURROGATE.search(line):  # whole characters may be escaped in two halves
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DHRDError(
                f"{where}: holds half a Unicode character (an escape such as \\ud83d without its "
                "other half). Write the line anew."
            ) from None
    return record


def decision_id(record: Mapping[str, Any], where: str) -> str:
    """The `task/split/index` that a record or bare line belongs to.

    Raises:
        DHRDError: a missing or mistyped field; `where` (file:line) is named.
    """
    for field, kind in (("task", str), ("split", str), ("index", int), ("rationale", str)):
        value = record.get(field)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DHRDError(
                f"{where}: field {field!r} is {value!r}, need {kind.__name__}. "
                'A line is {"task": …, "split": …, "index": …, "rationale": …}.'
            )
    return f"{record['task']}/{record['split']}/{record['index']}"


def load_rationales(
    paths: Sequence[str | Path],
    decisions: Mapping[str, Decision],
    *,
    default_split: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The record of every decision in `decisions` that has one, by decision id.

    Records of other tasks are passed over, so that one file may serve several students. The last
    record of a row wins.

    Args:
        decisions: all decisions of the splits in question, by id.
        default_split: the split of lines that name none; without it, they are an error.

    Raises:
        DHRDError: an index outside its split, another schema, an unknown origin, `label_probs` that
            are no distribution over the choices, or a row whose text is no longer what the
            rationale was written for (`input_sha`); file and line are named.
    """
    splits = {decision_id_.rsplit("/", 1)[0] for decision_id_ in decisions}
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        for number, record in read_lines(path):
            where = f"{path}:{number}"
            if default_split is not None:
                record.setdefault("split", default_split)
            key = decision_id(record, where)
            if key.rsplit("/", 1)[0] not in splits:
                continue
            decision = decisions.get(key)
            if decision is None:
                raise DHRDError(
                    f"{where}: there is no row {key}. The index counts rows from 0 after the "
                    "task's process_docs; was the file written for another version of the data?"
                )
            schema = record.get("schema", SCHEMA)  # bare lines have none
            if schema != SCHEMA:
                raise DHRDError(f"{where}: schema {schema!r}, need {SCHEMA!r} or a bare line.")
            origin = record.get("origin", "human")
            if origin not in ORIGINS:
                raise DHRDError(f"{where}: origin {origin!r}, need one of {', '.join(ORIGINS)}.")
            sha = record.get("input_sha")
            if sha is not None and sha != decision.input_sha:
                raise DHRDError(
                    f"{where}: row {key} has changed since its rationale was written (input_sha "
                    f"{sha}, now {decision.input_sha}).\nThe task's prompt or data is another one: "
                    "write the rationales anew (`dhrd-teach --new`)."
                )
            probs = record.get("label_probs")
            problem = None if probs is None else distribution_problem(decision, probs)
            if problem is not None:
                raise DHRDError(f"{where}: label_probs is {problem}.")
            found[key] = record
    if not all("input_sha" in record for record in found.values()):
        logger.warning(
            "%s: lines without input_sha: whether they were written for this version of the data "
            "cannot be checked.",
            ", ".join(map(str, paths)),
        )
    return found
