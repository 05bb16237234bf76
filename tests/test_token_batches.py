"""Batches sized by tokens."""

from __future__ import annotations

from dataclasses import dataclass

from teachers.local.token_batches import batches


@dataclass
class Size:
    rows: int
    width: int


def sized(*sizes):
    return [(i, Size(*size)) for i, size in enumerate(sizes)]


def test_batches_are_sorted_by_width_and_sized_by_padded_tokens():
    pairs = sized((1, 10), (1, 90), (2, 30), (1, 200), (3, 10), (1, 40))
    cut = [[i for i, _ in batch] for batch in batches(pairs, 100)]
    assert cut == [[3], [1], [5], [2, 0], [4]]


def test_no_more_is_taken_than_is_worked_on():
    taken = []
    pairs = (taken.append(i) or pair for i, pair in enumerate(sized(*[(1, 10)] * 1000)))
    some = batches(pairs, 100)
    assert [len(next(some)) for _ in range(4)] == [10] * 4
    assert len(taken) == 40  # four batches' worth
    assert sum(map(len, some)) == 960


def test_what_comes_to_the_source_meanwhile_is_taken_too():
    """Retries join the queue that the requests are taken from."""
    queue = sized(*[(1, 10)] * 40)
    drained = (queue.pop(0) for _ in iter(lambda: len(queue), 0))
    some = batches(drained, 100)
    for _ in range(4):
        next(some)
    queue.append((40, Size(1, 10)))
    assert [[i for i, _ in batch] for batch in some] == [[40]]
