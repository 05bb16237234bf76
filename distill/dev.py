"""Dev rows: how a checkpoint is judged."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dhrd_plugin.batching import EncodedDecision
from dhrd_plugin.modeling import DualHeadModel
from dhrd_plugin.scoring import score


def evaluate(
    model: DualHeadModel,
    rows: Sequence[EncodedDecision],
    batch_size: int,
    pad_token_id: int,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Accuracy (a gold choice has the highest probability) and -log p(gold) in nats, on dev rows.

    Several tasks count alike, whatever their number of rows.
    """
    scored = score(model, rows, batch_size=batch_size, pad_token_id=pad_token_id, dtype=dtype)
    by_head: dict[int, list[tuple[float, float]]] = {}
    for row, log_probs in zip(rows, scored, strict=True):
        values = torch.tensor(log_probs)
        right = float(int(values.argmax()) in row.gold)
        nll = -float(values[sorted(row.gold)].logsumexp(0))
        by_head.setdefault(row.head, []).append((right, nll))
    means = [torch.tensor(pairs).mean(dim=0) for pairs in by_head.values()]
    accuracy, nll = torch.stack(means).mean(dim=0).tolist()
    return {"accuracy": round(accuracy, 6), "nll": round(nll, 6)}


def is_better(result: dict[str, float], best: dict[str, float]) -> bool:
    """Higher accuracy; on few dev rows that ties often, and the likelihood decides."""
    return (result["accuracy"], -result["nll"]) > (best["accuracy"], -best["nll"])
