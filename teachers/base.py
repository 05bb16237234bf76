"""What a teacher is, and how one is found by name.

A teacher is named `prefix:model`. Each adapter registers one factory under its prefix; a factory's
keyword parameters are the command-line flags it understands, and any other given flag is an error.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dhrd_plugin.decisions import Decision, TaskDecisions
from dhrd_plugin.errors import DHRDError
from teachers.prompts import Prompt


@dataclass(frozen=True)
class Request:
    """One rationale to be written: the `attempt`-th one (from 1) for `decision`."""

    decision: Decision
    attempt: int
    prompt: Prompt

    def seed(self, base: int) -> int:
        """A 31-bit seed of its own for every row and attempt.

        So a retry samples anew, and neither batch size nor an interruption changes what is sampled.
        """
        name = f"{base}/{self.decision.id}/{self.attempt}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1


@dataclass(frozen=True)
class Reply:
    """What came back for a request.

    Attributes:
        rationale: the explanation alone, without sentinel and answer line.
        answer: what the teacher answered; None when the source gives no answer.
        origin: "hinted", "blind" or "human".
        text: the whole reply as it came, kept for the rejected file.
        problem: what is wrong with the form, if anything.
        failure: why there is no reply at all, if so; not an attempt of the teacher's.
        label_probs: the source's distribution over the choices, if it has one.
        prompt_tokens, completion_tokens: as counted by the model or server.
    """

    rationale: str
    answer: str | None
    origin: str
    text: str = ""
    problem: str | None = None
    failure: str | None = None
    label_probs: tuple[float, ...] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def usage(self) -> dict[str, int]:
        """A record's `usage` object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


class Teacher(Protocol):
    """Writes (or looks up) rationales.

    Attributes:
        adapter, model, params: stored with every record; params are the sampling settings.
        asks: whether it is asked with a prompt and may do better on another attempt.
    """

    adapter: str
    model: str
    params: dict[str, Any]
    asks: bool

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Answer the requests in any order, taking only as many at a time as are worked on.

        A request for which there is nothing to give is passed over.

        Raises:
            DHRDError: nothing more can be got from this teacher (wrong key, no server).
        """
        ...


def describe_teacher(teacher: Teacher, prompt: Prompt) -> dict[str, Any]:
    """A record's `teacher` object."""
    return {
        "adapter": teacher.adapter,
        "model": teacher.model,
        "params": teacher.params,
        "prompt_sha": prompt.sha if teacher.asks else None,
    }


Factory = Callable[..., Teacher]
_FACTORIES: dict[str, tuple[str, Factory]] = {}  # prefix -> (usage, factory)


def register(usage: str) -> Callable[[Factory], Factory]:
    """Register `factory(model, splits, *, flag=default, …)` under a usage such as "hf:MODEL"."""

    def decorate(factory: Factory) -> Factory:
        _FACTORIES[usage.partition(":")[0]] = (usage, factory)
        return factory

    return decorate


def find_factory(spec: str) -> tuple[Factory, str]:
    """(factory, model) for a teacher's name.

    Raises:
        DHRDError: no such prefix, or no model after it; the valid forms are listed.
    """
    from teachers import files, hf, openai_api  # noqa: F401 (imported here: they import this)

    prefix, _, model = spec.partition(":")
    if prefix not in _FACTORIES or not model:
        usages = ", ".join(usage for usage, _ in _FACTORIES.values())
        raise DHRDError(f"Unknown teacher {spec!r}. Name it as one of: {usages}.")
    return _FACTORIES[prefix][1], model


def make_teacher(spec: str, splits: Sequence[TaskDecisions], **flags: Any) -> Teacher:
    """The teacher called `spec` for the given splits.

    Args:
        flags: command-line flags; None means not given.

    Raises:
        DHRDError: an unknown teacher, a flag that it has no use for, or what the factory raises.
    """
    factory, model = find_factory(spec)
    given = {name: value for name, value in flags.items() if value is not None}
    unused = given.keys() - inspect.signature(factory).parameters.keys()
    if unused:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(unused))
        raise DHRDError(f"{names}: of no use with the teacher {spec!r}. Leave it out.")
    return factory(model, splits, **given)
