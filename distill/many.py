"""Several students from one command: a folder each, and a summary of their dev results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from dhrd_plugin.checkpoint import StudentConfig
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.stats import interval_around, seed_error
from distill.config import DistillConfig

SUMMARY_FILE = "summary.json"


def expand(config: DistillConfig, *, seeds: int = 1, per_task: bool = False) -> list[DistillConfig]:
    """One run per seed, counted up from `config.seed`, and per task if asked for.

    The students lie in `output/seed-0`, `output/cb` or `output/cb/seed-0`; a single run keeps
    `output` itself.

    Raises:
        DHRDError: no seeds.
    """
    if seeds < 1:
        raise DHRDError(f"--seeds {seeds}: need a whole number of at least 1.")
    runs = [config]
    if per_task:
        runs = [
            replace(run, tasks=(task,), output=run.output / task)
            for run in runs
            for task in run.tasks
        ]
    if seeds > 1:
        runs = [
            replace(run, seed=seed, output=run.output / f"seed-{seed}")
            for run in runs
            for seed in range(config.seed, config.seed + seeds)
        ]
    return runs


@dataclass(frozen=True)
class SeedSummary:
    """Dev results of the students of some tasks that differ in their seed only.

    Attributes:
        tasks: their tasks.
        scores, nlls: dev score and -log p(gold) in nats, by student folder.
        mean, half_width: of the scores; ± a 95% t-interval over seeds, None for one seed.
    """

    tasks: tuple[str, ...]
    scores: dict[str, float]
    nlls: dict[str, float]
    mean: float
    half_width: float | None


def summarise(students: Sequence[tuple[DistillConfig, StudentConfig]]) -> list[SeedSummary]:
    """A summary per task list, in the order of the runs."""
    groups: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for config, student in students:
        groups.setdefault(config.tasks, {})[str(config.output)] = student.training["dev"]
    return [_summary(tasks, results) for tasks, results in groups.items()]


def _summary(tasks: tuple[str, ...], results: dict[str, dict[str, Any]]) -> SeedSummary:
    scores = {folder: result["score"] for folder, result in results.items()}
    mean = fmean(scores.values())
    half_width = None
    if len(scores) > 1:
        interval = interval_around(mean, [seed_error(list(scores.values()))], "seeds")
        half_width = (interval.high - interval.low) / 2
    return SeedSummary(
        tasks=tasks,
        scores=scores,
        nlls={folder: result["nll"] for folder, result in results.items()},
        mean=mean,
        half_width=half_width,
    )


def write_summary(output: Path, summaries: Sequence[SeedSummary]) -> None:
    """`summary.json` beside the students."""
    text = json.dumps([asdict(summary) for summary in summaries], indent=2, ensure_ascii=False)
    (output / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8")
