"""All settings of a training run, checked where they meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dhrd_plugin.checkpoint import HeadKind
from dhrd_plugin.errors import DHRDError

# The paper's 2e-4 is for backbones of 3 to 8 billion parameters and leaves small ones untrained
# after the same few epochs; measured in README, "Results".
SMALL_BACKBONE_PARAMETERS = 1_000_000_000
SMALL_BACKBONE_LR = 1e-3
PAPER_LR = 2e-4


@dataclass(frozen=True)
class DistillConfig:
    """Settings of `dhrd-distill`; defaults are the paper's where it names them.

    Attributes:
        tasks: harness task names; each gets a head.
        rationales: JSONL files of rationales; may be empty with alpha 0.
        backbone: alias, hub id or folder.
        output: folder of the student.
        alpha, beta: weights of the reasoning and the classification loss.
        head: "mlp" (paper) or "linear".
        full: train all weights instead of a LoRA adapter.
        lora_dropout: dropout on the adapters' inputs.
        epochs: passes over the training rows.
        max_steps: optimizer steps at most, None for as many as the epochs have.
        batch_size: decisions per forward and process.
        grad_accum: forwards per optimizer step.
        lr: peak learning rate, None for the default by backbone size.
        warmup_steps: optimizer steps of linear warm-up before the cosine decay.
        weight_decay, max_grad_norm: of AdamW, and the gradient norm clipped to.
        dtype: computing precision, "auto" (bfloat16 where the hardware has it, else float32),
            "float32" or "bfloat16".
        max_length: tokens per row, input and rationale together.
        dev_rows: rows of the training split kept for choosing the checkpoint, per task; None for
            a tenth of them, at most 200.
        save_steps: optimizer steps between checkpoints to resume from; None for one per epoch.
        seed: of initial heads, dropout, data order and the choice of dev rows.
        resume: says that continuing is meant; an unfinished run in `output` is continued anyway.
        include_path: folder of the user's own task YAML files.
    """

    tasks: tuple[str, ...] = ("scenes",)
    rationales: tuple[Path, ...] = (Path("rationales.jsonl"),)
    backbone: str = "smollm2"
    output: Path = Path("dhrd-student")
    alpha: float = 1.0
    beta: float = 1.0
    head: HeadKind = "mlp"
    full: bool = False
    lora_dropout: float = 0.1
    epochs: int = 3
    max_steps: int | None = None
    batch_size: int = 8
    grad_accum: int = 1
    lr: float | None = None
    warmup_steps: int = 5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dtype: str = "auto"
    max_length: int = 1024
    dev_rows: int | None = None
    save_steps: int | None = None
    seed: int = 0
    resume: bool = False
    include_path: str | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise DHRDError("--task names no task. Give at least one, such as --task scenes.")
        weights = self.alpha + self.beta
        if not (self.alpha >= 0 and self.beta >= 0 and 0 < weights < math.inf):
            raise DHRDError(
                f"--alpha {self.alpha:g} --beta {self.beta:g}: both are weights ≥ 0, and one must "
                "be above 0 for there to be a loss."
            )
        if self.alpha > 0 and not self.rationales:
            raise DHRDError(
                f"--alpha {self.alpha:g} needs --rationales FILE to learn reasoning from. For the "
                "pooled baseline give --alpha 0."
            )
        for flag, value in (
            ("--epochs", self.epochs),
            ("--batch-size", self.batch_size),
            ("--grad-accum", self.grad_accum),
            ("--max-steps", self.max_steps),
            ("--save-steps", self.save_steps),
            ("--dev-rows", self.dev_rows),
        ):
            if value is not None and value < 1:
                raise DHRDError(f"{flag} {value}: need a whole number of at least 1.")
        for flag, number in (
            ("--warmup-steps", self.warmup_steps),
            ("--weight-decay", self.weight_decay),
        ):
            if not 0 <= number < math.inf:
                raise DHRDError(f"{flag} {number:g}: need a number of at least 0.")
        if not self.max_grad_norm > 0:
            raise DHRDError(f"--max-grad-norm {self.max_grad_norm:g}: need a number above 0.")
        if not 0 <= self.lora_dropout < 1:
            raise DHRDError(f"--lora-dropout {self.lora_dropout:g}: need a share in [0, 1).")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise DHRDError(f"--lr {self.lr:g}: need a learning rate above 0.")
        if not 0 <= self.seed < 2**32:
            raise DHRDError(f"--seed {self.seed}: need a whole number from 0 to 2^32 - 1.")
        if self.max_length < 16:
            raise DHRDError(f"--max-length {self.max_length}: need at least 16 tokens per row.")
        if len(set(self.tasks)) != len(self.tasks):
            raise DHRDError(f"--task {','.join(self.tasks)}: a task is named twice.")

    def learning_rate(self, n_parameters: int) -> float:
        """`lr`, or the default for a backbone of `n_parameters`."""
        if self.lr is not None:
            return self.lr
        return SMALL_BACKBONE_LR if n_parameters < SMALL_BACKBONE_PARAMETERS else PAPER_LR

    def settings(self, **resolved: Any) -> dict[str, Any]:
        """What decides which student comes out: only a run with the same may be continued.

        Args:
            resolved: values known once data and backbone are loaded, which stand in for defaults
                such as "auto" or None.
        """
        # Where files lie and how often a checkpoint is written change nothing; what the files hold
        # is in `resolved`, as a hash.
        apart = {"output", "rationales", "include_path", "save_steps", "resume"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        return values | {"tasks": list(self.tasks)} | resolved

    @property
    def setting(self) -> str:
        """What a report calls students trained like this, whatever their seed."""
        if self.alpha == 0:
            return "pooled (α=0)"
        return f"DHRD (α={self.alpha:g} β={self.beta:g})"
