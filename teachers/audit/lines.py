"""What is wrong with one line of a file of rationales. Pure functions.

Nothing that a line says of itself is trusted: answer words, lengths and whether an answer is the
gold one are found anew from the row.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from dhrd_plugin.decisions import Decision, TaskDecisions
from dhrd_plugin.errors import DHRDError
from teachers.budget import Usage
from teachers.checks import (
    END_OF_REASONING,
    MAX_SENTENCES,
    MIN_SENTENCES,
    REASONS,
    distribution_problem,
    leaked_words,
    length_problem,
    match_answer,
    sentences,
)
from teachers.prompts import View
from teachers.records import ORIGINS, SCHEMA, decision_id, parse_line

# (task, split) -> all its decisions; raises DHRDError where there is no such split.
FindSplit = Callable[[str, str], TaskDecisions]

_ANSWER = re.compile(r"(?P<line>^\s*)?\bAnswer:[ \t]*(?P<answer>[^\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        title: for people.
        error: counts for the exit code; the others are warnings.
        unusable: the line is never part of the kept rows or of a filtered copy.
    """

    title: str
    error: bool = True
    unusable: bool = True


KINDS = {
    "json": Kind("torn line, or no JSON object"),
    "field": Kind("missing or mistyped field"),
    "row": Kind("no such row"),
    "changed": Kind("row has changed since"),
    "label": Kind("label is not the gold one"),
    "answer": Kind(REASONS["answer"]),
    "probs": Kind("no distribution over the choices"),
    "empty": Kind("no rationale"),
    "form": Kind("sentinel or answer line in the explanation"),
    "repeated": Kind("row has a later line, which counts"),
    "leak": Kind(REASONS["leak"], unusable=False),
    "length": Kind(
        f"not {MIN_SENTENCES} to {MAX_SENTENCES} sentences", error=False, unusable=False
    ),
    "duplicate": Kind("same text as an earlier row", error=False, unusable=False),
    "copy": Kind("near-copy of a template", error=False, unusable=False),
}


@dataclass(frozen=True)
class Finding:
    """Something found on a line (from 1): a key of `KINDS`, and what exactly."""

    line: int
    kind: str
    detail: str


@dataclass(frozen=True)
class Judged:
    """What a judge said of a row in one view.

    Attributes:
        gold_prob: probability of the gold choices together.
        right: whether the most probable choice is a gold one.
    """

    gold_prob: float
    right: bool


@dataclass(frozen=True)
class Row:
    """A usable line: the row it belongs to, and what there is to count about it.

    Attributes:
        leaked: the answer words in it.
        judged: by view, where `--verify` has run.
        has_input_sha: whether the line has one; without it, a change of the row goes unseen.
        usage, judge_usage: what the rationale and its verification cost.
    """

    line: int
    decision: Decision
    rationale: str
    leaked: tuple[str, ...]
    sentences: int
    origin: str
    attempts: int
    judged: Mapping[View, Judged]
    has_input_sha: bool
    usage: Usage
    judge_usage: Usage


