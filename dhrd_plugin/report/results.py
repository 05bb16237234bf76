"""Read the harness's own result files and their logged samples.

`lm_eval … --output_path DIR --log_samples` writes `results_<date>.json` and, beside it, one
`samples_<task>_<date>.jsonl` per task. Both are taken as they are; nothing is scored again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dhrd_plugin.decisions import UNDEFINED_FOR_CLASSIFIERS
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.evaluated import COT_MARKS, answered, describe_model, in_common, students
from dhrd_plugin.report.inputs import find_files, split_argument
from dhrd_plugin.report.samples import Sample, load_samples
from dhrd_plugin.report.visible import visible

TASK_PARTS = ("results", "n-samples", "higher_is_better")  # each has an entry per task


@dataclass(frozen=True)
class TaskScore:
    """One run's result on one task.

    Attributes:
        column: the question asked; a task `X_cot` asks X's questions.
        mark: "" for one forward, else one of `MARKS`: answered in another way.
        unparsable: fraction of decoded answers that name no choice, where the task tells.
        dataset: the SuperGLUE member that the task is made from, or None.
        num_fewshot: examples shown before the question.
        metrics: by name; only those that are fractions and of which more is better.
        n, n_total: documents scored, and in the split (fewer are scored under --limit).
        samples: sorted by document.
    """

    task: str
    column: str
    mark: str
    unparsable: float | None
    dataset: str | None
    num_fewshot: int
    metrics: Mapping[str, float]
    n: int
    n_total: int
    samples_path: Path
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Run:
    """One results file.

    Attributes:
        name: the row it belongs to; `named` tells whether the user chose it.
        recipe: what runs of one row have in common, unless the user has named it.
        seed: what tells runs of one row apart.
        identity: equal for two evaluations of the same model.
        training: what the training summaries of its students have in common; {} for other models.
        date: when the evaluation began, seconds since the epoch.
    """

    path: Path
    name: str
    named: bool
    recipe: str
    seed: str
    identity: str
    training: Mapping[str, Any]
    date: float
    scores: tuple[TaskScore, ...]


def load_runs(arguments: Sequence[str]) -> list[Run]:
    """The runs in files or folders, each given as `PATH` or `NAME=PATH`, in that order.

    Raises:
        DHRDError: a path that is not there or holds no results, or files that cannot be read.
    """
    runs: dict[tuple[str | None, Path], tuple[str | None, Path]] = {}
    for argument in arguments:
        name, path = split_argument(argument, "what `lm_eval --output_path` wrote to")
        for file in find_files(
            path,
            "results_*.json",
            f"Write them with `lm_eval … --output_path {path} --log_samples`.",
        ):
            runs.setdefault((name, file.resolve()), (name, file))
    return [_load_run(file, name) for name, file in runs.values()]


def drop_superseded(runs: Sequence[Run]) -> list[Run]:
    """The runs without the scores that a later evaluation of the same model on the same task
    replaces."""

    def key(run: Run, score: TaskScore) -> tuple:
        return run.name, run.identity, score.task, score.num_fewshot

    newest = {
        key(run, score): run
        for run in sorted(runs, key=lambda run: run.date)
        for score in run.scores
    }
    kept = [
        replace(run, scores=tuple(s for s in run.scores if newest[key(run, s)] is run))
        for run in runs
    ]
    return [run for run in kept if run.scores]


def _load_run(path: Path, name: str | None) -> Run:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DHRDError(f"{path}: cannot be read as JSON ({error}). Run `lm_eval` again.") from None
    parts = ("results", "configs", "config", "n-samples", "higher_is_better")
    absent = [p for p in parts if not isinstance(content, dict) or p not in content]
    if absent:
        raise DHRDError(
            f"{path}: not a results file of lm-evaluation-harness (it lacks {', '.join(absent)}). "
            "Give the results_*.json that `lm_eval --output_path` writes."
        )
    try:
        return _parse_run(content, path, name)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DHRDError(
            f"{path}: not as lm-evaluation-harness writes it ({type(error).__name__}: {error}). "
            "Run `lm_eval` again."
        ) from None


def _parse_run(content: Mapping[str, Any], path: Path, name: str | None) -> Run:
    tasks = list(content["configs"])
    lacking = [t for t in tasks for part in TASK_PARTS if t not in content[part]]
    if lacking:
        raise DHRDError(
            f"{path}: its parts do not all cover the task {lacking[0]!r}. The file is incomplete: "
            "run `lm_eval` again."
        )
    scores = [_load_score(content, task, path) for task in tasks]
    if not scores:
        raise DHRDError(f"{path}: holds no task. Run `lm_eval` again with --tasks.")
    auto_name, recipe, seed, identity = describe_model(content)
    return Run(
        path=path,
        name=" ".join(visible(name or auto_name).split()),  # one line in every format
        named=name is not None,
        recipe=recipe,
        seed=seed,
        identity=identity,
        training=in_common([s["training"] for s in students(content["config"])]),
        date=float(content.get("date") or 0),
        scores=tuple(scores),
    )


def _load_score(content: Mapping[str, Any], task: str, path: Path) -> TaskScore:
    config = content["configs"][task]
    results, higher_is_better = content["results"][task], content["higher_is_better"][task]
    from_super_glue = str(config.get("dataset_path")).endswith("super_glue")
    column, mark = answered(task, content["config"])
    unread = set()
    if from_super_glue:
        unread.add("score")  # our tasks' share of the average: the mean of metrics that are there
    if students(content["config"]) and not mark:
        unread.update(UNDEFINED_FOR_CLASSIFIERS)
    sources = _metric_sources(results, higher_is_better, unread, decoded=mark in COT_MARKS.values())
    counts = content["n-samples"][task]
    if not counts["effective"]:
        raise DHRDError(
            f"{path}: task {task} has no scores, as --predict_only leaves it. Run `lm_eval` again "
            "without that flag."
        )
    date = path.stem.rsplit("_", 1)[-1]
    samples_path = path.with_name(f"samples_{task}_{date}.jsonl")
    samples = load_samples(samples_path, sources)
    if len(samples) != counts["effective"]:
        raise DHRDError(
            f"{samples_path}: holds {len(samples)} documents, but {path.name} was made from "
            f"{counts['effective']}. The file is incomplete: run `lm_eval` again."
        )
    unparsable = [v for key, v in results.items() if key.startswith("unparsable,")]
    return TaskScore(
        task=task,
        column=column,
        mark=mark,
        unparsable=float(unparsable[0]) if unparsable else None,
        dataset=config.get("dataset_name") if from_super_glue else None,
        num_fewshot=int(config.get("num_fewshot") or 0),
        metrics={
            name: float(results[f"{metric},{filter_name}"])
            for name, (metric, filter_name) in sources.items()
        },
        n=counts["effective"],
        n_total=counts["original"],
        samples_path=samples_path,
        samples=samples,
    )


def _metric_sources(
    results: Mapping[str, Any],
    higher_is_better: Mapping[str, bool],
    unread: set[str],
    decoded: bool,
) -> dict[str, tuple[str, str]]:
    """Where each metric to be shown stands: name -> (harness metric, filter); F1 first, as papers
    write F1/acc. A decoded answer's exact match is the accuracy of its pooled twin."""
    split = ((*key.rpartition(",")[::2], value) for key, value in results.items())
    found = [
        (metric, filter_name)
        for metric, filter_name, value in split
        if higher_is_better.get(metric)
        and metric not in unread | {"bypass"}
        and isinstance(value, int | float)
        and abs(value) < 1.01  # neither BLEU, which is in points already, nor NaN
    ]
    found.sort(key=lambda source: not source[0].startswith("f1"))
    metrics = [metric for metric, _ in found]
    sources = {}
    for metric, filter_name in found:
        name = "acc" if decoded and metric == "exact_match" else metric
        key = name if metrics.count(metric) == 1 else f"{name},{filter_name}"
        sources[key] = (metric, filter_name)
    return sources
