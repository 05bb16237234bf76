"""Short ways to run the harness on made tasks, and to read what it logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

from dhrd_plugin.harness import task_folders


def made_manager(folder: Path) -> TaskManager:
    """Finds the tasks in `folder` and ours; the harness's own thousands stay out, for speed."""
    paths = [*map(str, task_folders()), str(folder)]
    return TaskManager(include_path=paths, include_defaults=False)


def evaluate(model: Any, *tasks: str, task_manager: TaskManager, **settings: Any) -> dict[str, Any]:
    """`lm_eval.simple_evaluate` without standard errors."""
    results = lm_eval.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=task_manager, bootstrap_iters=0, **settings
    )
    assert results is not None
    return results


def answers(results: dict[str, Any], task: str) -> list[list[float]]:
    """Log-probabilities of the choices of each document, in order."""
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return [[resp[0][0] for resp in sample["resps"]] for sample in samples]


def requests(task_manager: TaskManager, name: str, limit: int | None = None) -> list[Any]:
    """A task's requests as the harness hands them over."""
    task = task_manager.load([name])["tasks"][name]
    task.build_all_requests(limit=limit, rank=0, world_size=1)
    return task.instances
