"""A teacher's rationales for the documents that are shown, from the files of `dhrd-teach`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhrd_plugin.decisions import Pair, build_decision, infer_formulation
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.diff.documents import Document
from dhrd_plugin.report.visible import visible

SCHEMA = "dhrd.rationale/1"
Key = tuple[str, str, int]  # (task, split, index)


@dataclass(frozen=True)
class Rationale:
    """Why the right answer is right, in a teacher's words.

    Attributes:
        source: who wrote it and how; "" if the line does not say.
        label: index of the choice that it argues for, if the line says.
        input_sha: hash of the question that it was written for, if the line says.
    """

    text: str
    source: str
    label: int | None
    input_sha: str | None

    def fits(self, document: Document) -> bool:
        """Whether it was written for this question and right answer, as far as that can be told:
        where both models decoded, they were asked in another form than the teacher."""
        if self.label is not None and document.gold and self.label not in document.gold:
            return False
        shas = {sha for pairs in document.pairs for sha in _input_shas(pairs)}
        return self.input_sha is None or not shas or self.input_sha in shas


def _input_shas(pairs: Sequence[Pair]) -> Iterator[str]:
    """`Decision.input_sha` in either formulation: a whole split shows which one its task has, the
    documents logged under --limit may not."""
    for formulation in {"candidates", infer_formulation([pairs])[0]}:
        yield build_decision(pairs, formulation, task="", split="", index=0).input_sha


def load_rationales(paths: Sequence[Path], tasks: Collection[str]) -> dict[Key, Rationale]:
    """Those of `tasks`; the last line of a row counts.

    Full records are read, and bare lines {"task", "split", "index", "rationale"}.

    Raises:
        DHRDError: a file that cannot be read, or a line that is neither (named).
    """
    found = {}
    for path in paths:
        for number, line in _lines(path):
            where = f"{path}:{number}"
            record = _parse(line, where)
            if record["task"] in tasks:
                found[record["task"], record["split"], record["index"]] = _rationale(record)
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DHRDError(
            f"--rationales {path}: cannot be read ({getattr(error, 'strerror', None) or error}). "
            "Give a file that `dhrd-teach --output` wrote."
        ) from None


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DHRDError(f"{where}: not valid JSON ({error}); rationales are JSON lines.") from None
    fields = record if isinstance(record, dict) else {}
    if fields.get("schema", SCHEMA) != SCHEMA:
        raise DHRDError(f"{where}: schema {fields['schema']!r}, need {SCHEMA!r} or a bare line.")
    for name, kind in (("task", str), ("split", str), ("index", int), ("rationale", str)):
        if not isinstance(fields.get(name), kind):
            raise DHRDError(
                f"{where}: field {name!r} is {fields.get(name)!r}, need {kind.__name__}. "
                'A line is {"task": …, "split": …, "index": …, "rationale": …}, as `dhrd-teach` '
                "writes it, with more fields."
            )
    return fields


def _rationale(record: Mapping[str, Any]) -> Rationale:
    teacher = (record.get("teacher") or {}).get("model")
    return Rationale(
        text=visible(record["rationale"]).strip(),
        source=", ".join(visible(str(part)) for part in (teacher, record.get("origin")) if part),
        label=record.get("label"),
        input_sha=record.get("input_sha"),
    )
