"""An event loop in a thread of its own, so that it goes on while its results are dealt with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Take = Callable[[], Awaitable[Item | None]]  # the next item; None if there is no other
Give = Callable[[Result], None]  # hands a result to the consumer


class _Given(Generic[Result]):
    def __init__(self, result: Result) -> None:
        self.result = result


def exchange(
    items: Iterator[Item], work: Callable[[Take[Item], Give[Result]], Coroutine[Any, Any, None]]
) -> Iterator[Result]:
    """Yield what `work(take, give)` gives, while it runs in another thread.

    Items are taken from the iterator in the consumer's thread, between two results: it sees all
    that the consumer has done with the results given before. A consumer that stops early cancels
    the work.

    Raises:
        Exception: whatever `work` raises, after all that it gave.
    """
    events: SimpleQueue[Future[Item | None] | _Given[Result] | None] = SimpleQueue()
    ended: Future[None] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()

    async def take() -> Item | None:
        item: Future[Item | None] = Future()
        events.put(item)
        return await asyncio.wrap_future(item)

    def give(result: Result) -> None:
        events.put(_Given(result))

    async def main() -> None:
        task = asyncio.create_task(work(take, give))
        started.set_result((asyncio.get_running_loop(), task))
        await task

    def run() -> None:
        try:
            asyncio.run(main())
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)
        events.put(None)

    # A daemon, so that an iterator that is neither used up nor closed does not keep Python alive.
    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while (event := events.get()) is not None:
            if isinstance(event, _Given):
                yield event.result
            else:
                event.set_result(next(items, None))
        ended.result()
    finally:
        if not ended.done():
            loop, task = started.result()
            with suppress(RuntimeError):  # the loop has ended by itself just now
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
