"""Measure side after side on the same documents, and keep what has been found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dhrd_plugin.bench.config import BenchConfig
from dhrd_plugin.bench.environment import chosen_device, hardware, versions
from dhrd_plugin.bench.measure import Found, Step
from dhrd_plugin.bench.one_side import OUT_OF_MEMORY, Job, follow
from dhrd_plugin.bench.queries import COT_SUFFIX, Query, add_reasoning, load_queries
from dhrd_plugin.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from dhrd_plugin.report.benches import SCHEMA, Kind
from dhrd_plugin.scoring import BATCH_TOKENS
from dhrd_plugin.students import Student

INTERRUPTED = "interrupted"
Show = Callable[[Kind, Step | Found], None]


def run(
    config: BenchConfig, student: Student, task: str, *, path: Path, date: float, show: Show
) -> int:
    """Write the bench file anew after every side; returns the exit code.

    Out of memory is a result. An interruption ends the side and with it the bench.

    Raises:
        DHRDError: documents that cannot be rendered as the sides need them.
    """
    device = chosen_device(config.device)
    head = student.config.tasks[task]
    queries = load_queries(task, head, limit=config.limit, include_path=config.include_path)
    settings: dict[str, Any] = {
        "batch_sizes": list(config.batch_sizes),
        "batch_tokens": BATCH_TOKENS,
        "repeats": config.repeats,
        "price_per_hour": config.price_per_hour,
    }
    gen_kwargs: dict[str, Any] = {}
    if "cot" in config.sides:
        queries, prompt, gen_kwargs = add_reasoning(
            queries, max_new_tokens=config.cot_max_new_tokens, include_path=config.include_path
        )
        settings |= {
            "cot_prompt": prompt,
            "cot_max_new_tokens": config.cot_max_new_tokens,
            "cot_repeats": config.cot_repeats,
        }
    sides: list[dict[str, Any]] = []
    content = {
        "schema": SCHEMA,
        "date": date,
        "task": task,
        "documents": len(queries),
        "settings": settings,
        "hardware": hardware(device),
        "versions": versions(),
        "sides": sides,
    }
    for kind in config.sides:
        job = _job(kind, student, config, queries, device)
        record = _empty_record(job)
        sides.append(record)
        try:
            for event in follow(job):
                if not isinstance(event, Step):
                    record |= event
                show(kind, event)
        except KeyboardInterrupt:
            record["problem"] = INTERRUPTED
        _complete(record, gen_kwargs, config.price_per_hour)
        _write(path, content)
        if record.get("problem") == INTERRUPTED:
            return EXIT_INTERRUPTED
    failed = [r for r in sides if r.get("problem", OUT_OF_MEMORY) != OUT_OF_MEMORY]
    return EXIT_FAILED if failed else EXIT_OK


def _job(
    kind: Kind, student: Student, config: BenchConfig, queries: Sequence[Query], device: str
) -> Job:
    own = queries[: config.documents(kind, len(queries))]
    sizes = tuple(sorted(set(config.batch_sizes)))
    if kind == "cot" and config.engine == "vllm":
        sizes = (len(own),)  # it is given all of them, and batches by itself
    return Job(kind, student, config, own, device, sizes)


def _empty_record(job: Job) -> dict[str, Any]:
    """What a side that cannot even be loaded leaves."""
    cot = job.kind == "cot"
    task = job.queries[0].decision.task
    return {
        "kind": job.kind,
        "engine": job.config.engine if cot else "hf",
        # By which the row's mark is known; without a twin, its would-be name.
        "task": task + COT_SUFFIX if cot else task,
        "config": {"model": job.kind},
        "documents": len(job.queries),
    }


def _complete(
    record: dict[str, Any], gen_kwargs: dict[str, Any], price_per_hour: float | None
) -> None:
    if record["kind"] == "cot":
        record["config"]["gen_kwargs"] = gen_kwargs
    if price_per_hour is not None and "queries_per_second" in record:
        seconds = 1000 / record["queries_per_second"]
        record["cost_per_1000"] = price_per_hour / 3600 * seconds


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    staging = path.with_name(path.name + ".partial")
    staging.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    staging.replace(path)
