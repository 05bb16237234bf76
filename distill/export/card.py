"""README.md of an export: where it comes from, that it answers alike, how to ask it."""

from __future__ import annotations

from pathlib import Path

from dhrd_plugin.checkpoint import StudentConfig
from distill.export.parity import Comparison


def write_card(
    folder: Path,
    student: StudentConfig,
    *,
    task: str,
    dtype: str,
    calibrated: bool,
    comparison: Comparison,
    usage: str,
) -> None:
    head = student.tasks[task]
    asked = "candidates, one logit each" if head.choices is None else ", ".join(head.choices)
    probabilities = (
        f"calibrated: the temperature {head.temperature:.3f} is folded into the head's weights"
        if calibrated
        else f"as trained; their calibration temperature is {head.temperature:.3f}"
    )
    card = f"""---
base_model: {student.base_model}
pipeline_tag: text-classification
tags: [dhrd, text-classification, reasoning-distillation]
---

# {task}: a classifier exported from a dual-head student

- Task: `{task}` of lm-evaluation-harness, version {head.version} ({asked})
- Student: fingerprint `{student.fingerprint}`, trained on `{student.base_model}` with Dual-Head
  Reasoning Distillation (arXiv 2509.21487). The reasoning head is not part of the export.
- Weights in {dtype}; at most {student.max_length} tokens per input
- Probabilities {probabilities}
- Largest difference from the student's probabilities, which it computed in float32, on
  {comparison.rows} rows of the task: {comparison.difference:.1e}

## Use
{usage}
The text is the prompt that the harness renders for a row, zero-shot, to the letter:

    from dhrd_plugin.decisions import load_decisions
    from dhrd_plugin.harness import load_task

    load_decisions(load_task("{task}"), "validation").decisions[0].inputs
"""
    (folder / "README.md").write_text(card, encoding="utf-8")
