"""One optimizer step: the only place where losses are reduced."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from dhrd_plugin.batching import NO_TARGET, EncodedDecision, batches_by_length, collate
from dhrd_plugin.modeling import DualHeadModel
from distill.objective import PER_DECISION, PER_TOKEN, Objective


@dataclass(frozen=True)
class StepResult:
    """What a step was like, over all processes.

    Attributes:
        losses: "loss" and, by `loss_TERM`, its unweighted terms, in nats.
        grad_norm: of all gradients together, before clipping.
        trunk_grad_norms: of each weighted term alone, on the trunk's parameters; None if not asked
            for.
        n_tokens: tokens read.
        finite: whether losses and gradients were; otherwise no weight has changed.
    """

    losses: dict[str, float]
    grad_norm: float
    trunk_grad_norms: dict[str, float] | None
    n_tokens: int
    finite: bool


def train_step(
    model: torch.nn.Module,
    rows: Sequence[EncodedDecision],
    *,
    accelerator: Accelerator,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    batch_size: int,
    max_grad_norm: float,
    pad_token_id: int,
    trace: bool = False,
) -> StepResult:
    """One optimizer step over `rows` (all processes' rows).

    There are two denominators over the whole step: decisions, and tokens with a target. However the
    rows are cut into batches and spread over processes, the gradient is the same.

    Args:
        trace: also measure which gradient each term sends into the trunk, for a further backward
            pass per term.
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
    share = dict.fromkeys(PER_DECISION, 1 / len(rows)) | dict.fromkeys(PER_TOKEN, 1 / n_targets)

    model.train()
    terms = list(objective.weights)
    sums = torch.zeros(len(terms) + 1, device=accelerator.device)
    sums[-1] = sum(int(batch.attention_mask.sum()) for batch in batches)
    tracer = TrunkGradients(accelerator.unwrap_model(model), terms) if trace else None
    for index, batch in enumerate(batches):
        last = index == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            with accelerator.autocast():
                losses = objective.losses(model, batch)
            parts = {
                term: (0 if idle else objective.weights[term]) * share[term] * losses[term].sum()
                for term in terms
            }
            if tracer is not None:
                tracer.add(parts)
            # Distributed training averages gradients over processes; ours are sums already.
            accelerator.backward(sum(parts.values()) * accelerator.num_processes)
        if not idle:
            sums[:-1] += torch.stack([losses[term].detach().sum() for term in terms])
    grad_norm = float(accelerator.clip_grad_norm_(model.parameters(), max_grad_norm))
    *totals, n_tokens = accelerator.reduce(sums, "sum").tolist()
    means = {term: total * share[term] for term, total in zip(terms, totals, strict=True)}
    loss = sum(objective.weights[term] * mean for term, mean in means.items())
    finite = math.isfinite(loss)
    if (
        accelerator.scaler is None
    ):  # float16's loss scaler overflows, and skips the step, on purpose
        finite = finite and math.isfinite(grad_norm)
    if finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(
        losses={f"loss_{term}": mean for term, mean in means.items()} | {"loss": loss},
        grad_norm=grad_norm,
        trunk_grad_norms=tracer.norms(accelerator) if tracer is not None else None,
        n_tokens=int(n_tokens),
        finite=finite,
    )


class TrunkGradients:
    """Sums the gradient of each term alone, over the batches of a step."""

    def __init__(self, model: DualHeadModel, terms: Sequence[str]) -> None:
        self.parameters = [p for p in model.trunk.parameters() if p.requires_grad]
        self.sums = {term: [torch.zeros_like(p) for p in self.parameters] for term in terms}

    def add(self, parts: Mapping[str, Tensor]) -> None:
        for term, part in parts.items():
            gradients = torch.autograd.grad(
                part, self.parameters, retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(self.sums[term], gradients, strict=True):
                if gradient is not None:
                    total += gradient

    def norms(self, accelerator: Accelerator) -> dict[str, float]:
        """L2 norm of each term's gradient over all processes' rows."""
        return {
            term: float(torch.cat([g.flatten() for g in accelerator.reduce(parts, "sum")]).norm())
            for term, parts in self.sums.items()
        }


def rows_not_finite(
    model: torch.nn.Module,
    rows: Sequence[EncodedDecision],
    *,
    accelerator: Accelerator,
    objective: Objective,
    pad_token_id: int,
) -> Iterator[int]:
    """Indices of the rows whose own losses are not finite."""
    for index, row in enumerate(rows):
        batch = collate([row], pad_token_id).to(accelerator.device)
        with torch.no_grad(), accelerator.autocast():
            losses = objective.losses(model, batch)
        if not all(bool(values.isfinite().all()) for values in losses.values()):
            yield index
