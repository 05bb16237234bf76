"""The order of an epoch over tasks of different sizes."""

from __future__ import annotations

import doctest
from collections import Counter

import pytest
import torch

from distill import sampling as module
from distill.sampling import POOL, SAMPLINGS, apportion, epoch_order, group_by_length

SIZES = {0: 90, 1: 9, 2: 1}
TASKS = [task for task, size in SIZES.items() for _ in range(size)]


def counts(order, tasks=TASKS):
    return dict(Counter(tasks[row] for row in order))


def test_examples_in_docstrings_hold():
    result = doctest.testmod(module)
    assert result.attempted >= 5
    assert result.failed == 0


@pytest.mark.parametrize("seed", [0, 1, 17, 2**32 - 1])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_proportional_is_the_order_that_finished_runs_were_trained_in(seed, epoch):
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    expected = torch.randperm(100, generator=generator).tolist()
    assert epoch_order(TASKS, seed=seed, epoch=epoch) == expected
    assert epoch_order(TASKS, seed=seed, epoch=epoch, sampling="proportional") == expected


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epoch_is_a_function_of_seed_and_epoch(sampling):
    def orders():
        return [
            epoch_order(TASKS, seed=seed, epoch=epoch, sampling=sampling)
            for seed in (0, 1)
            for epoch in (0, 1)
        ]

    first = orders()
    torch.manual_seed(99)
    assert orders() == first
    assert len({tuple(order) for order in first}) == 4


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("seed", range(5))
def test_one_task_is_read_in_full_once(sampling, seed):
    order = epoch_order([3] * 12, seed=seed, epoch=0, sampling=sampling)
    assert sorted(order) == list(range(12))


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_the_samplings_by_hand(seed):
    # 100 rows; square roots 9.487, 3 and 1 of 13.487: 70.3, 22.2 and 7.4.
    expected = {
        "proportional": SIZES,
        "temperature": {0: 70, 1: 22, 2: 8},
        "uniform": {0: 34, 1: 33, 2: 33},
    }
    for sampling in SAMPLINGS:
        order = epoch_order(TASKS, seed=seed, epoch=2, sampling=sampling)
        assert counts(order) == expected[sampling]


def test_temperature_leads_from_proportional_to_uniform():
    def shares(temperature):
        return counts(
            epoch_order(TASKS, seed=0, epoch=0, sampling="temperature", temperature=temperature)
        )

    assert shares(1.0) == SIZES
    assert shares(4.0)[0] < shares(2.0)[0] < shares(1.0)[0]
    assert shares(1e9) == {0: 34, 1: 33, 2: 33}
    assert shares(1e-3) == {0: 100}  # no overflow either


@pytest.mark.parametrize("sampling", ["temperature", "uniform"])
@pytest.mark.parametrize("seed", range(5))
def test_rows_repeat_only_when_all_of_their_task_have_been_read(sampling, seed):
    order = epoch_order(TASKS, seed=seed, epoch=0, sampling=sampling)
    for task, size in SIZES.items():
        reads = Counter(row for row in order if TASKS[row] == task)
        share = sum(reads.values())
        assert len(reads) == min(share, size)
        assert max(reads.values()) - min(reads.values()) <= 1


def test_a_large_task_shows_other_rows_each_epoch():
    seen = [
        {row for row in epoch_order(TASKS, seed=0, epoch=e, sampling="uniform") if row < 90}
        for e in range(12)
    ]
    assert all(len(rows) == 34 for rows in seen)
    assert seen[0] != seen[1]
    # A row stays unread with probability (56 / 90) ** 12 = 0.3 %.
    assert len(set.union(*seen)) > 80


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_tasks_are_mixed_within_an_epoch(sampling):
    tasks = [0] * 300 + [1] * 300
    order = epoch_order(tasks, seed=0, epoch=0, sampling=sampling)
    halves = [counts(half, tasks) for half in (order[:300], order[300:])]
    # Hypergeometric: 150 of each, standard deviation 6.
    assert all(110 < half[task] < 190 for half in halves for task in (0, 1))


def test_rows_of_a_task_need_not_lie_together():
    order = epoch_order([5, 2, 5, 5, 2, 5], seed=0, epoch=0, sampling="uniform")
    assert sum(row in (1, 4) for row in order) == 3


def test_parts_add_up_whatever_the_weights():
    for total in range(1, 40):
        parts = apportion(total, [0.1, 0.2, 0.7, 1 / 3])
        quotas = [total * w / (1 + 1 / 3) for w in (0.1, 0.2, 0.7, 1 / 3)]
        assert sum(parts) == total
        assert all(abs(part - quota) < 1 for part, quota in zip(parts, quotas, strict=True))


def test_an_unknown_sampling_is_an_error():
    with pytest.raises(KeyError, match="sizes"):
        epoch_order(TASKS, seed=0, epoch=0, sampling="sizes")


# Rows of like length


def grouped(n=100, window=8, seed=0, epoch=0):
    lengths = [(37 * row) % 101 for row in range(n)]
    order = epoch_order([0] * n, seed=seed, epoch=epoch)
    return lengths, order, group_by_length(order, lengths, window=window, seed=seed, epoch=epoch)


def padding(lengths, order, window=8):
    windows = [order[i : i + window] for i in range(0, len(order), window)]
    return sum(max(lengths[r] for r in w) * len(w) - sum(lengths[r] for r in w) for w in windows)


def test_grouping_keeps_the_rows_and_saves_padding():
    lengths, order, result = grouped()
    assert sorted(result) == sorted(order)
    assert padding(lengths, result) < 0.3 * padding(lengths, order)


def test_grouping_mixes_long_and_short_windows():
    lengths, _, result = grouped()
    means = [sum(lengths[r] for r in result[i : i + 8]) for i in range(0, 96, 8)]
    assert means != sorted(means) and means != sorted(means, reverse=True)


def test_grouping_is_a_function_of_seed_and_epoch():
    runs = [grouped(seed=seed, epoch=epoch)[2] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(run) for run in runs}) == 4
    assert grouped(seed=1, epoch=1)[2] == runs[3]


def test_rows_are_sorted_within_a_pool_only():
    """Of 40 windows of 2, the first 16 windows' rows stay together."""
    order = list(range(80))
    result = group_by_length(order, [80 - row for row in order], window=2, seed=0, epoch=0)
    pairs = {tuple(result[i : i + 2]) for i in range(0, 80, 2)}
    assert pairs == {(row, row + 1) for row in range(0, 80, 2)}
    crossing = group_by_length(order, [row % 40 for row in order], window=2, seed=0, epoch=0)
    assert all(abs(a - b) < POOL * 2 for a, b in zip(crossing[::2], crossing[1::2], strict=True))
