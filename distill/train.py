"""The one training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from transformers import get_cosine_schedule_with_warmup

from dhrd_plugin.backbones import load_tokenizer, portable_name
from dhrd_plugin.batching import EncodedDecision, Encoder
from dhrd_plugin.checkpoint import StudentConfig, save_student
from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from dhrd_plugin.scoring import score
from distill.config import DistillConfig
from distill.data import TrainingData, load_training_data
from distill.dev import DevSet, is_better
from distill.model_card import write_model_card
from distill.objective import build_objective, kd_terms
from distill.sampling import epoch_order, group_by_length
from distill.state import (
    Checkpoints,
    TrainLog,
    finished_student,
    load_trainable_state,
    trainable_state,
    writable,
)
from distill.step import StepResult, rows_not_finite, train_step
from distill.student import MIXED_PRECISION, build_student, load_backbone, resolve_dtype
from distill.trackers import check_trackers, finish_trackers, start_trackers

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


class NotFiniteError(DHRDError):
    """These settings train no student: a loss or its gradient is no longer finite."""


@dataclass(frozen=True)
class Progress:
    """What the loop reports while it runs; the command line turns it into a display."""

    setting: str
    step: int
    total_steps: int
    losses: dict[str, float]
    tokens_per_second: float
    dev: dict[str, Any] | None


def train(
    config: DistillConfig, report: Callable[[Progress], None] = lambda _: None
) -> StudentConfig:
    """Train a dual-head student and save the checkpoint with the best dev result.

    An interrupted run in the same output folder is continued; a finished one is returned as it is.

    Raises:
        DHRDError: wrong input, or a run with other settings in the output folder.
        NotFiniteError: a loss that is no longer finite (the rows are named).
    """
    check_trackers(config.trackers)
    data = load_training_data(
        config.tasks,
        config.rationales,
        dev_rows=config.dev_rows,
        seed=config.seed,
        include_path=config.include_path,
    )
    kd = kd_terms(config, data)
    data_sha, records_sha = data.sha, data.records_sha
    if config.control is not None:
        data = data.under_control(config.control, config.seed)
    dtype = resolve_dtype(config.dtype)
    accelerator = Accelerator(
        mixed_precision=MIXED_PRECISION[dtype],
        log_with=list(config.trackers) or None,
        project_dir=config.output,
    )
    if accelerator.distributed_type in SHARDED:
        raise DHRDError(
            f"{accelerator.distributed_type.value} shards the weights, which checkpoints and dev "
            "results do not support yet. Use plain data parallelism (`accelerate launch "
            "--multi_gpu …`), with --qlora or --gradient-checkpointing if memory is short."
        )
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.backbone)
    pad = tokenizer.pad_token_id
    lm = load_backbone(config, len(tokenizer), dtype)
    config = config.for_backbone(lm.num_parameters())  # those that 4-bit weights stand for
    assert config.lr is not None
    model = build_student(lm, config, data.heads)
    encoder = Encoder(tokenizer, list(data.heads), config.max_length, config.lm_span)
    rows = encode_rows(encoder, data, with_suffix=config.has_reasoning or "kd_token" in kd)
    dev = DevSet(data.tasks, [encoder.encode(decision) for decision in data.dev], data.dev_docs)

    settings = config.settings(
        dtype=str(dtype).removeprefix("torch."),
        dev_rows=len(dev.rows),
        data=data_sha,
        rationales=records_sha,
        kd_target=[term.removeprefix("kd_") for term in kd],
        processes=accelerator.num_processes,
    )
    finished = finished_student(config.output, settings)
    if finished is not None:
        if accelerator.is_main_process:
            Checkpoints(config.output).remove()  # of a run that was killed in its last moment
        return finished

    window = config.batch_size * config.grad_accum * accelerator.num_processes
    steps_per_epoch = -(-len(rows) // window)
    total_steps = config.epochs * steps_per_epoch
    if config.max_steps is not None:
        total_steps = min(total_steps, config.max_steps)
    eval_steps = config.eval_steps or steps_per_epoch
    save_steps = config.save_steps or steps_per_epoch
    objective = build_objective(config, kd, tokenizer, dtype=dtype, device=accelerator.device)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.lr,
        weight_decay=config.weight_decay,
    )
    # The learning rate is a function of the step alone: resuming sets it, nothing is stored.
    schedule = get_cosine_schedule_with_warmup(optimizer, config.warmup_steps, total_steps)
    prepared, optimizer = accelerator.prepare(model, optimizer)

    def dev_log_probs() -> list[list[float]]:
        return score(model, dev.rows, batch_size=config.batch_size, pad_token_id=pad, dtype=dtype)

    @lru_cache(maxsize=1)
    def order_of(epoch: int) -> list[int]:
        order = epoch_order(
            [row.head for row in rows],
            seed=config.seed,
            epoch=epoch,
            sampling=config.task_sampling,
            temperature=config.sampling_temperature,
        )
        if not config.group_by_length:
            return order
        lengths = [row.length for row in rows]
        return group_by_length(order, lengths, window=window, seed=config.seed, epoch=epoch)

    best, best_result, first_step, seconds_before = trainable_state(model), None, 0, 0.0
    unimproved = 0  # looks at the dev rows since the best one
    checkpoints = Checkpoints(config.output)
    restored = checkpoints.load(model=model, optimizer=optimizer)
    if restored is not None:
        best, saved = restored
        first_step, best_result = saved["step"], saved["best_result"]
        unimproved, seconds_before = saved["unimproved"], saved["seconds"]
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(saved["scaler"])
    main = accelerator.is_main_process
    log = TrainLog(config.output, first_step) if main else None
    setting = config.setting(kd)
    start_trackers(accelerator, config.output, {"setting": setting, **settings})
    started = time.monotonic()
    step = first_step

    while step < total_steps and (config.patience is None or unimproved < config.patience):
        step += 1
        epoch, position = divmod(step - 1, steps_per_epoch)
        chosen = order_of(epoch)[position * window : (position + 1) * window]
        for group, rate in zip(optimizer.param_groups, _rates(schedule, step), strict=True):
            group["lr"] = rate
        torch.manual_seed(step_seed(config.seed, step, accelerator.process_index))
        step_started = time.monotonic()
        step_objective = objective.with_alpha(config.alpha_at(step, total_steps))
        result = train_step(
            prepared,
            [rows[i] for i in chosen],
            accelerator=accelerator,
            optimizer=optimizer,
            objective=step_objective,
            batch_size=config.batch_size,
            max_grad_norm=config.max_grad_norm,
            pad_token_id=pad,
            trace=config.loss_trace,
        )
        if not result.finite:
            broken = rows_not_finite(
                model,
                [rows[i] for i in chosen],
                accelerator=accelerator,
                objective=step_objective,
                pad_token_id=pad,
            )
            suspects = [chosen[i] for i in broken] or chosen
            raise _not_finite(step, result, [data.train[i].id for i in suspects])
        seconds = time.monotonic() - step_started
        dev_result = None
        if step % eval_steps == 0 or step == total_steps:
            dev_result = dev.judge(dev_log_probs())
            unimproved += 1
            if best_result is None or is_better(dev_result, best_result):
                best, best_result = trainable_state(model), {**dev_result, "step": step}
                unimproved = 0
        entry: dict[str, Any] = {
            "step": step,
            "epoch": step / steps_per_epoch,
            "lr": optimizer.param_groups[0]["lr"],
            **{f"weight_{term}": weight for term, weight in step_objective.weights.items()},
            **result.losses,
            "grad_norm": result.grad_norm,
            "tokens": result.n_tokens,
            "seconds": round(seconds, 4),
        }
        if result.trunk_grad_norms is not None:
            entry |= {f"trunk_grad_norm_{t}": n for t, n in result.trunk_grad_norms.items()}
        accelerator.log(
            entry | ({f"dev_{k}": dev_result[k] for k in ("score", "nll")} if dev_result else {}),
            step=step,
        )
        if log is not None:
            log.write(entry | ({"dev": dev_result} if dev_result else {}))
        if main and step % save_steps == 0 and step < total_steps:
            checkpoints.save(
                step,
                model=model,
                optimizer=optimizer,
                best=best,
                progress={
                    "settings": settings,
                    "best_result": best_result,
                    "unimproved": unimproved,
                    "scaler": accelerator.scaler and accelerator.scaler.state_dict(),
                    "seconds": seconds_before + time.monotonic() - started,
                },
            )
        rate = result.n_tokens / max(seconds, 1e-9)
        report(Progress(setting, step, total_steps, result.losses, rate, dev_result))

    load_trainable_state(model, best)
    calibration = dev.calibrate(dev_log_probs())
    training = {
        "setting": setting,
        **settings,
        "steps": step,
        "train_rows": len(rows),
        "train_rows_with_rationale": sum(bool(row.suffix) for row in rows),
        "dev": best_result,
        "calibration": calibration,
        "wall_seconds": round(seconds_before + time.monotonic() - started, 1),
    }
    student = StudentConfig(
        base_model=portable_name(config.backbone),
        adapter=not config.full,
        quantized=config.qlora,
        head=config.head,
        dtype=settings["dtype"],
        max_length=config.max_length,
        tasks={
            task: replace(head, temperature=calibration[task]["temperature"])
            for task, head in data.heads.items()
        },
        training=training,
    )
    accelerator.wait_for_everyone()
    if main:
        with writable(config.output):
            student = save_student(config.output, model, tokenizer, student)
            write_model_card(config.output, student)
        checkpoints.remove()
    finish_trackers(accelerator)
    return student


def encode_rows(
    encoder: Encoder, data: TrainingData, *, with_suffix: bool
) -> Sequence[EncodedDecision]:
    """Training rows; one without a rationale still trains the classification head."""
    rationales = data.rationales if with_suffix else {}
    return [
        encoder.encode(decision, rationales.get(decision.id), data.label_probs.get(decision.id))
        for decision in data.train
    ]


def step_seed(seed: int, step: int, process: int) -> int:
    """Of a step's dropout: another one for each process, and the same after a resume."""
    return ((seed << 32 | step) << 16 | process) % (2**64)


def _not_finite(step: int, result: StepResult, ids: Sequence[str]) -> NotFiniteError:
    return NotFiniteError(
        f"Step {step} is not finite ({result.losses}, gradient norm {result.grad_norm:g}), on rows "
        f"{', '.join(ids[:4])}{', …' if len(ids) > 4 else ''}\n"
        "The last good checkpoint is kept. Lower --lr, or use --dtype float32.",
        exit_code=EXIT_FAILED,
    )


def _rates(schedule: Any, step: int) -> Iterator[float]:
    """Learning rates of optimizer step `step`, counted from 1."""
    for factor, base in zip(schedule.lr_lambdas, schedule.base_lrs, strict=True):
        yield base * factor(step)
