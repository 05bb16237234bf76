"""Bench files as `dhrd-bench` writes them, made small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS = {
    "batch_sizes": [1, 4, 16],
    "batch_tokens": 8192,
    "repeats": 2,
    "price_per_hour": None,
    "cot_prompt": "task copa_cot",
    "cot_max_new_tokens": 500,
    "cot_repeats": 2,
}
HARDWARE = {"device": "cpu", "cpu": "Some CPU", "cores": 2, "threads": 2, "system": "Linux"}


def side(kind: str, config: Mapping[str, Any], per_second: float, **changes: Any) -> dict[str, Any]:
    """The record of a side that was measured twice on ten documents of COPA."""
    return {
        "kind": kind,
        "engine": "hf",
        "task": "copa_cot" if kind == "cot" else "copa",
        "config": {"model_args": {}, "gen_kwargs": {}, **config},
        "precision": "float32",
        "documents": 10,
        "seconds": [10 / per_second, 10 / per_second],
        "queries_per_second": per_second,
        "low": 0.9 * per_second,
        "high": 1.25 * per_second,
        "batch_size": 4,
        "latencies": [0.01] * 10,
        "latency_p50": 0.01,
        "latency_p95": 0.0125,
        "input_tokens": 96.4,
        "generated_tokens": 131.0 if kind == "cot" else None,
        "peak_memory": 3 * 2**29,
        **changes,
    }


def write_bench(path: Path, *sides: Mapping[str, Any], **changes: Any) -> Path:
    content = {
        "schema": "dhrd.bench/1",
        "date": 0.0,
        "task": "copa",
        "documents": 10,
        "settings": SETTINGS,
        "hardware": HARDWARE,
        "versions": {"torch": "2.13.0", "lm_eval": "0.4.13"},
        "sides": sides,
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
