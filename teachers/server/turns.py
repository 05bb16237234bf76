"""When a request may be sent: limits per minute and in flight, breaks, and a budget."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from dhrd_plugin.errors import DHRDError
from teachers.budget import Budget, Usage
from teachers.server.completions import NoAnswer
from teachers.server.pacing import AdaptiveLimit, MinuteLimit, Sent


@dataclass(frozen=True)
class Turn:
    """A request's place in flight.

    Attributes:
        most: what is set aside for it.
        flight: see `AdaptiveLimit`.
        tokens: how it counts against the limit on tokens per minute, if there is one.
    """

    most: Usage
    flight: int
    tokens: Sent | None


class Turns:
    """Hands out turns, first come, first served.

    The limits live as long as this object, which can serve one event loop after another.

    Attributes:
        limit: requests that may be in flight.
        waiting: requests that wait for their turn.
        error: what ended the run, if it has ended.
        changed: set when a turn is taken or given back and when the run ends; for the user to wait
            for and clear.
    """

    def __init__(
        self, concurrency: int, *, rpm: float | None, tpm: float | None, budget: Budget | None
    ) -> None:
        self.limit = AdaptiveLimit(concurrency)
        self.error: DHRDError | None = None
        self._rpm = None if rpm is None else MinuteLimit(rpm)
        self._tpm = None if tpm is None else MinuteLimit(tpm)
        self._budget = budget
        self._break_until = 0.0
        self.start()

    def start(self) -> None:
        """Begin anew in another event loop: what waits is bound to one."""
        self.waiting = self._in_flight = 0
        self.changed = asyncio.Event()
        self._queue = asyncio.Lock()  # held by the first of those that wait
        self._eased = asyncio.Event()  # what the first one waits for may have come
        self._ended = asyncio.Event()

    @property
    def free(self) -> bool:
        """Whether one more might be sent at once."""
        return not self.waiting and self._in_flight < self.limit.now and self.error is None

    async def take(self, most: Usage) -> Turn:
        """Wait until a request that can use `most` may be sent, and count it as sent.

        Raises:
            NoAnswer: the run has ended.
        """
        self.waiting += 1
        try:
            async with self._queue:
                while True:
                    self._eased.clear()
                    if self._may_send(most):
                        break
                    await _wait(self._eased, self._delay(most))
                self._in_flight += 1
                now = _now()
                if self._rpm is not None:
                    self._rpm.add(now, 1)
                tokens = None if self._tpm is None else self._tpm.add(now, most.tokens)
                return Turn(most, self.limit.flight, tokens)
        finally:
            self.waiting -= 1
            self.changed.set()

    def give_back(self, turn: Turn, used: Usage | None) -> Usage:
        """End a turn; what is charged for it: what was used or, if unknown, the most."""
        charged = replace(turn.most, estimated=True) if used is None else used
        if self._tpm is not None and turn.tokens is not None:
            self._tpm.correct(_now(), turn.tokens, charged.tokens)
        if self._budget is not None:
            self._budget.settle(turn.most, charged)
        self._in_flight -= 1
        self._eased.set()
        self.changed.set()
        return charged

    def hold(self, seconds: float) -> None:
        """Let nothing be sent for a while."""
        self._break_until = max(self._break_until, _now() + seconds)

    def end(self, error: DHRDError) -> None:
        """Let nothing be sent any more; the first error is the one that is kept."""
        self.error = self.error or error
        self._eased.set()
        self._ended.set()
        self.changed.set()

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the run."""
        await _wait(self._ended, seconds)

    def _may_send(self, most: Usage) -> bool:
        """Whether it is the moment to send; a budget has then set `most` aside."""
        if self.error is not None:
            raise NoAnswer("the run ended before it was sent again", scope="run")
        if self._in_flight >= self.limit.now or self._delay(most):
            return False
        if self._budget is None or self._budget.reserve(most):
            return True
        if not self._in_flight:  # nothing is left that could use less than was set aside for it
            self.end(self._budget.reached())
        return False

    def _delay(self, most: Usage) -> float | None:
        """Seconds for which nothing may be sent; None if it is no matter of time."""
        now = _now()
        delay = self._break_until - now
        if self._rpm is not None:
            delay = max(delay, self._rpm.wait(now, 1))
        if self._tpm is not None:
            delay = max(delay, self._tpm.wait(now, most.tokens))
        return delay if delay > 0 else None


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for an event, but no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
