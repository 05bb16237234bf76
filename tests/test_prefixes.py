"""Packed rows give every branch the hidden state that it has in a row of its own."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
import transformers
from tiny_models import CAUSAL, RECURRENT, SIZES, VOCABULARY, tiny_lm

from dhrd_plugin import prefixes
from dhrd_plugin.prefixes import PackedRow, longest_shareable, pack, pooled_states

PAD = 257
CLOSE = {"rtol": 0, "atol": 1e-5}
WINDOW = 16  # Mistral's in `SIZES`
# Ragged in every way; one branch is empty, one is what another begins with.
ROWS = [
    PackedRow(prefix=list(range(20)), branches=[[5, 6, 7], [8], [5, 6], [9, 10, 11, 12]]),
    PackedRow(prefix=list(range(50, 57)), branches=[[], [30, 31]]),
    PackedRow(prefix=list(range(90, 103)), branches=[[40] * 5, [41, 42, 43]]),
]
LONGEST = 24  # tokens of the longest prefix and branch
FULL_ATTENTION = [family for family in CAUSAL if family not in (*RECURRENT, "Mistral")]
# Families besides those of `tiny_models` that cannot share, each for a reason of its own.
OTHERS = {
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # no positions can be given
    "Falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "MiniMax": SIZES["Llama"] | {"head_dim": 8, "num_local_experts": 2},  # a subclass of the cache
    "Lfm2": SIZES["Llama"] | {"layer_types": ["conv", "full_attention"]},
}


def other_lm(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY, initializer_range=0.2, **OTHERS[family]
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@torch.inference_mode()
def alone(trunk, rows):
    """The same states by a forward of every prefix and branch alone, without padding."""
    inputs = [row.prefix + branch for row in rows for branch in row.branches]
    states = [trunk(input_ids=torch.tensor([i]), use_cache=False) for i in inputs]
    return torch.stack([state.last_hidden_state[0, -1] for state in states])


@torch.inference_mode()
def together(trunk, rows=ROWS):
    return pooled_states(trunk, rows, PAD)


def test_examples_in_docstrings_hold():
    result = doctest.testmod(prefixes)
    assert result.attempted >= 2
    assert result.failed == 0


# Packing


def unpacked(rows):
    return [row.prefix + branch for row in rows for branch in row.branches]


def test_inputs_come_out_in_their_order_however_they_are_packed():
    inputs = [[1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 7]]
    for max_length in range(12):
        rows = pack(inputs, max_length)
        assert unpacked(rows) == inputs
        assert all(len(row.branches) == 1 or row.length <= max_length for row in rows)
    assert [len(pack(inputs, n)) for n in (0, 4, 6, 8)] == [5, 4, 2, 1]


def test_only_what_all_inputs_begin_with_is_shared():
    (row,) = pack([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 9]], 100)
    assert (row.prefix, row.branches) == ([1, 2], [[3, 4], [3, 5], [9]])


def test_inputs_that_share_too_little_stay_apart():
    """A tenth of the 40 tokens is 4: two inputs of 20 tokens must share as many."""
    for shared, n_rows in ((0, 2), (1, 2), (3, 2), (4, 1)):
        inputs = [[0] * shared + [branch] * (20 - shared) for branch in (1, 2)]
        assert len(pack(inputs, 100)) == n_rows
        assert unpacked(pack(inputs, 100)) == inputs


def test_one_input_and_equal_inputs():
    assert pack([[1, 2]], 100) == [PackedRow([1, 2], [[]])]
    assert pack([[1, 2], [1, 2]], 100) == [PackedRow([1, 2], [[], []])]


def test_row_knows_where_its_branches_are():
    row = PackedRow([7, 8], [[1, 2], [], [3]])
    assert row.input_ids == [7, 8, 1, 2, 3]
    assert row.segments == [0, 0, 1, 1, 3]
    assert row.position_ids == [0, 1, 2, 3, 2]
    assert row.pool_index == [3, 1, 4]
    assert row.length == 5


# Exactness


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FULL_ATTENTION)
def test_packed_states_are_those_of_separate_rows(family, attention):
    lm = tiny_lm(family)
    lm.set_attn_implementation(attention)
    assert longest_shareable(lm.base_model) >= LONGEST
    torch.testing.assert_close(together(lm.base_model), alone(lm.base_model, ROWS), **CLOSE)


@pytest.mark.parametrize("family", CAUSAL)
def test_rows_of_one_branch_are_plain_rows(family):
    """On every family, since nothing is shared."""
    trunk = tiny_lm(family).base_model
    rows = [PackedRow(row.prefix, row.branches[-1:]) for row in ROWS]
    torch.testing.assert_close(together(trunk, rows), alone(trunk, rows), **CLOSE)


@pytest.mark.parametrize(
    ("family", "changes"),
    [("Mistral", {}), ("Gemma2", {"sliding_window": 16}), ("Gemma3Text", {"sliding_window": 16})],
)
def test_inputs_may_be_as_long_as_the_window_and_no_longer(family, changes):
    trunk = tiny_lm(family, **changes).base_model
    assert longest_shareable(trunk) == WINDOW
    for length, exact in ((WINDOW, True), (WINDOW + 1, False)):
        rows = [PackedRow(list(range(length - 2)), [[3, 4], [5, 6]])]
        difference = (together(trunk, rows) - alone(trunk, rows)).abs().max().item()
        assert (difference < 1e-5) is exact


def test_full_attention_shares_at_any_length():
    assert longest_shareable(tiny_lm().base_model) == math.inf


@pytest.mark.parametrize("family", [*RECURRENT, *OTHERS])
def test_backbones_for_which_packed_rows_are_not_exact_are_known(family):
    lm = other_lm(family) if family in OTHERS else tiny_lm(family)
    assert longest_shareable(lm.base_model) == 0
    try:  # it is so with reason
        got = together(lm.base_model)
    except (RuntimeError, TypeError, ValueError):  # a mask of four dimensions, or positions
        return
    assert (got - alone(lm.base_model, ROWS)).abs().max().item() > 1e-3


def test_kernels_without_dense_masks_do_not_share():
    trunk = tiny_lm().base_model
    trunk.config._attn_implementation = "flash_attention_2"
    assert longest_shareable(trunk) == 0


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_low_precision_rounds_and_does_nothing_else(weights):
    trunk = tiny_lm().base_model
    expected = alone(trunk, ROWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = together(trunk.to(weights)).float()
    assert (got - expected).norm() / expected.norm() < 0.03