class Fault(Exception):
    """Ends the check of a line that cannot be used further: a key of `KINDS`, and what exactly."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind, self.detail = kind, detail


def check_line(
    number: int, line: bytes, find_split: FindSplit, *, default_split: str
) -> tuple[Row | None, list[Finding]]:
    """The row of a line, None if the line cannot be used, and what is wrong with the line."""
    try:
        record = _parse(line)
        record.setdefault("split", default_split)
        decision = _row_of(record, find_split)
        row = _read(number, record, decision)
        findings = [Finding(number, *found) for found in _problems(record, row)]
    except Fault as fault:
        return None, [Finding(number, fault.kind, fault.detail)]
    unusable = any(KINDS[finding.kind].unusable for finding in findings)
    return None if unusable else row, findings


def _parse(line: bytes) -> dict[str, Any]:
    try:
        return parse_line(line.removeprefix(codecs.BOM_UTF8), "line")
    except DHRDError as error:
        start = line[:60].decode(errors="replace").strip()
        raise Fault("json", f"{str(error).removeprefix('line: ')} It begins: {start}") from None


def _row_of(record: Mapping[str, Any], find_split: FindSplit) -> Decision:
    """The row that a record says it was written for, unchanged since."""
    try:
        key = decision_id(record, "line")
    except DHRDError as error:
        raise Fault("field", str(error).removeprefix("line: ")) from None
    try:
        decisions = find_split(record["task"], record["split"]).decisions
    except DHRDError as error:
        raise Fault("row", str(error)) from None
    if not 0 <= record["index"] < len(decisions):
        raise Fault(
            "row", f"{key}, but {record['task']}/{record['split']} has {len(decisions)} rows from 0"
        )
    decision = decisions[record["index"]]
    if record.get("id", key) != key:
        raise Fault("row", f"id {record['id']!r}, but task, split and index say {key!r}")
    if record.get("schema", SCHEMA) != SCHEMA:
        raise Fault("field", f"schema {record['schema']!r}, need {SCHEMA!r} or a bare line")
    sha = record.get("input_sha", decision.input_sha)
    if sha != decision.input_sha:
        raise Fault("changed", f"{key} was {sha!r}, now {decision.input_sha!r} (input_sha)")
    return decision


def _read(number: int, record: Mapping[str, Any], decision: Decision) -> Row:
    """What there is to count about a record; fields that a bare line lacks have their default."""
    origin = record.get("origin", "human")
    if origin not in ORIGINS:
        raise Fault("field", f"origin {origin!r}, need one of {', '.join(ORIGINS)}")
    attempts = record.get("attempts", 1)
    if type(attempts) is not int or attempts < 1:
        raise Fault("field", f"attempts {attempts!r}, need a number from 1")
    rationale = record["rationale"]
    judge = _object(record, "judge")
    return Row(
        line=number,
        decision=decision,
        rationale=rationale,
        leaked=tuple(leaked_words(decision, rationale)),
        sentences=len(sentences(rationale)),
        origin=origin,
        attempts=attempts,
        judged=_judged(decision, _object(judge, "views")),
        has_input_sha="input_sha" in record,
        usage=read_usage(record),
        judge_usage=read_usage(judge),
    )


def _object(record: Mapping[str, Any], field: str) -> dict[str, Any]:
    """An object inside a record; a missing one is empty."""
    value = record.get(field)
    if not isinstance(value, dict | None):
        raise Fault("field", f"{field} is {value!r}, need an object")
    return value or {}


def read_usage(record: Mapping[str, Any]) -> Usage:
    """What a record, a judge or a rejected attempt cost.

    Raises:
        Fault: amounts that are none.
    """
    stored = _object(record, "usage")
    for field in ("prompt_tokens", "completion_tokens", "cost"):
        value = stored.get(field, 0)
        amount = isinstance(value, int | float) and 0 <= value < math.inf
        if isinstance(value, bool) or not (amount or (field == "cost" and value is None)):
            raise Fault("field", f"usage.{field} is {value!r}, need a number from 0")
    if not isinstance(stored.get("estimated", False), bool):
        raise Fault("field", f"usage.estimated is {stored['estimated']!r}, need true or false")
    return Usage.of(stored)


def _judged(decision: Decision, views: Mapping[str, Any]) -> dict[View, Judged]:
    found: dict[View, Judged] = {}
    for view in get_args(View):
        probs = _object(views, view).get("probs")
        if probs is None:
            continue
        problem = distribution_problem(decision, probs)
        if problem is not None:
            raise Fault("probs", f"judge's {view} is {problem}")
        best = max(range(len(probs)), key=probs.__getitem__)
        found[view] = Judged(sum(probs[gold] for gold in decision.gold), best in decision.gold)
    return found


def _problems(record: Mapping[str, Any], row: Row) -> Iterable[tuple[str, str]]:
    """(kind, detail) of everything wrong with a line whose row is known."""
    decision, rationale = row.decision, row.rationale
    gold = f"gold is {decision.label_text!r}"
    label = record.get("label", decision.label)
    if type(label) is not int or label not in decision.gold:
        yield "label", f"{label!r}, {gold} ({decision.label})"
    elif record.get("label_text", decision.choices[label]) != decision.choices[label]:
        yield "label", f"{record['label_text']!r}, {gold}"
    checked, left_over = _object(record, "checks").get("answer"), _answers(decision, rationale)
    for answer in (*([] if checked is None else [checked]), *left_over):
        if match_answer(decision, str(answer)) not in decision.gold:
            yield "answer", f"answers {answer!r}, {gold}"
    if record.get("label_probs") is not None:
        problem = distribution_problem(decision, record["label_probs"])
        if problem is not None:
            yield "probs", f"label_probs is {problem}"
    if not rationale.strip():
        yield "empty", "the rationale has no text"
        return
    if END_OF_REASONING.lower() in rationale.lower() or left_over:
        yield "form", f"contains {END_OF_REASONING} or a line 'Answer: …'"
        return
    if row.leaked:
        yield "leak", f"contains {', '.join(row.leaked)}"
    problem = length_problem(rationale)
    if problem is not None:
        yield "length", problem


def _answers(decision: Decision, rationale: str) -> list[str]:
    """Answers left in a rationale: lines "Answer: …", and within a line those that name a choice
    (the question's own "Answer:" may be quoted)."""
    return [
        match["answer"]
        for match in _ANSWER.finditer(rationale)
        if match["line"] is not None or match_answer(decision, match["answer"]) is not None
    ]
