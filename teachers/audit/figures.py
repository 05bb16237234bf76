"""The figures of an audit: how many, how long, how balanced, and how far they can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dhrd_plugin.decisions import TaskDecisions
from dhrd_plugin.errors import DHRDError
from teachers.audit.file import Audit
from teachers.audit.lines import Fault, Row, read_usage
from teachers.audit.simulatability import Verification, verification
from teachers.audit.wording import guessed_share
from teachers.budget import Usage
from teachers.checks import answer_options
from teachers.records import parse_line

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ALL = "all"


@dataclass
class Rejected:
    """The rejected attempts of one split: how many for each reason, and what they cost."""

    reasons: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Label:
    """One gold answer: the label word, or a candidate's letter.

    Attributes:
        rows, in_split: kept rows with this answer, and rows of the whole split.
        leaking: kept rows with answer words.
    """

    name: str
    rows: int
    in_split: int
    leaking: int
    verified: Verification | None


@dataclass(frozen=True)
class Figures:
    """Figures of one split, or of all together (called ALL; labels are a split's own).

    Attributes:
        rows, in_split: kept rows, and rows of the whole split.
        words: number of words at QUANTILES, empty without rows.
        word_counts, sentences, attempts, origins: rows by number of words, sentences and attempts,
            and by origin.
        leaking, duplicates, copies: rows with answer words, with an earlier row's text, and
            near-copies.
        guessed: share of gold label words guessed from the wording alone (`guessed_share`).
        rejected: rejected attempts by reason.
        usage, judge_usage, rejected_usage: of the kept rationales, their verification, and the
            rejected attempts.
    """

    name: str
    rows: int
    in_split: int
    labels: list[Label]
    words: list[float]
    word_counts: dict[int, int]
    sentences: dict[int, int]
    attempts: dict[int, int]
    origins: dict[str, int]
    leaking: int
    guessed: float | None
    duplicates: int
    copies: int
    rejected: dict[str, int]
    verified: Verification | None
    usage: Usage
    judge_usage: Usage
    rejected_usage: Usage


def figures(
    audit: Audit, splits: Sequence[TaskDecisions], rejected: dict[str, Rejected]
) -> tuple[list[Figures], Figures]:
    """Of every split in `splits`, and of all together."""
    rows_of: dict[str, list[Row]] = {}
    for row in audit.rows:
        rows_of.setdefault(f"{row.decision.task}/{row.decision.split}", []).append(row)
    found = []
    for split in splits:
        name = f"{split.task}/{split.split}"
        rows = rows_of.get(name, [])
        figures = _figures(
            audit,
            rows,
            rejected.get(name, Rejected()),
            name=name,
            in_split=len(split.decisions),
            labels=_labels(rows, split),
            guessed=_guessed(rows) if split.formulation == "labels" else None,
        )
        found.append(figures)
    attempts = Rejected()
    for one in rejected.values():
        attempts.reasons += one.reasons
        attempts.usage += one.usage
    in_splits = sum(len(split.decisions) for split in splits)
    return found, _figures(audit, audit.rows, attempts, name=ALL, in_split=in_splits)


def _figures(
    audit: Audit,
    rows: Sequence[Row],
    rejected: Rejected,
    *,
    name: str,
    in_split: int,
    labels: Sequence[Label] = (),
    guessed: float | None = None,
) -> Figures:
    words = [len(row.rationale.split()) for row in rows]
    duplicates, copies = audit.lines_with("duplicate"), audit.lines_with("copy")
    return Figures(
        name=name,
        rows=len(rows),
        in_split=in_split,
        labels=list(labels),
        words=[float(q) for q in np.quantile(words, QUANTILES)] if words else [],
        word_counts=_counts(words),
        sentences=_counts(row.sentences for row in rows),
        attempts=_counts(row.attempts for row in rows),
        origins=_counts(row.origin for row in rows),
        leaking=sum(bool(row.leaked) for row in rows),
        guessed=guessed,
        duplicates=sum(row.line in duplicates for row in rows),
        copies=sum(row.line in copies for row in rows),
        rejected=dict(rejected.reasons.most_common()),
        verified=verification(rows),
        usage=sum((row.usage for row in rows), Usage()),
        judge_usage=sum((row.judge_usage for row in rows), Usage()),
        rejected_usage=rejected.usage,
    )


def _guessed(rows: Sequence[Row]) -> float | None:
    return guessed_share([row.rationale for row in rows], [row.decision.label for row in rows])


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    return dict(sorted(Counter(values).items()))


def _labels(rows: Sequence[Row], split: TaskDecisions) -> list[Label]:
    """By the first gold choice, which a rationale argues for; in the choices' order."""
    names: dict[int, str] = {}
    in_split: Counter[int] = Counter()
    for decision in split.decisions:
        in_split[decision.label] += 1
        names.setdefault(decision.label, answer_options(decision)[decision.label])
    by_label: dict[int, list[Row]] = {label: [] for label in sorted(in_split)}
    for row in rows:
        by_label[row.decision.label].append(row)
    return [
        Label(
            name=names[label],
            rows=len(group),
            in_split=in_split[label],
            leaking=sum(bool(row.leaked) for row in group),
            verified=verification(group),
        )
        for label, group in by_label.items()
    ]


def read_rejected(path: Path) -> dict[str, Rejected]:
    """The rejected attempts beside a file of rationales, by split; none if there is no such file.

    Lines that name no row (a torn one that was put aside) belong to the split "".
    """
    found: dict[str, Rejected] = {}
    try:
        with path.open("rb") as lines:
            for line in lines:
                split, reason, usage = _rejected(line)
                one = found.setdefault(split, Rejected())
                one.reasons[reason] += 1
                one.usage += usage
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DHRDError(f"Cannot read {path}: {error.strerror or error}.") from None
    return found


def _rejected(line: bytes) -> tuple[str, str, Usage]:
    """(split, reason, usage) of a rejected attempt; torn lines name no split."""
    try:
        attempt = parse_line(line, "line")
        usage = read_usage(attempt)
    except (DHRDError, Fault):
        return "", "unreadable", Usage()
    split = f"{attempt.get('task')}/{attempt.get('split')}" if "task" in attempt else ""
    return split, str(attempt.get("reason", "unreadable")), usage
