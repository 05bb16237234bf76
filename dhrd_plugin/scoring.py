"""Score decisions with the pooled head: every input once, the LM head never runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from dhrd_plugin.batching import EncodedDecision, batches_by_length
from dhrd_plugin.modeling import DualHeadModel, length_groups
from dhrd_plugin.prefixes import PackedRow, longest_shareable, pack, pooled_states

BATCH_TOKENS = 8192  # enough to keep a large GPU busy
PACKED_TOKENS = 2048  # attention in longer rows costs what the shared prefix saves


@torch.inference_mode()
def score(
    model: DualHeadModel,
    decisions: Sequence[EncodedDecision],
    *,
    batch_size: int,
    pad_token_id: int,
    dtype: torch.dtype = torch.float32,
    batch_tokens: int = BATCH_TOKENS,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Log-probability of every choice of every decision, in nats, in the given order.

    Args:
        batch_size: most rows per forward. A row is one input, or several candidates of one
            decision behind the prefix that they share, where the backbone allows that.
        dtype: computing precision; below float32 by autocast, as in training.
        batch_tokens: most tokens per forward, padding included; a longer row goes alone.
        on_batch: called with the number of decisions begun by the batch just scored (progress).
    """
    model.eval()
    device = next(model.parameters()).device
    rows, owners = _rows(model.trunk, decisions)
    logits: list[list[list[float]]] = [[] for _ in rows]  # per row and branch, of every output
    for indices in _batches(rows, batch_size, batch_tokens):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            pooled = pooled_states(model.trunk, [rows[i] for i in indices], pad_token_id)
        heads = [decisions[owners[i]].head for i in indices for _ in rows[i].branches]
        outputs = iter(model.classify(pooled, torch.tensor(heads, device=device)).tolist())
        for i in indices:
            logits[i] = [next(outputs) for _ in rows[i].branches]
        if on_batch is not None:
            on_batch(sum(i == 0 or owners[i - 1] != owners[i] for i in indices))
    per_input = chain.from_iterable(logits)
    results = []
    for decision in decisions:
        own = [next(per_input) for _ in decision.inputs]
        # For candidates a choice is an input with one logit; for labels it is an output.
        of_choices = [values[0] for values in own] if len(own) > 1 else own[0][: decision.n_choices]
        results.append(log_softmax(of_choices).tolist())
    return results


def _rows(trunk: Any, decisions: Sequence[EncodedDecision]) -> tuple[list[PackedRow], list[int]]:
    """The inputs of all decisions in rows, in their order, and per row whose it is."""
    several = any(len(decision.inputs) > 1 for decision in decisions)
    shareable = longest_shareable(trunk) if several else 0
    rows: list[PackedRow] = []
    owners: list[int] = []
    for index, decision in enumerate(decisions):
        exact = max(map(len, decision.inputs)) <= shareable
        own = pack(decision.inputs, PACKED_TOKENS if exact else 0)
        rows += own
        owners += [index] * len(own)
    return rows, owners


def _batches(rows: Sequence[PackedRow], batch_size: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows that run together: of similar length, and all of them packed or none."""
    for packed in (True, False):
        members = [i for i, row in enumerate(rows) if (len(row.branches) > 1) is packed]
        lengths = [rows[i].length for i in members]
        for batch in batches_by_length(lengths, batch_size, batch_tokens):
            for group, _ in length_groups([lengths[i] for i in batch]):
                yield [members[batch[i]] for i in group]


def rescale(log_probs: Sequence[float], temperature: float) -> list[float]:
    """`log_softmax(log_probs / T)` of one row, in nats.

    Log-probabilities are logits less a constant, to which softmax is blind.

    >>> import math
    >>> [round(math.exp(p), 4) for p in rescale([math.log(0.9), math.log(0.1)], 2.0)]  # 3 : 1
    [0.75, 0.25]
    """
    return log_softmax(np.asarray(log_probs, dtype=np.float64) / temperature).tolist()
