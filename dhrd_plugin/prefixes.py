"""Inputs that begin alike, packed into one row: what they share is computed once.

A row is a prefix with branches behind it. Each branch sees the prefix and itself alone, at the
positions that it has behind the prefix, so that its hidden states are those of a row of its own
(tree attention: SpecInfer, Miao et al. 2023, arXiv 2305.09781). Against a cache of the prefix this
is one forward instead of two, and no keys and values are copied for every branch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

DENSE_MASKS = ("sdpa", "eager")  # attention kernels that take any mask over (queries, keys)
PADDING = -1  # its segment; the prefix is 0, the branches 1, 2, …


@dataclass(frozen=True)
class PackedRow:
    """A prefix and branches behind it, as token ids. A branch may be empty: the prefix alone."""

    prefix: list[int]
    branches: list[list[int]]

    @property
    def length(self) -> int:
        return len(self.prefix) + sum(map(len, self.branches))

    @property
    def input_ids(self) -> list[int]:
        return self.prefix + [token for branch in self.branches for token in branch]

    @property
    def segments(self) -> list[int]:
        """Per token: 0 in the prefix, n in the n-th branch."""
        counted = enumerate([self.prefix, *self.branches])
        return [number for number, part in counted for _ in part]

    @property
    def position_ids(self) -> list[int]:
        start = len(self.prefix)
        behind = [start + offset for branch in self.branches for offset in range(len(branch))]
        return [*range(start), *behind]

    @property
    def pool_index(self) -> list[int]:
        """Per branch: where its last token is."""
        ends, end = [], len(self.prefix)
        for branch in self.branches:
            end += len(branch)
            ends.append(end - 1 if branch else len(self.prefix) - 1)
        return ends


def pack(inputs: Sequence[list[int]], max_length: int, worthwhile: float = 0.1) -> list[PackedRow]:
    """Rows of at most `max_length` tokens that hold `inputs`, one branch each, in their order.

    What all of them begin with is the prefix of every row. An input that fits with no other one
    has a row of its own, and so has each where packing saves less than a `worthwhile` share of the
    tokens: a long row pays more for attention.

    >>> [(row.prefix, row.branches) for row in pack([[1, 2, 3], [1, 2, 4, 5], [1, 2]], 6)]
    [([1, 2], [[3], [4, 5], []])]
    >>> [(row.prefix, row.branches) for row in pack([[1, 2, 3], [1, 2, 4, 5]], 0)]
    [([1, 2], [[3]]), ([1, 2], [[4, 5]])]
    """
    shared = _common_prefix_length(inputs)
    saved = (len(inputs) - 1) * shared
    if saved < worthwhile * sum(map(len, inputs)):
        max_length = 0
    rows: list[PackedRow] = []
    for ids in inputs:
        branch = ids[shared:]
        if rows and rows[-1].length + len(branch) <= max_length:
            rows[-1].branches.append(branch)
        else:
            rows.append(PackedRow(ids[:shared], [branch]))
    return rows


def _common_prefix_length(rows: Sequence[list[int]]) -> int:
    for position, tokens in enumerate(zip(*rows, strict=False)):
        if len(set(tokens)) > 1:
            return position
    return min(map(len, rows))


@torch.inference_mode()
def longest_shareable(trunk: Any) -> float:
    """Most tokens of an input for which packed rows are exact; 0 where they never are.

    Needed are positions and masks that can be given, and attention that forgets nothing: the cache
    that the trunk makes tells full attention (infinity) from a window (its width) and from a
    recurrent state, a sparse index and whatever else subclasses may keep (0).
    """
    config = trunk.config
    takes_positions = "position_ids" in inspect.signature(trunk.forward).parameters
    alibi = getattr(config, "alibi", False)  # Falcon then reads positions off the padding mask
    if not takes_positions or alibi or config._attn_implementation not in DENSE_MASKS:
        return 0
    token = torch.zeros(1, 1, dtype=torch.long, device=trunk.device)
    cache = getattr(trunk(input_ids=token, use_cache=True), "past_key_values", None)
    if type(cache) is not DynamicCache:
        return 0
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        return 0
    return min(getattr(layer, "sliding_window", math.inf) for layer in cache.layers)


def pooled_states(trunk: Any, rows: Sequence[PackedRow], pad_token_id: int) -> Tensor:
    """(branches of all rows, H) hidden state of every branch's last token, by one forward.

    Rows of one branch each run as in training: the trunk's own causal mask and positions.
    """
    device = trunk.device

    def padded(values: list[list[int]], padding: int) -> Tensor:
        tensors = [torch.tensor(row) for row in values]
        return pad_sequence(tensors, batch_first=True, padding_value=padding).to(device)

    segments = padded([row.segments for row in rows], PADDING)
    arguments = {"attention_mask": (segments != PADDING).long()}
    if any(len(row.branches) > 1 for row in rows):
        arguments = {
            "attention_mask": branch_mask(segments, trunk.dtype),
            "position_ids": padded([row.position_ids for row in rows], 0),
        }
    hidden = trunk(
        input_ids=padded([row.input_ids for row in rows], pad_token_id),
        use_cache=False,
        **arguments,
    ).last_hidden_state
    row_index = [number for number, row in enumerate(rows) for _ in row.branches]
    return hidden[row_index, [position for row in rows for position in row.pool_index]]


def branch_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, L) -> (B, 1, L, L) to add to attention scores: 0 where a query sees a key, else minimal.

    It sees what is not behind it, of the prefix and of its own branch. Padding is behind all
    tokens; what it sees itself does not matter, but softmax needs something.
    """
    length = segments.shape[1]
    not_behind = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    of_prefix = (segments == 0)[:, None, :]
    of_own_branch = segments[:, :, None] == segments[:, None, :]
    visible = not_behind & (of_prefix | of_own_branch)
    scores = torch.zeros(visible.shape, dtype=dtype, device=segments.device)
    return scores.masked_fill(~visible, torch.finfo(dtype).min)[:, None]
