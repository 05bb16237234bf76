"""Batches sized by tokens: of similar length, and no more of them at a time than are worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

WINDOW = 4  # batches' worth of work that is taken and sorted together


class Work(Protocol):
    """What a batch is made of: `rows` sequences of at most `width` tokens."""

    @property
    def rows(self) -> int: ...

    @property
    def width(self) -> int: ...


A = TypeVar("A")  # what is asked
W = TypeVar("W", bound=Work)


def batches(pairs: Iterable[tuple[A, W]], batch_tokens: int) -> Iterator[list[tuple[A, W]]]:
    """What is asked and its work, in batches of similar width.

    A batch has at most `batch_tokens` tokens, padding included, or is one piece of work. Taken from
    the iterator are `WINDOW` batches' worth at a time, so that whoever ends it does not wait long;
    of these the widest come first, so that out of memory shows at once.
    """
    window: list[tuple[A, W]] = []
    tokens = 0
    for pair in pairs:
        window.append(pair)
        tokens += pair[1].rows * pair[1].width
        if tokens >= WINDOW * batch_tokens:
            yield from _cut(window, batch_tokens)
            window, tokens = [], 0
    yield from _cut(window, batch_tokens)


def _cut(window: list[tuple[A, W]], batch_tokens: int) -> Iterator[list[tuple[A, W]]]:
    batch: list[tuple[A, W]] = []
    rows = 0
    for pair in sorted(window, key=lambda pair: pair[1].width, reverse=True):
        if batch and (rows + pair[1].rows) * batch[0][1].width > batch_tokens:
            yield batch
            batch, rows = [], 0
        batch.append(pair)
        rows += pair[1].rows
    if batch:
        yield batch
