"""An event loop in a thread of its own, and the consumer of its results."""

from __future__ import annotations

import asyncio
import threading

import pytest

from teachers.server.background import exchange


async def double(take, give):
    while (item := await take()) is not None:
        give(2 * item)


def test_items_become_results():
    assert list(exchange(iter([1, 2, 3]), double)) == [2, 4, 6]


def test_consumer_has_dealt_with_a_result_before_the_next_item_is_taken():
    """A row that is to be asked again can so be the next one."""
    todo = [1]
    for result in exchange(iter(lambda: todo.pop() if todo else None, None), double):
        if result < 100:
            todo.append(result)
    assert result == 128


def test_items_are_taken_in_the_thread_of_the_consumer():
    def threads():
        yield threading.current_thread()

    async def check(take, give):
        give((await take(), threading.current_thread()))

    ((taken_in, worked_in),) = exchange(threads(), check)
    assert taken_in is threading.current_thread() is not worked_in


def test_work_goes_on_while_the_consumer_has_a_result():
    went_on = threading.Event()

    async def work(take, give):
        give("first")
        await asyncio.sleep(0)
        went_on.set()

    for _ in exchange(iter(()), work):
        assert went_on.wait(timeout=30)


def test_error_is_raised_after_all_results():
    async def fail(take, give):
        give(1)
        raise KeyError("broken")

    iterator = exchange(iter(()), fail)
    assert next(iterator) == 1
    with pytest.raises(KeyError):
        next(iterator)


def test_consumer_that_stops_cancels_the_work():
    cancelled = threading.Event()

    async def hang(take, give):
        give(1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    iterator = exchange(iter(()), hang)
    assert next(iterator) == 1
    iterator.close()
    assert cancelled.is_set()


def test_error_of_the_items_reaches_the_consumer():
    def broken():
        yield 1
        raise OSError("disk full")

    iterator = exchange(broken(), double)
    assert next(iterator) == 2
    with pytest.raises(OSError, match="disk full"):
        next(iterator)


def test_within_a_running_event_loop():
    async def notebook():
        return list(exchange(iter([1]), double))

    assert asyncio.run(notebook()) == [2]
