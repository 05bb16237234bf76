"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import get_cosine_schedule_with_warmup

from dhrd_plugin.backbones import load_causal_lm, load_tokenizer, portable_name
from dhrd_plugin.batching import (
    NO_TARGET,
    Batch,
    EncodedDecision,
    Encoder,
    batches_by_length,
    collate,
)
from dhrd_plugin.checkpoint import StudentConfig, save_student
from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from dhrd_plugin.modeling import DualHeadModel, check_backbone
from distill.config import DistillConfig
from distill.data import TrainingData, load_training_data
from distill.dev import evaluate, is_better
from distill.losses import label_cross_entropy, token_cross_entropy
from distill.model_card import write_model_card
from distill.state import (
    Checkpoints,
    TrainLog,
    finished_student,
    load_trainable_state,
    trainable_state,
)

LORA_RANK, LORA_ALPHA = 16, 32  # the paper's


@dataclass(frozen=True)
class Progress:
    """What the loop reports while it runs; the command line turns it into a display."""

    step: int
    total_steps: int
    losses: dict[str, float]
    tokens_per_second: float
    dev: dict[str, float] | None


def train(
    config: DistillConfig, report: Callable[[Progress], None] = lambda _: None
) -> StudentConfig:
    """Train a dual-head student and save the checkpoint with the best dev result.

    An interrupted run in the same output folder is continued; a finished one is returned as it is.

    Raises:
        DHRDError: wrong input, a run with other settings in the output folder, or a loss that is
            no longer finite (the rows are named).
    """
    data = load_training_data(
        config.tasks,
        config.rationales,
        dev_rows=config.dev_rows,
        seed=config.seed,
        include_path=config.include_path,
    )
    dtype = resolve_dtype(config.dtype)
    accelerator = Accelerator(mixed_precision="bf16" if dtype == torch.bfloat16 else "no")
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.backbone)
    model, lr = build_student(config, data, len(tokenizer), dtype)
    encoder = Encoder(tokenizer, list(data.heads), config.max_length)
    rows = encode_rows(encoder, data, with_rationales=config.alpha > 0)
    dev_rows = [encoder.encode(decision) for decision in data.dev]

    settings = config.settings(
        lr=lr,
        dtype=str(dtype).removeprefix("torch."),
        dev_rows=len(dev_rows),
        data=data.sha,
        processes=accelerator.num_processes,
    )
    finished = finished_student(config.output, settings)
    if finished is not None:
        return finished

    window = config.batch_size * config.grad_accum * accelerator.num_processes
    steps_per_epoch = -(-len(rows) // window)
    total_steps = config.epochs * steps_per_epoch
    if config.max_steps is not None:
        total_steps = min(total_steps, config.max_steps)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=lr,
        weight_decay=config.weight_decay,
    )
    # The learning rate is a function of the step alone: resuming sets it, nothing is stored.
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, total_steps)
    prepared, optimizer = accelerator.prepare(model, optimizer)

    best, best_result, first_step, seconds_before = trainable_state(model), None, 0, 0.0
    checkpoints = Checkpoints(config.output)
    restored = checkpoints.load(model=model, optimizer=optimizer)
    if restored is not None:
        best, saved = restored
        first_step, best_result = saved["step"], saved["best_result"]
        seconds_before = saved["seconds"]
    main = accelerator.is_main_process
    log = TrainLog(config.output, first_step) if main else None
    started = time.monotonic()

    for step in range(first_step + 1, total_steps + 1):
        epoch, position = divmod(step - 1, steps_per_epoch)
        order = epoch_order(len(rows), config.seed, epoch)
        chosen = order[position * window : (position + 1) * window]
        for group, rate in zip(optimizer.param_groups, _rates(schedule, step), strict=True):
            group["lr"] = rate
        step_started = time.monotonic()
        losses, n_tokens = train_step(
            prepared,
            [rows[i] for i in chosen],
            accelerator=accelerator,
            optimizer=optimizer,
            alpha=config.alpha,
            beta=config.beta,
            batch_size=config.batch_size,
            max_grad_norm=config.max_grad_norm,
            pad_token_id=tokenizer.pad_token_id,
        )
        if not all(map(math.isfinite, losses.values())):
            ids = ", ".join(data.train[i].id for i in chosen[:4])
            raise DHRDError(
                f"The loss of step {step} is not finite ({losses}), on rows {ids}, …\n"
                "The last good checkpoint is kept. Lower --lr, or use --dtype float32.",
                exit_code=EXIT_FAILED,
            )
        dev = None
        if step % steps_per_epoch == 0 or step == total_steps:
            dev = evaluate(model, dev_rows, config.batch_size, tokenizer.pad_token_id, dtype)
            if best_result is None or is_better(dev, best_result):
                best, best_result = trainable_state(model), {**dev, "step": step}
        seconds = time.monotonic() - step_started
        if log is not None:
            entry: dict[str, Any] = {"step": step, "epoch": step / steps_per_epoch}
            entry |= {"lr": optimizer.param_groups[0]["lr"], **losses, "tokens": n_tokens}
            log.write(entry | {"seconds": round(seconds, 4)} | ({"dev": dev} if dev else {}))
        if main and step % (config.save_steps or steps_per_epoch) == 0 and step < total_steps:
            checkpoints.save(
                step,
                model=model,
                optimizer=optimizer,
                best=best,
                progress={
                    "settings": settings,
                    "best_result": best_result,
                    "seconds": seconds_before + time.monotonic() - started,
                },
            )
        report(Progress(step, total_steps, losses, n_tokens / max(seconds, 1e-9), dev))

    load_trainable_state(model, best)
    training = {
        "setting": config.setting,
        **settings,
        "steps": total_steps,
        "train_rows": len(rows),
        "train_rows_with_rationale": sum(bool(row.suffix) for row in rows),
        "dev": best_result,
        "wall_seconds": round(seconds_before + time.monotonic() - started, 1),
    }
    student = StudentConfig(
        base_model=portable_name(config.backbone),
        adapter=not config.full,
        head=config.head,
        dtype=settings["dtype"],
        max_length=config.max_length,
        tasks=data.heads,
        training=training,
    )
    accelerator.wait_for_everyone()
    if main:
        student = save_student(config.output, model, tokenizer, student)
        write_model_card(config.output, student)
        checkpoints.remove()
    return student


