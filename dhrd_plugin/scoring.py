"""Score decisions with the pooled head: one forward per input, the LM head never runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.special import log_softmax

from dhrd_plugin.batching import EncodedDecision, batches_by_length, collate
from dhrd_plugin.modeling import DualHeadModel


@torch.inference_mode()
def score(
    model: DualHeadModel,
    decisions: Sequence[EncodedDecision],
    *,
    batch_size: int,
    pad_token_id: int,
    dtype: torch.dtype = torch.float32,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Log-probability of every choice of every decision, in nats, in the given order.

    Args:
        batch_size: decisions per forward.
        dtype: computing precision; below float32 by autocast, as in training.
        on_batch: called with the number of decisions just scored (progress).
    """
    model.eval()
    device = next(model.parameters()).device
    results: list[list[float]] = [[] for _ in decisions]
    for indices in batches_by_length([d.length for d in decisions], batch_size):
        batch = collate([decisions[i] for i in indices], pad_token_id).to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            output = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                pool_index=batch.pool_index,
                head_index=batch.head_index,
            )
        log_probs = batch.decision_logits(output.logits).log_softmax(dim=-1).cpu()
        for row, i in enumerate(indices):
            results[i] = log_probs[row, : decisions[i].n_choices].tolist()
        if on_batch is not None:
            on_batch(len(indices))
    return results


def rescale(log_probs: Sequence[float], temperature: float) -> list[float]:
    """`log_softmax(log_probs / T)` of one row, in nats.

    Log-probabilities are logits less a constant, to which softmax is blind.

    >>> import math
    >>> [round(math.exp(p), 4) for p in rescale([math.log(0.9), math.log(0.1)], 2.0)]  # 3 : 1
    [0.75, 0.25]
    """
    return log_softmax(np.asarray(log_probs, dtype=np.float64) / temperature).tolist()
