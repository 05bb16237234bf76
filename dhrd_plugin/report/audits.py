"""Read what `dhrd-teach audit F.jsonl --json AUDIT.json` found out about rationales."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.inputs import split_argument


@dataclass(frozen=True)
class RationaleAudit:
    """The rationales of one file.

    Attributes:
        rows: rationales.
        words: rationales by number of words.
        verified: rationales that a judge has looked at.
        gold_probs: by view ("input", "rationale", "both"), these by the probability that the judge
            gave the gold answer, in bins of equal width from 0 to 1; {} without verified ones.
    """

    name: str
    rows: int
    words: Mapping[int, int]
    verified: int
    gold_probs: Mapping[str, Sequence[int]]


def load_audits(arguments: Sequence[str]) -> list[RationaleAudit]:
    """The audits in files, each given as `FILE` or `NAME=FILE`; else named after the rationales.

    Raises:
        DHRDError: a file that is not there, or is no audit.
    """
    audits = []
    for argument in arguments:
        name, path = split_argument(argument, "what `dhrd-teach audit F.jsonl --json FILE` wrote")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            audits.append(_audit(content, name or content["file"]))
        except (OSError, AttributeError, ValueError, KeyError, TypeError) as error:
            raise DHRDError(
                f"{path}: not an audit of rationales ({type(error).__name__}: {error}). Make one "
                "with `dhrd-teach audit F.jsonl --json FILE`."
            ) from None
    return audits


def _audit(content: Mapping[str, Any], name: str) -> RationaleAudit:
    figures = content["all"]
    verified = figures["verified"]
    return RationaleAudit(
        name=name,
        rows=figures["rows"],
        words={int(words): rows for words, rows in figures["word_counts"].items()},
        verified=verified["rows"] if verified else 0,
        gold_probs=verified["gold_probs"] if verified else {},
    )
