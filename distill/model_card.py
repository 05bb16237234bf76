"""README.md of a student: what it is, what it was trained on, how it did, how to use it."""

from __future__ import annotations

from pathlib import Path

from dhrd_plugin.checkpoint import StudentConfig


def write_model_card(folder: Path, student: StudentConfig) -> None:
    training = student.training
    tasks = "\n".join(
        f"- `{name}`: {head.formulation}"
        + (f" ({', '.join(head.choices)})" if head.choices else "")
        + f", task version {head.version}"
        for name, head in student.tasks.items()
    )
    settings = "\n".join(
        f"| {key} | {value} |" for key, value in training.items() if not isinstance(value, dict)
    )
    dev = training["dev"]
    results = "\n".join(
        f"- `{task}`: {metric} {value}, calibration temperature "
        f"{training['calibration'][task]['temperature']:.3f}"
        for task, metrics in dev["metrics"].items()
        for metric, value in metrics.items()
    )
    weights = "LoRA adapter" if student.adapter else "all weights trained"
    names = ",".join(student.tasks)
    card = f"""---
base_model: {student.base_model}
library_name: dhrd
tags: [dhrd, text-classification, reasoning-distillation]
---

# {training["setting"]} student on {names}

A decoder-only language model with a pooled classification head, trained with Dual-Head Reasoning
Distillation (arXiv 2509.21487). At test time only the classification head runs: one forward per
input, no decoding.

- Base model: `{student.base_model}` ({weights})
- Head: {student.head}; computed in {student.dtype}; at most {student.max_length} tokens per input
- Fingerprint: `{student.fingerprint}`

## Tasks
{tasks}

## Training
| setting | value |
|---|---|
{settings}

## Results
Best checkpoint on {training["dev_rows"]} dev rows kept back from the training split, at step
{dev["step"]}; -log p(gold) {dev["nll"]} nats.

{results}

Checkpoint and temperature were chosen on these rows, so the figures are optimistic; score the
student on the validation split:

    lm_eval --model dhrd --model_args pretrained=FOLDER --tasks {names}

## Limits
It answers only the tasks above, in the harness's zero-shot wording. Its probabilities are
calibrated only with `calibrated=true` in --model_args, and then only for inputs like those above.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")
