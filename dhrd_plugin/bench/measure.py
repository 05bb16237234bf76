"""Measure one side: its best batch size, queries per second there, memory, tokens, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from dhrd_plugin.bench.memory import PeakMemory
from dhrd_plugin.bench.queries import Query
from dhrd_plugin.bench.sides import Answerer

# A larger batch size that is this much slower, twice, ends the search: anything less may be chance.
CLEARLY_SLOWER = 0.9


@dataclass(frozen=True)
class Step:
    """What comes next: number `done` of `total`, at this batch size (or this many in flight)."""

    stage: str
    done: int
    total: int
    parallel: int


Found = dict[str, Any]  # entries of the side's record in the bench file
Events = Generator[Step | Found, None, None]


def measure(
    answerer: Answerer,
    queries: Sequence[Query],
    *,
    sizes: Sequence[int],
    too_large: Sequence[int] = (),
    repeats: int,
    device: str,
) -> Events:
    """Yields what comes next, and what has been found.

    Args:
        sizes: batch sizes (or numbers of queries in flight) to choose from, ascending.
        too_large: others, known to be out of memory.
        repeats: timed runs over `queries` at the best size.

    Raises:
        Exception: out of memory (`out_of_memory` tells) at every size.
    """
    yield {"config": answerer.config, "precision": answerer.precision, "documents": len(queries)}
    sizes = _distinct(sizes, sum(map(answerer.rows, queries)))
    yield Step("warm-up", 0, 2, 1)
    _seconds(answerer, queries[:1], 1, device)
    if len(sizes) > 1 or too_large:
        sizes = yield from _search(answerer, queries, sizes, too_large, device)
    else:  # what the search does on its way
        yield Step("warm-up", 1, 2, sizes[0])
        _seconds(answerer, queries[: sizes[0]], sizes[0], device)
    yield from _timed_runs(answerer, queries, sizes, repeats, device)
    tokens = answerer.tokens(queries)
    yield {
        "input_tokens": None if tokens.read is None else tokens.read / len(queries),
        "generated_tokens": None if tokens.generated is None else tokens.generated / len(queries),
    }
    yield from _latencies(answerer, queries, device)


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )


def throughput(documents: int, seconds: Sequence[float]) -> Found:
    """Documents per second over some runs: median, least, most."""
    return {
        "seconds": list(seconds),
        "queries_per_second": documents / statistics.median(seconds),
        "low": documents / max(seconds),
        "high": documents / min(seconds),
    }


def latency(seconds: Sequence[float]) -> Found:
    """Percentiles of the time that a document took."""
    p50, p95 = np.percentile(seconds, [50, 95]).tolist()
    return {"latencies": list(seconds), "latency_p50": p50, "latency_p95": p95}


def _search(
    answerer: Answerer,
    queries: Sequence[Query],
    sizes: Sequence[int],
    too_large: Sequence[int],
    device: str,
) -> Generator[Step | Found, None, list[int]]:
    """Sizes that fit, fastest first. The same documents at each, enough to fill the largest."""
    documents = queries[: max(sizes)]
    tried: dict[int, float | None] = dict.fromkeys(too_large)
    rates: dict[int, float] = {}

    def rate(size: int) -> float:
        return len(documents) / _seconds(answerer, documents, size, device)

    for n, size in enumerate(sizes):
        yield Step("search", n, len(sizes), size)
        try:
            reached, best = rate(size), max(rates.values(), default=0)
            if reached < best:  # the first time at a size may pay for memory and kernels
                reached = max(reached, rate(size))
            tried[size] = rates[size] = reached
        except Exception as error:
            if not out_of_memory(error):
                raise
            clear_device_cache(garbage_collection=True)
            tried[size] = None
        yield {"search": [{"size": s, "queries_per_second": r} for s, r in tried.items()]}
        if size not in rates or rates[size] < CLEARLY_SLOWER * max(rates.values()):
            break
    if not rates:
        raise MemoryError
    return sorted(rates, key=lambda s: -rates[s])


def _timed_runs(
    answerer: Answerer, queries: Sequence[Query], sizes: Sequence[int], repeats: int, device: str
) -> Events:
    """At the first of `sizes` at which all documents fit."""
    for n, size in enumerate(sizes, start=1):
        seconds: list[float] = []
        memory = PeakMemory(device)
        try:
            for repeat in range(repeats):
                yield Step("timed run", repeat, repeats, size)
                seconds.append(_seconds(answerer, queries, size, device))
                yield {answerer.parallel: size, **throughput(len(queries), seconds)}
            yield {"peak_memory": memory.read() if answerer.in_process else None}
            return
        except Exception as error:
            if not out_of_memory(error) or n == len(sizes):
                raise
            clear_device_cache(garbage_collection=True)


def _latencies(answerer: Answerer, queries: Sequence[Query], device: str) -> Events:
    """One document at a time, all its rows together."""
    seconds = []
    for n, query in enumerate(queries):
        yield Step("latency", n, len(queries), 1)
        seconds.append(_seconds(answerer, [query], answerer.rows(query), device))
    yield latency(seconds)


def _seconds(answerer: Answerer, queries: Sequence[Query], size: int, device: str) -> float:
    _synchronize(device)
    started = time.perf_counter()
    answerer.answer(queries, size)
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _distinct(sizes: Sequence[int], rows: int) -> list[int]:
    """Without those that put all rows into one batch, but for the first of these.

    >>> _distinct([1, 4, 16, 64], 10)
    [1, 4, 16]
    """
    enough = next((size for size in sizes if size >= rows), sizes[-1])
    return [size for size in sizes if size <= enough]
