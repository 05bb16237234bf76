"""A training step of the dual-head student against the naive way, and what is lost to padding.

    python tests/benchmarks/training.py [--dtype bfloat16] [--only speed memory cost padding]

- speed: tokens per second of a whole step (forward, backward, AdamW) of L_cls + L_reason. The
  dual-head side runs the trunk once over input and rationale; the naive side runs the input alone
  for the classification head and the whole sequence for the LM's own `labels=` loss, with logits
  for every position and word. Model, batch and both losses are the same, and so are the tokens
  counted: those of the sequences, once. The sides take turns in this process; ratio of medians.
- memory: the most memory in use during one such step above what was in use before it (model,
  optimizer state), after a tiny first step; each side in a process of its own. Allocated by torch
  on CUDA; resident on CPU (Linux), where the kernel's high-water mark is reset before the step.
- cost: the same sequences with and without the reasoning loss, in turn in this process.
- padding: share of the trunk's positions that are padding in an epoch on `scenes` with its
  rationales. Computed, nothing is trained.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor

from dhrd_plugin.backbones import load_causal_lm, load_tokenizer
from dhrd_plugin.batching import Batch, EncodedDecision, Encoder, batches_by_length, collate
from dhrd_plugin.bench.memory import PeakMemory
from dhrd_plugin.modeling import DualHeadModel, length_groups
from distill.data import load_training_data
from distill.losses import label_cross_entropy, token_cross_entropy
from distill.sampling import group_by_length

RATIONALES = Path(__file__).parents[2] / "tasks" / "scenes" / "rationales.jsonl"
PARTS = ("speed", "memory", "cost", "padding")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Side = Callable[[DualHeadModel, Batch], Tensor]  # the loss of a batch


def dual_head(model: DualHeadModel, batch: Batch) -> Tensor:
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pool_index=batch.pool_index,
        head_index=batch.head_index,
        targets=batch.targets,
        token_loss=token_cross_entropy,
    )
    return label_cross_entropy(output.logits, batch.gold).mean() + output.token_losses.mean()


def naive(model: DualHeadModel, batch: Batch) -> Tensor:
    longest_input = int(batch.pool_index.max()) + 1
    without_rationale = {
        "input_ids": batch.input_ids[:, :longest_input],
        "attention_mask": batch.attention_mask[:, :longest_input],
    }
    hidden = model.trunk(**without_rationale, use_cache=False).last_hidden_state
    pooled = hidden[torch.arange(len(hidden)), batch.pool_index]
    logits = model.classify(pooled, batch.head_index)
    reason = model.lm(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        labels=batch.input_ids,  # rows of equal length: nothing to mask
        use_cache=False,
    ).loss
    return label_cross_entropy(logits, batch.gold).mean() + reason


def classification_only(model: DualHeadModel, batch: Batch) -> Tensor:
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pool_index=batch.pool_index,
        head_index=batch.head_index,
    )
    return label_cross_entropy(output.logits, batch.gold).mean()


class Training:
    """A LoRA student as `dhrd-distill` makes it (without dropout), its optimizer, random rows."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.dtype = getattr(torch, args.dtype)
        lm = load_causal_lm(args.backbone, dtype=self.dtype)
        self.vocab_size = lm.config.vocab_size
        lora = LoraConfig(
            task_type="CAUSAL_LM", target_modules="all-linear", r=16, lora_alpha=32, bias="none"
        )
        torch.manual_seed(0)
        self.model = DualHeadModel(
            get_peft_model(lm, lora), head_kind="mlp", n_outputs={"random": 2}
        ).to(DEVICE)
        self.model.train()
        self.optimizer = torch.optim.AdamW(p for p in self.model.parameters() if p.requires_grad)

    def batch(self, rows: int, input_tokens: int, rationale_tokens: int) -> Batch:
        """Random tokens and labels, all rows of one length."""
        tokens = torch.randint(self.vocab_size, (rows, input_tokens + rationale_tokens)).tolist()
        decisions = [
            EncodedDecision(
                inputs=(ids[:input_tokens],),
                head=0,
                n_choices=2,
                gold=frozenset({row % 2}),
                suffix=ids[input_tokens:],
            )
            for row, ids in enumerate(tokens)
        ]
        return collate(decisions, pad_token_id=0).to(DEVICE)

    def loss(self, side: Side, batch: Batch) -> Tensor:
        with torch.autocast(DEVICE.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return side(self.model, batch)

    def step(self, side: Side, batch: Batch) -> None:
        self.loss(side, batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def median_seconds(self, sides: Sequence[Side], batch: Batch, repeats: int) -> list[float]:
        """Median time of a step of each side; they take turns."""
        seconds: list[list[float]] = [[] for _ in sides]
        for repeat in range(repeats + 1):  # the first is a warm-up
            for side, values in zip(sides, seconds, strict=True):
                started = time.perf_counter()
                self.step(side, batch)
                if DEVICE.type == "cuda":
                    torch.cuda.synchronize()
                if repeat:
                    values.append(time.perf_counter() - started)
        for side, values in zip(sides, seconds, strict=True):
            rates = [batch.attention_mask.numel() / value for value in values]
            print(
                f"  {side.__name__:20} {statistics.median(rates):9.1f} tokens/s "
                f"({min(rates):.1f} to {max(rates):.1f})"
            )
        return [statistics.median(values) for values in seconds]


def step_memory(side: Side, args: argparse.Namespace) -> int:
    """Bytes that one step needs at its peak, above what is in use before it."""
    training = Training(args)
    training.step(side, training.batch(1, 8, 8))  # optimizer state, libraries' buffers
    batch = training.batch(args.batch_size, args.input_tokens, args.rationale_tokens)
    memory = PeakMemory(DEVICE)
    before = memory.read()
    training.step(side, batch)
    after = memory.read()
    assert before is not None and after is not None, "needs CUDA or Linux"
    return after - before


def scenes_rows(backbone: str) -> list[EncodedDecision]:
    """The training rows of `scenes` with their rationales, in the random order of an epoch."""
    data = load_training_data(("scenes",), (RATIONALES,), dev_rows=None, seed=0)
    encoder = Encoder(load_tokenizer(backbone), list(data.heads), max_length=1024)
    rows = [encoder.encode(d, data.rationales.get(d.id)) for d in data.train]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[i] for i in order]


def padded_share(rows: Sequence[EncodedDecision], *, batch_size: int, window: int) -> float:
    """Padding among the positions that the trunk computes, with `window` rows to an optimizer step.

    The trainer batches the rows of a step by length; the model cuts short rows of a batch shorter.
    """
    useful = computed = 0
    for start in range(0, len(rows), window):
        step = rows[start : start + window]
        for indices in batches_by_length([row.length for row in step], batch_size):
            batch = collate([step[i] for i in indices], pad_token_id=0)
            lengths = batch.attention_mask.sum(dim=1).tolist()
            useful += sum(lengths)
            computed += sum(len(group) * length for group, length in length_groups(lengths))
    return 1 - useful / computed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--batch-size", type=int, default=16, help="rows per step")
    parser.add_argument("--input-tokens", type=int, default=96)
    parser.add_argument("--rationale-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5, help="steps per side, after a warm-up")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    args = parser.parse_args()

    hardware = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.processor()
    print(
        f"{args.backbone}, {args.dtype}, {args.batch_size} rows of {args.input_tokens} + "
        f"{args.rationale_tokens} tokens, {hardware or platform.machine()}, "
        f"{os.cpu_count()} CPUs, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )
    if "memory" in args.only:
        used = []
        for side in (dual_head, naive):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh_process:
                used.append(fresh_process.submit(step_memory, side, args).result())
            print(f"  {side.__name__:20} {used[-1] / 2**20:9.1f} MiB above the resting size")
        print(f"memory, dual_head / naive: {used[0] / used[1]:.3f}")
    if "speed" in args.only or "cost" in args.only:
        training = Training(args)
        batch = training.batch(args.batch_size, args.input_tokens, args.rationale_tokens)
    if "speed" in args.only:
        sides = (dual_head, naive)
        with torch.no_grad():
            losses = [training.loss(side, batch).item() for side in sides]
        print(f"  loss at the start: dual_head {losses[0]:.4f}, naive {losses[1]:.4f}")
        ours, theirs = training.median_seconds(sides, batch, args.repeats)
        print(f"speed, dual_head / naive: {theirs / ours:.3f}")
    if "cost" in args.only:
        sides = (dual_head, classification_only)
        both, alone = training.median_seconds(sides, batch, args.repeats)
        print(f"time, with / without the reasoning loss: {both / alone:.3f}")
    if "padding" in args.only:
        rows = scenes_rows(args.backbone)
        lengths = [row.length for row in rows]
        order = group_by_length(range(len(rows)), lengths, window=8, seed=0, epoch=0)
        for name, ordered, window in (
            ("steps of 8 rows", rows, 8),
            ("steps of 8 rows, --group-by-length", [rows[i] for i in order], 8),
            ("steps of 64 rows", rows, 64),
        ):
            share = padded_share(ordered, batch_size=8, window=window)
            print(f"padding on scenes, batches of 8, {name}: {share:.2%}")


if __name__ == "__main__":
    main()
