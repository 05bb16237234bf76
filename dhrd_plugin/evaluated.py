"""Who was evaluated, and how it answered: the model that a results file of the harness names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A task `X_cot` asks X's questions, answered by decoding; the mark tells its row from X's.
COT_MARKS = {"_cot": " (CoT)", "_cot_sampled": " (CoT, sampled)"}
ZERO_SHOT_MARK = " (zero-shot)"  # a task that a student has no head for
MARKS = (*COT_MARKS.values(), ZERO_SHOT_MARK)
# What differs between the seeds of one recipe (the dev rows do, and with them the training rows).
OF_ONE_RUN = {"seed", "data", "dev", "dev_rows", "train_rows", "train_rows_with_rationale"}
OF_ONE_RUN |= {"calibration", "steps", "wall_seconds"}
# The argument that names the weights, most telling first, as the harness itself looks for it.
MODEL_NAME_ARGS = ("peft", "delta", "pretrained", "model", "path", "engine")


def students(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `--model dhrd` wrote of one student, or of each of several over one backbone."""
    about = config.get("dhrd") or {}
    return about.get("students") or ([about] if about else [])


def in_common(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries that all of them have, with equal values; {} for no mapping at all.

    >>> in_common([{"alpha": 1, "seed": 0}, {"alpha": 1, "seed": 1}])
    {'alpha': 1}
    """
    first, *others = mappings or [{}]
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


def pooled_twin(task: str) -> tuple[str, str]:
    """(task, mark) whose questions `task` asks, and how they are answered.

    >>> pooled_twin("copa_cot"), pooled_twin("copa")
    (('copa', ' (CoT)'), ('copa', ''))
    """
    for suffix, mark in COT_MARKS.items():
        if task.endswith(suffix):
            return task.removesuffix(suffix), mark
    return task, ""


def answered(task: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """(column, mark) of a task's score: the task whose questions it asks, and how they were
    answered."""
    if task in (config.get("dhrd") or {}).get("zero_shot", ()):
        return task, ZERO_SHOT_MARK
    return pooled_twin(task)


def describe_model(content: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """(row name, recipe, seed, identity) of a results file's model."""
    config = content["config"]
    asked = [
        config.get("gen_kwargs"),
        content.get("system_instruction"),
        content.get("chat_template_sha"),
    ]
    if found := students(config):
        return _describe_students(found, asked)
    arguments = _model_arguments(config.get("model_args"))
    weights = next((str(arguments[key]) for key in MODEL_NAME_ARGS if arguments.get(key)), "")
    name = f"{config['model']} {Path(weights).name}".strip()
    recipe = json.dumps([config["model"], arguments, asked], sort_keys=True, default=str)
    seed = json.dumps([config.get(f"{kind}_seed") for kind in ("random", "numpy", "torch")])
    return name, recipe, seed, recipe + seed


def _describe_students(
    found: Sequence[Mapping[str, Any]], asked: list[Any]
) -> tuple[str, str, str, str]:
    settings, seeds = (
        list(dict.fromkeys(str(student[key]) for student in found)) for key in ("setting", "seed")
    )
    name = f"{' + '.join(settings)} · {Path(found[0]['backbone']).name}"
    trained = [
        [{k: v for k, v in student["training"].items() if k not in OF_ONE_RUN}, student["tasks"]]
        for student in found
    ]
    recipe = json.dumps([name, trained, asked], sort_keys=True)
    identity = json.dumps([[student["fingerprint"] for student in found], asked], sort_keys=True)
    return name, recipe, ",".join(seeds), identity


def _model_arguments(arguments: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """`--model_args` as the harness stores them: a mapping, or "key=value,…" from Python."""
    if isinstance(arguments, str):
        return dict(pair.split("=", 1) for pair in arguments.split(",") if "=" in pair)
    return dict(arguments or {})
