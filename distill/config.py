"""All settings of a training run, checked where they meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dhrd_plugin.checkpoint import HeadKind, LMSpan
from dhrd_plugin.errors import DHRDError
from distill.schedules import alpha_at

# The paper's values are for backbones of 3 to 8 billion parameters. On small ones its learning rate
# leaves the student untrained after the same few epochs, and its weight of the reasoning loss slows
# the start of the classification head; measured in README, "Results".
SMALL_BACKBONE_PARAMETERS = 1_000_000_000
SMALL_BACKBONE_LR, PAPER_LR = 1e-3, 2e-4
SMALL_BACKBONE_ALPHA, PAPER_ALPHA = 0.1, 1.0

ALL_LINEAR = "all-linear"  # PEFT's name for every linear layer but the LM head


@dataclass(frozen=True)
class DistillConfig:
    """Settings of one training run; defaults are the paper's where it names them.

    Attributes:
        tasks: harness task names; each gets a head.
        rationales: JSONL files of rationales; may be empty with alpha 0.
        backbone: alias, hub id or folder.
        output: folder of the student.
        alpha, beta: weights of the reasoning and the classification loss; alpha None for the
            default by backbone size.
        alpha_schedule: how alpha goes to `alpha_end` over the optimizer steps: "constant" (not at
            all), "linear", "cosine", or "step" (at half the steps).
        alpha_end: where it goes.
        lm_span: tokens that losses on the reasoning head count: "full" (the paper: input, rationale
            and answer) or "rationale" (rationale and answer).
        kd_temperature: T of the soft targets; None for no soft targets.
        kd_weight: γ, their weight; the loss multiplies it by T².
        kd_target: "label" (the records' `label_probs` on the classification head), "token" (the
            distributions of `kd_teacher` on the reasoning head) or "both"; None for what the
            inputs allow.
        kd_teacher: alias, hub id or folder of a causal LM with the backbone's vocabulary.
        kd_divergence: between token distributions: "forward" or "reverse" KL, or "jsd".
        control: what is done to the rationales to see whether they matter; None for nothing.
        head: "mlp" (paper) or "linear".
        full: train all weights instead of a LoRA adapter.
        qlora: hold the frozen backbone in 4 bits (needs bitsandbytes).
        lora_target: modules that get an adapter: "all-linear", or names.
        lora_dropout: dropout on the adapters' inputs.
        gradient_checkpointing: recompute the trunk in the backward pass: less memory, more time.
        epochs: passes over the training rows.
        max_steps: optimizer steps at most, None for as many as the epochs have.
        batch_size: decisions per forward and process.
        grad_accum: forwards per optimizer step.
        task_sampling: how often the rows of each task are drawn: "proportional" (every row once an
            epoch), "temperature" (by size^(1 / sampling_temperature)) or "uniform".
        sampling_temperature: see above.
        group_by_length: put rows of like length into one optimizer step: less padding, less mixing.
        lr: peak learning rate, None for the default by backbone size.
        warmup_steps: optimizer steps of linear warm-up before the cosine decay.
        weight_decay, max_grad_norm: of AdamW, and the gradient norm clipped to.
        dtype: computing precision, "auto" (bfloat16 where the hardware has it, else float32),
            "float32", "bfloat16" or "float16" (GPU only).
        max_length: tokens per row, input and rationale together.
        dev_rows: rows of the training split kept for choosing the checkpoint, per task; None for
            a tenth of them, at most 200.
        eval_steps: optimizer steps between looks at the dev rows; None for one per epoch.
        patience: looks without a better result after which training stops; None for never.
        save_steps: optimizer steps between checkpoints to resume from; None for one per epoch.
        seed: of initial heads, dropout, data order and the choice of dev rows.
        resume: says that continuing is meant; an unfinished run in `output` is continued anyway.
        include_path: folder of the user's own task YAML files.
        loss_trace: log the norm of the gradient that each loss sends into the trunk.
        trackers: experiment trackers that also get the log, by accelerate's names.
    """

    tasks: tuple[str, ...] = ("scenes",)
    rationales: tuple[Path, ...] = (Path("rationales.jsonl"),)
    backbone: str = "smollm2"
    output: Path = Path("dhrd-student")
    alpha: float | None = None
    beta: float = 1.0
    alpha_schedule: str = "constant"
    alpha_end: float = 0.0
    lm_span: LMSpan = "full"
    kd_temperature: float | None = None
    kd_weight: float = 1.0
    kd_target: str | None = None
    kd_teacher: str | None = None
    kd_divergence: str = "forward"
    control: str | None = None
    head: HeadKind = "mlp"
    full: bool = False
    qlora: bool = False
    lora_target: tuple[str, ...] = (ALL_LINEAR,)
    lora_dropout: float = 0.1
    gradient_checkpointing: bool = False
    epochs: int = 3
    max_steps: int | None = None
    batch_size: int = 8
    grad_accum: int = 1
    task_sampling: str = "proportional"
    sampling_temperature: float = 2.0
    group_by_length: bool = False
    lr: float | None = None
    warmup_steps: int = 5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    dtype: str = "auto"
    max_length: int = 1024
    dev_rows: int | None = None
    eval_steps: int | None = None
    patience: int | None = None
    save_steps: int | None = None
    seed: int = 0
    resume: bool = False
    include_path: str | None = None
    loss_trace: bool = False
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_tasks_and_losses()
        self._check_combinations()
        self._check_numbers()

    def _check_tasks_and_losses(self) -> None:
        if not self.tasks:
            raise DHRDError("--task names no task. Give at least one, such as --task scenes.")
        if len(set(self.tasks)) != len(self.tasks):
            raise DHRDError(f"--task {','.join(self.tasks)}: a task is named twice.")
        alpha = PAPER_ALPHA if self.alpha is None else self.alpha
        weights = alpha + self.beta
        some_loss = weights > 0 or self.kd_temperature is not None
        if not (alpha >= 0 and self.beta >= 0 and some_loss and weights < math.inf):
            raise DHRDError(
                f"--alpha {alpha:g} --beta {self.beta:g}: both are weights ≥ 0, and one must "
                "be above 0 for there to be a loss."
            )
        if not 0 <= self.alpha_end < math.inf:
            raise DHRDError(f"--alpha-end {self.alpha_end:g}: need a weight of at least 0.")
        if self.has_reasoning and not self.rationales:
            raise DHRDError(
                "The reasoning loss needs --rationales FILE to learn from. For the pooled baseline "
                "give --alpha 0."
            )
        if self.kd_temperature is not None and not 0 < self.kd_temperature < math.inf:
            raise DHRDError(f"--kd-temperature {self.kd_temperature:g}: need a number above 0.")
        if not 0 < self.kd_weight < math.inf:
            raise DHRDError(f"--kd-weight {self.kd_weight:g}: need a weight above 0.")
        if self.kd_target in ("token", "both") and self.kd_teacher is None:
            raise DHRDError(
                f"--kd-target {self.kd_target} needs --kd-teacher MODEL, a causal LM with the "
                "backbone's vocabulary."
            )
        if self.kd_target == "label" and self.kd_teacher is not None:
            raise DHRDError(
                "--kd-target label does not use --kd-teacher: leave one of them out, or give "
                "--kd-target both."
            )

    def _check_combinations(self) -> None:
        """A flag that would change nothing is refused: the run would not be what it says."""
        has_kd = self.kd_temperature is not None
        tokens = self.has_reasoning or self.kd_teacher is not None
        for name, has_effect, needed in (
            ("alpha_end", self.alpha_schedule != "constant", "--alpha-schedule"),
            ("lm_span", tokens, "an --alpha above 0"),
            ("control", tokens, "an --alpha above 0: the rationales are not read"),
            ("kd_weight", has_kd, "--kd-temperature"),
            ("kd_target", has_kd, "--kd-temperature"),
            ("kd_teacher", has_kd, "--kd-temperature"),
            ("kd_divergence", self.kd_teacher is not None, "--kd-teacher"),
            ("sampling_temperature", self.task_sampling == "temperature", "--task-sampling"),
            ("lora_target", not self.full, "an adapter, which --full replaces"),
            ("lora_dropout", not self.full, "an adapter, which --full replaces"),
        ):
            if not has_effect and getattr(self, name) != getattr(DistillConfig, name):
                flag = "--" + name.replace("_", "-")
                raise DHRDError(
                    f"{flag} has no effect without {needed}. Leave {flag} out, or add it."
                )

    def _check_numbers(self) -> None:
        if self.full and self.qlora:
            raise DHRDError(
                "--full trains the weights that --qlora freezes: leave one of them out."
            )
        for flag, value in (
            ("--epochs", self.epochs),
            ("--batch-size", self.batch_size),
            ("--grad-accum", self.grad_accum),
            ("--max-steps", self.max_steps),
            ("--eval-steps", self.eval_steps),
            ("--patience", self.patience),
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
        if not 0 < self.sampling_temperature < math.inf:
            raise DHRDError(
                f"--sampling-temperature {self.sampling_temperature:g}: need a number above 0."
            )
        if not 0 <= self.lora_dropout < 1:
            raise DHRDError(f"--lora-dropout {self.lora_dropout:g}: need a share in [0, 1).")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise DHRDError(f"--lr {self.lr:g}: need a learning rate above 0.")
        if not 0 <= self.seed < 2**32:
            raise DHRDError(f"--seed {self.seed}: need a whole number from 0 to 2^32 - 1.")
        if self.max_length < 16:
            raise DHRDError(f"--max-length {self.max_length}: need at least 16 tokens per row.")

    def for_backbone(self, n_parameters: int) -> DistillConfig:
        """The same with the defaults of `alpha` and `lr` for a backbone of that size filled in."""
        small = n_parameters < SMALL_BACKBONE_PARAMETERS
        lr, alpha = self.lr, self.alpha
        if lr is None:
            lr = SMALL_BACKBONE_LR if small else PAPER_LR
        if alpha is None:
            alpha = SMALL_BACKBONE_ALPHA if small else PAPER_ALPHA
        return replace(self, lr=lr, alpha=alpha)

    @property
    def reasoning_weight(self) -> float:
        """`alpha`, of settings that `for_backbone` has completed."""
        if self.alpha is None:
            raise ValueError("alpha depends on the backbone: call for_backbone first")
        return self.alpha

    @property
    def has_reasoning(self) -> bool:
        """Whether the reasoning loss has a weight at some step."""
        return self.alpha != 0 or (self.alpha_schedule != "constant" and self.alpha_end > 0)

    def settings(self, **resolved: Any) -> dict[str, Any]:
        """What decides which student comes out: only a run with the same may be continued.

        Args:
            resolved: values known once data and backbone are loaded, which stand in for defaults
                such as "auto" or None.
        """
        # Where files lie, how often a checkpoint is written, what is logged and what is computed
        # twice to save memory change nothing; what the files hold is in `resolved`, as a hash.
        apart = {"output", "rationales", "include_path", "save_steps", "resume"}
        apart |= {"loss_trace", "trackers", "gradient_checkpointing"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        return values | {key: list(values[key]) for key in ("tasks", "lora_target")} | resolved

    def alpha_at(self, step: int, total_steps: int) -> float:
        """Weight of the reasoning loss at optimizer step `step` of 1 … `total_steps`."""
        return alpha_at(
            step,
            total_steps,
            schedule=self.alpha_schedule,
            alpha=self.reasoning_weight,
            alpha_end=self.alpha_end,
        )

    def setting(self, kd: tuple[str, ...] = ()) -> str:
        """What a report calls students trained like this, whatever their seed.

        Args:
            kd: terms of soft targets that are in the loss.
        """
        alpha = f"α={self.reasoning_weight:g}"
        if self.alpha_schedule != "constant":
            alpha += f"→{self.alpha_end:g} {self.alpha_schedule}"
        parts = [f"{alpha} β={self.beta:g}" if self.has_reasoning else alpha]
        if self.lm_span != "full":
            parts.append(f"{self.lm_span} span")
        if self.control is not None:
            parts.append(self.control)
        if kd:
            targets = "+".join(term.removeprefix("kd_") for term in kd)
            parts.append(f"{targets} KD γ={self.kd_weight:g} T={self.kd_temperature:g}")
            if "kd_token" in kd and self.kd_divergence != "forward":
                parts.append(self.kd_divergence)
        learns_to_reason = self.has_reasoning or "kd_token" in kd
        return f"{'DHRD' if learns_to_reason else 'pooled'} ({', '.join(parts)})"