def build_student(
    config: DistillConfig, data: TrainingData, vocab_size: int, dtype: torch.dtype
) -> tuple[DualHeadModel, float]:
    """The untrained student and its learning rate.

    With LoRA the frozen backbone is held in `dtype` and the adapter in float32; with --full the
    weights that train are float32 and `dtype` is reached by autocast.

    Raises:
        DHRDError: a backbone that cannot be split, or with too few positions for --max-length.
    """
    lm = load_causal_lm(config.backbone, dtype=torch.float32 if config.full else dtype)
    check_backbone(lm, vocab_size)
    positions = getattr(lm.config, "max_position_embeddings", None)
    if positions is not None and config.max_length > positions:
        raise DHRDError(
            f"--max-length {config.max_length}: backbone {config.backbone} has positions for "
            f"{positions} tokens. Give --max-length {positions} or less."
        )
    lm_head = lm.get_output_embeddings()
    if config.alpha == 0 and lm_head.weight is not lm.get_input_embeddings().weight:
        lm_head.requires_grad_(False)  # nothing would train it, which stops distributed training
    lr = config.learning_rate(sum(p.numel() for p in lm.parameters()))
    if not config.full:
        from peft import LoraConfig, get_peft_model

        # PEFT's name for every linear layer but the LM head: families name their projections
        # differently, and on Llama it is the paper's list of seven.
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            target_modules="all-linear",
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,
            lora_dropout=config.lora_dropout,
            bias="none",
        )
        lm = get_peft_model(lm, lora)
    n_outputs = {task: head.n_outputs for task, head in data.heads.items()}
    return DualHeadModel(lm, head_kind=config.head, n_outputs=n_outputs), lr


