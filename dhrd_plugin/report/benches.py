"""Read what `dhrd-bench` measured, and find the throughput of a row of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.evaluated import answered, describe_model
from dhrd_plugin.report.inputs import find_files

if TYPE_CHECKING:
    from dhrd_plugin.report.summary import Row

SCHEMA = "dhrd.bench/1"
Kind = Literal["pooled", "plain", "loglikelihood", "cot"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NEEDED = {
    "settings": ("batch_sizes", "batch_tokens", "repeats"),
    "hardware": ("cpu", "cores", "threads"),
}
NEEDED_FOR_COT = ("cot_prompt", "cot_max_new_tokens", "cot_repeats")
FIGURES = (
    *("queries_per_second", "low", "high", "batch_size", "concurrency"),
    *("latency_p50", "latency_p95", "input_tokens", "generated_tokens"),
    *("peak_memory", "cost_per_1000"),
)


class Speed(NamedTuple):
    """Documents per second: median, least and most of the repeats."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way of answering the documents of a bench; None for what was not measured.

    Attributes:
        name: the model, as the report names it.
        recipe, mark: of the row whose throughput it is (see `Run` and `evaluated.MARKS`).
        engine: what ran it: "hf", "vllm" or "openai".
        precision: of its weights, where they are ours.
        documents: how many it answered, from the first on.
        queries_per_second, low, high: documents per second: median, least and most of the repeats;
            together they are `speed`.
        repeats: how often the documents were answered for that.
        batch_size: rows per forward at which it was fastest; None where the engine decides.
        concurrency: there, the most queries in flight at once.
        latency_p50, latency_p95: seconds, one document at a time.
        latencies: of how many documents.
        input_tokens, generated_tokens: per document.
        peak_memory: bytes.
        cost_per_1000: US dollars per 1,000 documents.
        problem: why figures are missing, in words.
    """

    kind: Kind
    name: str
    recipe: str
    mark: str
    engine: str = "hf"
    precision: str | None = None
    documents: int = 0
    queries_per_second: float | None = None
    low: float | None = None
    high: float | None = None
    repeats: int = 0
    batch_size: int | None = None
    concurrency: int | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    latencies: int = 0
    input_tokens: float | None = None
    generated_tokens: float | None = None
    peak_memory: int | None = None
    cost_per_1000: float | None = None
    problem: str | None = None

    @property
    def speed(self) -> Speed | None:
        if self.queries_per_second is None or self.low is None or self.high is None:
            return None
        return Speed(self.queries_per_second, self.low, self.high)

    @property
    def tokens_per_query(self) -> float | None:
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.generated_tokens or 0)


@dataclass(frozen=True)
class Bench:
    """One run of `dhrd-bench`.

    Attributes:
        date: when it began, seconds since the epoch.
        task: whose documents were answered; `documents` says how many.
        settings: what was asked for (repeats, batch sizes, price, …).
        hardware, versions: what it ran on.
    """

    path: Path
    date: float
    task: str
    documents: int
    settings: Mapping[str, Any]
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    sides: tuple[Side, ...]

    def speed(self, kind: Kind) -> Speed | None:
        """Of the side of that kind, if it was measured."""
        return next((side.speed for side in self.sides if side.kind == kind), None)


def load_benches(paths: Sequence[str | Path]) -> list[Bench]:
    """The benches in files, and in folders' `bench_*.json`, each once.

    Raises:
        DHRDError: a path that is not there or holds no bench, or a file that is none.
    """
    files = [
        file
        for path in paths
        for file in find_files(
            Path(path),
            "bench_*.json",
            f"Make one with `dhrd-bench --student DIR --task T --output {path}`.",
        )
    ]
    return [_load(file) for file in {file.resolve(): file for file in files}.values()]


def throughput_of(row: Row, benches: Sequence[Bench]) -> Side | None:
    """The newest measurement of the row's own model, answering in the row's own way."""
    for bench in sorted(benches, key=lambda bench: bench.date, reverse=True):
        for side in bench.sides:
            if side.speed and side.recipe in row.recipes and side.mark == row.mark:
                return side
    return None


def _load(path: Path) -> Bench:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DHRDError(f"{path}: cannot be read as JSON ({error}).") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise DHRDError(
            f"{path}: schema is {schema!r}, this version reads {SCHEMA!r}. Give what `dhrd-bench` "
            "of this version writes."
        )
    try:
        _check_parts(content)
        return Bench(
            path=path,
            date=float(content["date"]),
            task=content["task"],
            documents=content["documents"],
            settings=content["settings"],
            hardware=content["hardware"],
            versions=content["versions"],
            sides=tuple(map(_side, content["sides"])),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DHRDError(
            f"{path}: not a whole bench file ({type(error).__name__}: {error}). Run `dhrd-bench` "
            "again."
        ) from None


def _check_parts(content: Mapping[str, Any]) -> None:
    for part, names in NEEDED.items():
        if absent := set(names) - content[part].keys():
            raise KeyError(f"{part}.{min(absent)}")
    decoded = any(side["kind"] == "cot" for side in content["sides"])
    if decoded and (absent := set(NEEDED_FOR_COT) - content["settings"].keys()):
        raise KeyError(f"settings.{min(absent)}")


def _side(record: Mapping[str, Any]) -> Side:
    figures = {name: record[name] for name in FIGURES if record.get(name) is not None}
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ValueError(f"{name} is {value!r}")
    if record["kind"] not in KINDS:
        raise ValueError(f"kind is {record['kind']!r}")
    name, recipe, _, _ = describe_model(record)
    _, mark = answered(record["task"], record["config"])
    return Side(
        kind=record["kind"],
        name=name,
        recipe=recipe,
        mark=mark,
        engine=record["engine"],
        precision=record.get("precision"),
        documents=record["documents"],
        repeats=len(record.get("seconds", ())),
        latencies=len(record.get("latencies", ())),
        problem=record.get("problem"),
        **figures,
    )
