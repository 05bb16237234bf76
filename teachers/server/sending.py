"""Sends many requests at once to one server, and again those that failed.

It knows nothing of the server's protocol: a request is a coroutine function that returns an
`Answer` or raises `NoAnswer`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, DHRDError
from teachers.budget import Budget, Usage
from teachers.server.background import Give, Take
from teachers.server.completions import CHECK_SETTINGS, Answer, NoAnswer
from teachers.server.turns import Turns

BACKOFF = 2.0  # seconds: the first retry comes within this, the next within twice as much, …
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_BREAK = 3600.0  # seconds; a server that wants a longer one ends the run
# A server that answers nothing ends the run, so that the other rows are spared.
FIRST_FAILURES = 5  # requests that failed, whatever the reason, before the first answer
FAILURES_IN_A_ROW = 16  # requests that failed after all their retries
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Tally:
    """What was used for one item, over all its requests and their retries."""

    usage: Usage = field(default_factory=Usage)


class Pool:
    """Works on many items at a time, each with requests of its own.

    The limits and what is known about the server live as long as the pool.
    """

    def __init__(
        self,
        server: str,
        *,
        concurrency: int,
        max_retries: int,
        rpm: float | None,
        tpm: float | None,
        budget: Budget | None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            server: what it is called in messages.
            concurrency: the most items worked on, and the most requests in flight.
            max_retries: of one request, after its first send.
            rpm, tpm: requests and tokens per minute.
        """
        self._server = server
        self._concurrency = concurrency
        self._max_retries = max_retries
        self._turns = Turns(concurrency, rpm=rpm, tpm=tpm, budget=budget)
        self._has_budget = budget is not None
        self._working = 0  # items taken and not yet given a result
        self._answered = False  # whether the server has ever answered
        self._failures = 0  # since the last answer
        self._last_failure = ""

    async def run(
        self,
        take: Take[Item],
        give: Give[Result],
        answer: Callable[[Item, Tally], Awaitable[Result]],
        failed: Callable[[Item, str, Usage], Result],
    ) -> None:
        """Give a result for each item, as they become ready.

        An item is taken when its first request can be sent at once or is the only one that waits,
        so that little is left to be sent after the last item. An item that is given up because the
        run ends has no result, unless something may have to be paid for it.

        Args:
            answer: does the work of an item, with `send`.
            failed: makes the result of an item that got no answer, from the reason.

        Raises:
            DHRDError: the server can give no more, or the budget is used up. What was in flight has
                been awaited and given.
        """
        self._turns.start()
        self._working = 0
        changed = self._turns.changed

        async def work(item: Item) -> None:
            tally = Tally()
            try:
                give(await answer(item, tally))
            except NoAnswer as trouble:
                if trouble.scope != "run":
                    self._count_failure(trouble)
                if trouble.scope != "run" or tally.usage.tokens:
                    give(failed(item, trouble.reason, tally.usage))
            finally:
                self._working -= 1
                changed.set()

        async with asyncio.TaskGroup() as group:  # waits for all, or cancels all
            while not self._is_over:
                if not self._has_room:
                    await changed.wait()
                    changed.clear()
                    continue
                item = await take()
                if item is None:
                    break
                self._working += 1
                group.create_task(work(item))
                await asyncio.sleep(0)  # until it has a turn, or waits for one
        if self._in_doubt:
            self._stop(
                f"answered none of the first {self._failures} requests. The last one failed: "
                f"{self._last_failure}\n{CHECK_SETTINGS}"
            )
        if self._turns.error is not None:
            raise self._turns.error

    async def send(
        self, create: Callable[[], Awaitable[Answer]], most: Usage, tally: Tally
    ) -> Answer:
        """Send a request when its turn has come, and again as long as that may help.

        Args:
            create: sends it once.
            most: the most that one send can use; charged where it is not known what was used.
            tally: what every send uses is added to it.

        Raises:
            NoAnswer: it failed, or the run ends.
        """
        attempt = 0
        while True:
            turn = await self._turns.take(most)
            used = None  # unknown if it is cancelled
            try:
                answer = await create()
                used = answer.used
                self._answered = True
                self._failures = 0
                self._turns.limit.answered(turn.flight)
                return answer
            except NoAnswer as trouble:
                used = trouble.used
                if trouble.too_many:
                    self._turns.limit.refused(turn.flight)
                self._heed(trouble)
                if trouble.scope != "send" or attempt == self._max_retries:
                    raise
                retry_after = trouble.retry_after
            finally:
                charged = self._turns.give_back(turn, used)
                tally.usage += charged
                if self._has_budget:
                    self._check_bound(charged, most)
            if retry_after is None:  # "full jitter", which spreads those that failed together
                longest = min(LONGEST_BACKOFF, BACKOFF * 2**attempt)
                await self._turns.pause(random.uniform(0, longest))
            attempt += 1

    @property
    def _has_room(self) -> bool:
        return self._turns.free and self._working < self._concurrency and not self._in_doubt

    @property
    def _is_over(self) -> bool:
        """Whether no other item should be taken."""
        return self._turns.error is not None or (self._in_doubt and not self._working)

    @property
    def _in_doubt(self) -> bool:
        """Whether the server may be of no use at all: what is still in flight will show."""
        return not self._answered and self._failures >= FIRST_FAILURES

    def _heed(self, trouble: NoAnswer) -> None:
        """Draw the conclusions from a failed send that concern all requests."""
        if trouble.scope == "run":
            self._stop(trouble.reason)
        elif trouble.no_server and not self._answered:
            self._stop(f"{trouble.reason}\n{CHECK_SETTINGS}")
        elif trouble.retry_after is not None:
            self._turns.hold(trouble.retry_after)
            if trouble.retry_after > LONGEST_BREAK:
                self._stop(
                    f"wants no request for {trouble.retry_after:.0f} s: {trouble.reason}\n"
                    "Run the same command after that to go on."
                )

    def _check_bound(self, charged: Usage, most: Usage) -> None:
        if (
            charged.prompt_tokens > most.prompt_tokens
            or charged.completion_tokens > most.completion_tokens
        ):
            self._stop(
                f"counts {charged.prompt_tokens} + {charged.completion_tokens} tokens for a "
                f"request that may have {most.prompt_tokens} + {most.completion_tokens}: it does "
                "not keep to the length that it is asked for, so no budget can be kept. Leave out "
                "--max-cost and --max-tokens, or use another server."
            )

    def _count_failure(self, trouble: NoAnswer) -> None:
        if trouble.scope == "send" or not self._answered:
            self._failures += 1
            self._last_failure = trouble.reason
        if self._answered and self._failures >= FAILURES_IN_A_ROW:
            self._stop(
                f"failed {self._failures} requests in a row, each after {self._max_retries} "
                f"retries. The last one: {trouble.reason}\nRun the same command later to go on; "
                "--rpm, --tpm or a lower --concurrency may spare the server."
            )

    def _stop(self, what: str) -> None:
        code = EXIT_FAILED if self._answered else EXIT_BAD_INPUT
        self._turns.end(DHRDError(f"The server {self._server} {what}", exit_code=code))
