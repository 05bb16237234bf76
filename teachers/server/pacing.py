"""Limits that a client keeps by itself: how much per minute, and how many at once.

Both are plain arithmetic; whoever sends says what time it is and waits.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MINUTE = 60.0  # seconds
CATCH_UP = 0.5  # seconds of turns that may be made up for, so that late wake-ups cost no throughput


@dataclass
class Sent:
    """Something that counts against a limit, and since when.

    Attributes:
        amount: units that it counts for; at first an upper bound, perhaps.
        paced: units that the next one has been made to wait for.
    """

    time: float
    amount: int
    paced: float


class MinuteLimit:
    """At most `limit` units (requests, tokens) in every 60 seconds, evenly spread over them.

    A token bucket would let through up to twice its limit in the first minute, and servers that
    enforce a limit per second would refuse a burst that is within it per minute.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._window: deque[Sent] = deque()  # of the last 60 seconds, oldest first
        self._total = 0  # their units
        self._turn = -math.inf  # when the next one is due if all are evenly spread
        # Upper bounds, and what came of them: their ratio is what is spread.
        self._bounds = self._used = 0

    def wait(self, now: float, amount: int) -> float:
        """Seconds until `amount` units may be sent.

        More than the limit at once may go when nothing else went for a minute: `amount` can be an
        upper bound, and the server has the last word.
        """
        self._forget(now)
        wait = max(0.0, self._turn - now)
        excess = self._total + min(amount, self._limit) - self._limit
        for sent in self._window:
            if excess <= 0:
                break
            excess -= sent.amount
            wait = max(wait, sent.time + MINUTE - now)
        return wait

    def add(self, now: float, amount: int) -> Sent:
        """Count what is sent now."""
        sent = Sent(now, amount, amount * self._used / self._bounds if self._bounds else amount)
        self._window.append(sent)
        self._total += amount
        self._turn = max(self._turn, now - CATCH_UP) + sent.paced * MINUTE / self._limit
        return sent

    def correct(self, now: float, sent: Sent, amount: int) -> None:
        """Replace an upper bound by what was really used."""
        self._forget(now)
        self._turn += (amount - sent.paced) * MINUTE / self._limit
        self._bounds += sent.amount
        self._used += amount
        if self._window and sent.time >= self._window[0].time:  # still in the window
            self._total += amount - sent.amount
            sent.amount = amount

    def _forget(self, now: float) -> None:
        while self._window and self._window[0].time + MINUTE <= now:
            self._total -= self._window.popleft().amount


class AdaptiveLimit:
    """How many requests may be in flight: additive increase, multiplicative decrease.

    A server that is asked too much refuses many requests of one flight. They halve the limit once:
    only requests sent after the last halving count, for refusals and for answers.

    Attributes:
        now: requests that may be in flight.
        flight: a number noted with each request that is sent.
    """

    def __init__(self, most: int) -> None:
        self.now = most
        self.flight = 0
        self._most = most
        self._answers = 0  # since the limit last changed

    def answered(self, flight: int) -> None:
        """One more may be in flight after every round of answers."""
        if flight == self.flight:
            self._answers += 1
            if self._answers >= self.now:
                self.now = min(self._most, self.now + 1)
                self._answers = 0

    def refused(self, flight: int) -> None:
        """Halve the limit, once for all refusals of a flight."""
        if flight == self.flight:
            self.now = max(1, self.now // 2)
            self.flight += 1
            self._answers = 0
