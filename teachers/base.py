"""What a teacher is, and how one is found by name.

A teacher is named `prefix:model`. Each adapter registers one factory under its prefix; a factory's
keyword parameters are the command-line flags it understands, and any other given flag is an error.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dhrd_plugin.decisions import Decision, TaskDecisions
from dhrd_plugin.errors import DHRDError
from teachers.budget import Usage
from teachers.prompts import JudgePrompt, Message, Prompt


@dataclass(frozen=True)
class Request:
    """One rationale to be written: the `attempt`-th one (from 1) for `decision`."""

    decision: Decision
    attempt: int
    prompt: Prompt

    @property
    def messages(self) -> list[Message]:
        return self.prompt.messages(self.decision)

    def seed(self, base: int) -> int:
        """A seed of its own for every row and attempt (see `derived_seed`)."""
        return derived_seed(base, self.decision.id, self.attempt)


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
        usage: what the reply cost, failed requests that may have been billed included.
    """

    rationale: str
    answer: str | None
    origin: str
    text: str = ""
    problem: str | None = None
    failure: str | None = None
    label_probs: tuple[float, ...] | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Question:
    """A choice to be made from what a view of the row shows, for soft targets and verification.

    Attributes:
        prompt: the wording of the view: the row alone, the rationale alone, or both.
        rationale: "" for the view that shows none.
        votes: samples to vote where the asked model gives no probabilities.
    """

    decision: Decision
    prompt: JudgePrompt
    rationale: str = ""
    votes: int = 1

    @property
    def messages(self) -> list[Message]:
        return self.prompt.messages(self.decision, self.rationale)

    def seed(self, base: int, vote: int) -> int:
        """A seed of its own for every row, view and vote (see `derived_seed`)."""
        return derived_seed(base, self.decision.id, self.prompt.view, vote)


@dataclass(frozen=True)
class Prediction:
    """The answer to a question: a distribution over the decision's choices.

    Attributes:
        probs: one probability per choice, together 1; None when it failed.
        method: "scored" (exact, length-normalised), "top_logprobs" (of the first answer token) or
            "votes:N" (the shares of N readable sampled answers).
        failure: why there is no distribution, if so.
    """

    probs: tuple[float, ...] | None
    method: str | None
    failure: str | None = None
    usage: Usage = field(default_factory=Usage)


class Teacher(Protocol):
    """Writes (or looks up) rationales, and predicts labels if it can be asked.

    Attributes:
        adapter, model, params: stored with every record; params are the sampling settings.
        asks: whether it is asked with a prompt: it may then do better on another attempt, and it
            can `predict`.
    """

    adapter: str
    model: str
    params: dict[str, Any]
    asks: bool

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Answer the requests in any order, taking only as many at a time as are worked on.

        A request for which there is nothing to give is passed over. When the iterator of requests
        ends, what is being worked on is still answered.

        Raises:
            DHRDError: nothing more can be got from this teacher (wrong key, no server, a budget
                that is used up); what was already answered has been yielded.
        """
        ...

    def predict(self, questions: Iterator[Question]) -> Iterator[tuple[Question, Prediction]]:
        """Predict the labels, under the rules of `explain`; only called where `asks` is true."""
        ...


def derived_seed(base: int, *names: object) -> int:
    """A 31-bit seed from a run's seed and what is sampled.

    So a retry samples anew, and neither batch size nor an interruption changes what is sampled.
    """
    name = "/".join(map(str, (base, *names)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1


def describe_teacher(teacher: Teacher, prompt_sha: str | None) -> dict[str, Any]:
    """A record's `teacher` (or `judge`) object; a teacher that is not asked has no prompt."""
    return {
        "adapter": teacher.adapter,
        "model": teacher.model,
        "params": teacher.params,
        "prompt_sha": prompt_sha if teacher.asks else None,
    }


Factory = type[Any]  # a Teacher's class, called with the model's name, the splits and its flags
_FACTORIES: dict[str, tuple[str, Factory]] = {}  # prefix -> (usage, factory)


def register(usage: str) -> Callable[[Factory], Factory]:
    """Register a class, made as `(model, splits, *, flag=default, …)`, under its usage, such as
    "hf:MODEL"."""

    def decorate(factory: Factory) -> Factory:
        _FACTORIES[usage.partition(":")[0]] = (usage, factory)
        return factory

    return decorate


def find_factory(spec: str) -> tuple[Factory, str]:
    """(factory, model) for a teacher's name.

    Raises:
        DHRDError: no such prefix, or no model after it; the valid forms are listed.
    """
    from teachers import files  # noqa: F401 (imported here: they import this)
    from teachers.local import hf  # noqa: F401 (imported here: they import this)
    from teachers.server import openai_api  # noqa: F401 (imported here: they import this)

    prefix, _, model = spec.partition(":")
    if prefix not in _FACTORIES or not model:
        usages = ", ".join(usage for usage, _ in _FACTORIES.values())
        raise DHRDError(f"Unknown teacher {spec!r}. Name it as one of: {usages}.")
    return _FACTORIES[prefix][1], model


def make_teachers(
    specs: Sequence[str], splits: Sequence[TaskDecisions], **flags: Any
) -> list[Teacher]:
    """The teachers called so, for the given splits; the same name twice is one teacher.

    Args:
        flags: settings by the factories' parameters, None for not given. Each factory gets those
            that it has a use for.

    Raises:
        DHRDError: an unknown teacher, a flag that none of them has a use for, or what a factory
            raises.
    """
    refuse_useless(specs, **flags)
    made = {}
    for spec in dict.fromkeys(specs):
        factory, model = find_factory(spec)
        made[spec] = factory(model, splits, **_understood(factory, flags))
    return [made[spec] for spec in specs]


def refuse_useless(specs: Sequence[str], **flags: Any) -> None:
    """Raise a DHRDError for a given flag that none of the teachers called so has a use for."""
    useful = {name for spec in specs for name in _understood(find_factory(spec)[0], flags)}
    useless = {name for name, value in flags.items() if value is not None} - useful
    if useless:
        names = ", ".join(sorted(map(_flag, useless)))
        who = " and ".join(map(repr, dict.fromkeys(specs)))
        raise DHRDError(f"{names}: of no use with {who}. Leave out.")


def _understood(factory: Factory, flags: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters
    return {
        name: value for name, value in flags.items() if value is not None and name in parameters
    }


def make_teacher(spec: str, splits: Sequence[TaskDecisions], **flags: Any) -> Teacher:
    """One teacher; see `make_teachers`."""
    return make_teachers([spec], splits, **flags)[0]


def _flag(parameter: str) -> str:
    """The command-line flags behind a factory's parameter."""
    behind = {"prices": "--price-in/--price-out", "budget": "--max-cost/--max-tokens"}
    return behind.get(parameter, f"--{parameter.replace('_', '-')}")
