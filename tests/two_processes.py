"""What the tests do both in one process and in two: gradients, whole runs, scoring.

Run as a script, it is one of the two: `python two_processes.py OUTPUT STUDENT SETTINGS`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lm_eval
import torch
from accelerate import Accelerator
from harness_runs import made_manager
from safetensors.torch import save_file
from tiny_models import mixed_rows, tiny_lm, tiny_model

from dhrd_plugin import lm
from dhrd_plugin.batching import EncodedDecision
from dhrd_plugin.modeling import DualHeadModel
from dhrd_plugin.scoring import score
from distill.config import DistillConfig
from distill.objective import Objective
from distill.soft_targets import TokenTeacher
from distill.step import StepResult, train_step
from distill.train import train

WINDOWS = {"whole": 8, "ragged": 5, "one process idle": 1}  # rows per optimizer step
# Both kinds of soft targets, the token-level ones from another random model.
SOFT_TARGETS = {
    "weights": {"kd_label": 0.5, "kd_token": 2.0},
    "temperature": 2.0,
    "token_teacher": TokenTeacher(tiny_lm("GPT2"), 258),
}


class Capture(torch.optim.SGD):
    """Keeps the gradients that a step would apply, and applies none."""

    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.captured = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def step_gradients(
    rows: Sequence[EncodedDecision],
    *,
    batch_size: int,
    alpha: float = 1.0,
    beta: float = 1.0,
    model: DualHeadModel | None = None,
    **changes: Any,
) -> tuple[dict[str, torch.Tensor], StepResult]:
    """(gradient by parameter, result) of one step; AdamW would hide a wrong scale.

    Args:
        changes: of the objective, such as further weights.
    """
    model = model or tiny_model()
    accelerator = Accelerator(cpu=True)
    optimizer = Capture(model.parameters(), lr=0.0)
    prepared, wrapped = accelerator.prepare(model, optimizer)
    weights = {"cls": beta} | ({"reason": alpha} if alpha else {}) | changes.pop("weights", {})
    trace = changes.pop("trace", False)
    result = train_step(
        prepared,
        rows,
        accelerator=accelerator,
        optimizer=wrapped,
        objective=Objective(weights=weights, **changes),
        batch_size=batch_size,
        max_grad_norm=float("inf"),
        pad_token_id=257,
        trace=trace,
    )
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, optimizer.captured, strict=True)), result


def harness_scores(student: Path, include_path: str) -> dict[str, Any] | None:
    """By task its metrics, and per document what was logged; None but in the first process.

    Both formulations, and a task that the student has no head for.
    """
    results = lm_eval.simple_evaluate(
        model="dhrd",
        model_args={
            "pretrained": str(student),
            "include_path": include_path,
            "missing": "zero_shot",
        },
        tasks=["scenes", "made_weather", "made_because", "made_untaught"],
        task_manager=made_manager(Path(include_path)),
        limit=7,  # the second process is one document short
        bootstrap_iters=0,
        device="cpu",
    )
    if results is None:
        return None
    return {
        task: {
            "metrics": results["results"][task],
            "samples": sorted(
                [sample["doc_id"], sample["target"], [resp[0] for resp in sample["resps"]]]
                for sample in samples
            ),
        }
        for task, samples in results["samples"].items()
    }


def main(output: Path, student: Path, settings: dict) -> None:
    for name, n_rows in WINDOWS.items():
        gradients, result = step_gradients(
            mixed_rows()[:n_rows], batch_size=2, trace=True, **SOFT_TARGETS
        )
        if Accelerator().is_main_process:
            save_file(gradients, output / f"{name}.safetensors")
            (output / f"{name}.json").write_text(json.dumps(asdict(result)))
    for name, values in settings.items():
        tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        train(DistillConfig(**values | tuples | {"output": output / name}))
    process = Accelerator().process_index
    Accelerator().wait_for_everyone()
    scored = []

    def count(model, rows, **kwargs):
        scored.append(len(rows))
        return score(model, rows, **kwargs)

    lm.score = count
    found = harness_scores(student, settings["dhrd"]["include_path"])
    if found is not None:
        (output / "scores.json").write_text(json.dumps(found))
    (output / f"scored-{process}.json").write_text(json.dumps(scored))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
