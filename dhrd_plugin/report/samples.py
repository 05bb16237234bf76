"""Read the samples that the harness logs beside its results, one file per task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhrd_plugin.errors import DHRDError


@dataclass(frozen=True)
class Sample:
    """What the harness logged for one document.

    Attributes:
        cluster: what documents of one question share (MultiRC, ReCoRD); else the document itself.
        values: per metric a number, or a tuple ending in (gold, prediction).
    """

    doc_id: int
    doc_hash: str
    target: str
    cluster: str
    values: Mapping[str, Any]


def load_samples(path: Path, sources: Mapping[str, tuple[str, str]]) -> tuple[Sample, ...]:
    """One Sample per document, sorted; the harness writes a line per document and filter.

    Args:
        sources: name -> (harness metric, filter) of the values to take.

    Raises:
        DHRDError: the file is missing, cannot be read, or is none of the harness's.
    """
    samples: dict[int, Sample] = {}
    for number, line in _read_lines(path):
        try:
            record = json.loads(line)
            doc_id = record["doc_id"]
            values = {
                name: record[metric]
                for name, (metric, filter_name) in sources.items()
                if record["filter"] == filter_name
            }
            if doc_id in samples:
                values = {**samples[doc_id].values, **values}
            samples[doc_id] = Sample(
                doc_id=doc_id,
                doc_hash=record["doc_hash"],
                target=record["target"],
                cluster=_cluster(record["doc"], doc_id),
                values=values,
            )
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            raise DHRDError(
                f"{path}:{number}: not a sample as the harness logs it "
                f"({type(error).__name__}: {error}). Run `lm_eval` again."
            ) from None
    for sample in samples.values():
        if absent := sources.keys() - sample.values.keys():
            raise DHRDError(
                f"{path}: document {sample.doc_id} has no {min(absent)}. The file is incomplete: "
                "run `lm_eval` again."
            )
    return tuple(samples[doc_id] for doc_id in sorted(samples))


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from enumerate(file, start=1)
    except FileNotFoundError:
        raise DHRDError(
            f"{path}: the logged samples are missing; intervals and differences are made from "
            "them. Run `lm_eval` again with --log_samples."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DHRDError(f"{path}: cannot be read ({error}).") from None


def _cluster(doc: Mapping[str, Any], doc_id: int) -> str:
    """SuperGLUE numbers MultiRC's answers by paragraph, question, answer and ReCoRD's queries by
    passage, query: all but the last number name what documents share."""
    index = doc.get("idx")
    if isinstance(index, dict) and len(index) > 1:
        return json.dumps(list(index.values())[:-1])
    return str(doc_id)