def encode_rows(
    encoder: Encoder, data: TrainingData, *, with_rationales: bool
) -> list[EncodedDecision]:
    """Training rows; one without a rationale still trains the classification head."""
    rationales = data.rationales if with_rationales else {}
    return [encoder.encode(decision, rationales.get(decision.id)) for decision in data.train]


def epoch_order(n_rows: int, seed: int, epoch: int) -> list[int]:
    """The row order of an epoch, a function of seed and epoch alone, so that resuming finds it."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(n_rows, generator=generator).tolist()


def train_step(
    model: torch.nn.Module,
    rows: Sequence[EncodedDecision],
    *,
    accelerator: Accelerator,
    optimizer: torch.optim.Optimizer,
    alpha: float,
    beta: float,
    batch_size: int,
    max_grad_norm: float,
    pad_token_id: int,
) -> tuple[dict[str, float], int]:
    """One optimizer step over `rows` (all processes' rows); (losses, tokens read).

    The losses are reduced here and only here, with two denominators over the whole step: examples
    for L_cls, tokens with a target for L_reason. However the rows are cut into batches and spread
    over processes, the gradient is the same.
    """
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    idle = not mine  # a short last window: yet every process must take part in the exchange
    if idle:
        mine = [replace(rows[0], suffix=[])]
    batches = [
        collate([mine[i] for i in indices], pad_token_id).to(accelerator.device)
        for indices in batches_by_length([row.length for row in mine], batch_size)
    ]
    targets_here = torch.tensor(
        [sum(int((b.targets != NO_TARGET).sum()) for b in batches)], device=accelerator.device
    )
    n_targets = max(int(accelerator.reduce(targets_here, "sum").item()), 1)
    model.train()
    n_tokens = sum(int(b.attention_mask.sum()) for b in batches)
    sums = torch.tensor([0.0, 0.0, n_tokens], device=accelerator.device)
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            with accelerator.autocast():
                cls, reason = batch_losses(model, batch, with_reasoning=alpha > 0)
            if idle:
                cls = 0 * cls
            loss = beta * cls.sum() / len(rows) + alpha * reason.sum() / n_targets
            # Distributed training averages gradients over processes; ours are sums already.
            accelerator.backward(loss * accelerator.num_processes)
        sums[:2] += torch.stack([cls.detach().sum(), reason.detach().sum()])
    accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    cls_sum, reason_sum, n_read = accelerator.reduce(sums, "sum").tolist()
    losses = {"loss_cls": cls_sum / len(rows), "loss_reason": reason_sum / n_targets}
    losses["loss"] = beta * losses["loss_cls"] + alpha * losses["loss_reason"]
    return losses, int(n_read)


def batch_losses(
    model: torch.nn.Module, batch: Batch, *, with_reasoning: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """L_cls per decision (D,) and L_reason per target token (N,), in nats, from one forward."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pool_index=batch.pool_index,
        head_index=batch.head_index,
        targets=batch.targets if with_reasoning else None,
        token_loss=token_cross_entropy if with_reasoning else None,
    )
    cls = label_cross_entropy(batch.decision_logits(output.logits), batch.gold)
    reason = output.token_losses if output.token_losses is not None else cls.new_zeros(0)
    return cls, reason


def resolve_dtype(name: str) -> torch.dtype:
    """ "auto" is bfloat16 where the GPU, or the CPU without one, computes in it, else float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # elsewhere bfloat16 is emulated, and slower than float32; older torch cannot tell
        cpu: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def _rates(schedule: Any, step: int) -> Iterator[float]:
    """Learning rates of optimizer step `step`, counted from 1."""
    for factor, base in zip(schedule.lr_lambdas, schedule.base_lrs, strict=True):
        yield base * factor(step)
