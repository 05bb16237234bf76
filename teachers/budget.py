"""What teachers cost: tokens, prices, and a limit that requests in flight cannot break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dhrd_plugin.errors import EXIT_FAILED, DHRDError


@dataclass(frozen=True)
class Usage:
    """What one request, or many, used.

    Attributes:
        prompt_tokens, completion_tokens: as counted by the model or server.
        cost: US dollars; None where no prices were given.
        estimated: whether it is an upper bound, because the server did not say what it counted.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    estimated: bool = False

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=sum(costs) if costs else None,
            estimated=self.estimated or other.estimated,
        )

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Usage:
        """A record's `usage` object, which older records have without `cost`."""
        stored = stored or {}
        return cls(
            prompt_tokens=stored.get("prompt_tokens", 0),
            completion_tokens=stored.get("completion_tokens", 0),
            cost=stored.get("cost"),
            estimated=stored.get("estimated", False),
        )


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens."""

    prompt: float
    completion: float

    def usage(self, prompt_tokens: int, completion_tokens: int, estimated: bool = False) -> Usage:
        """These tokens, with what they cost."""
        cost = (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6
        return Usage(prompt_tokens, completion_tokens, cost, estimated)


class BudgetReached(DHRDError):
    """The next request could go beyond a limit; everything paid for has been stored."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=EXIT_FAILED)


class Budget:
    """Hard limits on tokens and cost over a whole output file, earlier runs included.

    A request reserves the most that it can use before it is sent, and settles for what it did use
    when it is answered. So the sum of what was spent and what is in flight never exceeds a limit.

    Attributes:
        spent: what has been settled or charged.
    """

    def __init__(self, *, max_cost: float | None = None, max_tokens: int | None = None) -> None:
        """Limits in US dollars and in tokens (prompt and completion); None is no limit."""
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.spent = Usage()
        self._reserved = Usage()

    def charge(self, spent: Usage, *, unpriced: Usage, prices: Prices | None) -> None:
        """Count what earlier runs spent; the part of it without a cost is priced now."""
        self.spent += spent
        if prices is not None:
            priced = prices.usage(unpriced.prompt_tokens, unpriced.completion_tokens)
            self.spent += Usage(cost=priced.cost)

    def reserve(self, most: Usage) -> bool:
        """Set `most` aside for a request; False, and nothing set aside, if it does not fit."""
        planned = self.spent + self._reserved + most
        if self.max_tokens is not None and planned.tokens > self.max_tokens:
            return False
        if self.max_cost is not None and (planned.cost or 0.0) > self.max_cost:
            return False
        self._reserved += most
        return True

    def settle(self, most: Usage, used: Usage) -> None:
        """Give back a reservation and count what was used (nothing for a request not billed)."""
        self._reserved = Usage(
            prompt_tokens=self._reserved.prompt_tokens - most.prompt_tokens,
            completion_tokens=self._reserved.completion_tokens - most.completion_tokens,
            cost=(self._reserved.cost or 0.0) - (most.cost or 0.0),
        )
        self.spent += used

    def reached(self) -> BudgetReached:
        """The error that ends a run for which the rest does not suffice."""
        limits = []
        if self.max_cost is not None:
            limits.append(f"${self.spent.cost or 0.0:.4f} of --max-cost ${self.max_cost:.4f}")
        if self.max_tokens is not None:
            limits.append(f"{self.spent.tokens} of --max-tokens {self.max_tokens} tokens")
        return BudgetReached(
            f"Stopped before a limit could be broken: {' and '.join(limits)} spent, and the next "
            "request may need more than is left. All rows paid for are stored; raise the limit and "
            "run the same command to go on."
        )
