"""The order of an epoch over tasks of different sizes."""

from __future__ import annotations

import doctest
from collections import Counter

import pytest
import torch

from distill import sampling as module
from distill.sampling import SAMPLINGS, apportion, epoch_order

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
