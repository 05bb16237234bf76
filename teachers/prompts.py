"""The prompts that teachers are asked with; their wording is in `prompts.toml`."""

from __future__ import annotations

import hashlib
import json
import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError
from teachers.checks import (
    END_OF_REASONING,
    VERDICT_WORDS,
    answer_options,
    forbidden_words,
    letter,
)

# The harness's stock `multirc` (0.4.13) offers [yes, no] but rewards "no" for a right answer.
INVERTED_TASKS = {"multirc": ("yes", "no")}

View = Literal["input", "rationale", "both"]  # what a judge is shown of a row
Message = dict[str, str]  # {"role": "user" | "assistant", "content": …}

# Fields of each template: those it must have, and those it may have.
_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "hinted.template": ({"question", "gold"}, {"choices", "rule", "answer_lines"}),
    "blind.template": ({"question"}, {"choices", "rule", "answer_lines"}),
    "hinted.opening": (set(), set()),
    "blind.opening": (set(), set()),
    "rules.words": ({"words"}, set()),
    "rules.letters": (set(), set()),
    "judge.input": ({"question", "options"}, {"choices"}),
    "judge.rationale": ({"rationale", "options"}, {"choices"}),
    "judge.both": ({"question", "rationale", "options"}, {"choices"}),
}


@dataclass(frozen=True)
class Example:
    """A worked example shown before the question: a row and the rationale written for it."""

    decision: Decision
    rationale: str


@dataclass(frozen=True)
class Prompt:
    """A way to ask for a rationale.

    Attributes:
        origin: what a record calls it ("hinted": the gold answer is shown; "blind": it is not).
        template: text with the fields question, choices, gold, rule and answer_lines.
        opening: how a local model's explanation is made to begin; part of the rationale.
        words_rule, letters_rule: what stands for the field rule.
        examples: worked examples, by task; a row is never its own example.
    """

    origin: str
    template: str
    opening: str
    words_rule: str
    letters_rule: str
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)

    def messages(self, decision: Decision) -> list[Message]:
        """The chat for one decision: each example as a turn and its reply, then the question."""
        chat = []
        for example in self.examples.get(decision.task, ()):
            if example.decision.id != decision.id:
                chat.append(_said("user", self._render(example.decision)))
                chat.append(_said("assistant", worked_reply(example)))
        return [*chat, _said("user", self._render(decision))]

    def _render(self, decision: Decision) -> str:
        words = forbidden_words(decision)
        return self.template.format(
            question=_question(decision),
            choices="\n".join(named_choices(decision)),
            gold=named_choices(decision)[decision.label],
            rule=self.words_rule.format(words=", ".join(words)) if words else self.letters_rule,
            answer_lines=" or ".join(f'"Answer: {o}"' for o in answer_options(decision)),
        ).strip()

    @property
    def sha(self) -> str:
        """Hash of all wording that goes into a rendered prompt."""
        wording = [self.template, self.opening, self.words_rule, self.letters_rule, *VERDICT_WORDS]
        shown = [
            [example.decision.id, example.decision.input_sha, example.rationale]
            for task in sorted(self.examples)
            for example in self.examples[task]
        ]
        return _sha([*wording, *shown])


@dataclass(frozen=True)
class JudgePrompt:
    """A way to ask for the answer alone; the reply is one of `checks.answer_options`."""

    view: View
    template: str

    def messages(self, decision: Decision, rationale: str) -> list[Message]:
        """The chat for one decision; views that show no rationale leave it out."""
        content = self.template.format(
            question=_question(decision),
            rationale=rationale,
            choices="\n".join(named_choices(decision)),
            options=", ".join(answer_options(decision)),
        )
        return [_said("user", content.strip())]


@dataclass(frozen=True)
class Prompts:
    """All prompts of a run."""

    hinted: Prompt
    blind: Prompt
    judge: Mapping[View, JudgePrompt]

    def with_examples(self, examples: Mapping[str, Sequence[Example]]) -> Prompts:
        """These prompts, with worked examples by task before the question."""
        return replace(
            self,
            hinted=replace(self.hinted, examples=examples),
            blind=replace(self.blind, examples=examples),
        )

    @property
    def judge_sha(self) -> str:
        """Hash of the judge's wording."""
        return _sha([self.judge[view].template for view in get_args(View)])


def load_prompts(path: str | Path | None = None) -> Prompts:
    """Our own wording, or a user's file laid over it.

    Raises:
        DHRDError: an unreadable file, an unknown section or key, or a template with an unknown or
            missing field (a blind one that shows the gold answer, say); file and key are named.
    """
    wording = tomllib.loads(files("teachers").joinpath("prompts.toml").read_text(encoding="utf-8"))
    if path is not None:
        for section, lines in _read(Path(path)).items():
            wording[section].update(lines)
    rules = wording["rules"]
    asked = {
        origin: Prompt(
            origin=origin,
            template=wording[origin]["template"],
            opening=wording[origin]["opening"],
            words_rule=rules["words"].strip(),
            letters_rule=rules["letters"].strip(),
        )
        for origin in ("hinted", "blind")
    }
    judge = {view: JudgePrompt(view, wording["judge"][view]) for view in get_args(View)}
    return Prompts(hinted=asked["hinted"], blind=asked["blind"], judge=judge)


def _read(path: Path) -> dict[str, dict[str, str]]:
    """A user's prompt file, checked key by key."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DHRDError(f"Cannot read prompts from {path}: {error.strerror or error}.") from None
    except ValueError as error:  # TOML and UTF-8 errors
        raise DHRDError(f"{path}: not valid TOML ({error}).") from None
    for section, lines in given.items():
        known = [key.partition(".")[2] for key in _FIELDS if key.startswith(f"{section}.")]
        if not known or not isinstance(lines, dict):
            raise DHRDError(
                f"{path}: {section!r} is no section of a prompt file. Those are "
                "[hinted], [blind], [rules] and [judge]."
            )
        for key, text in lines.items():
            if key not in known or not isinstance(text, str):
                raise DHRDError(
                    f"{path}: [{section}] {key} = {text!r}: need text under {', '.join(known)}."
                )
            _check_fields(text, f"{section}.{key}", path)
    return given


def _check_fields(text: str, key: str, path: Path) -> None:
    required, optional = _FIELDS[key]
    try:
        parts = string.Formatter().parse(text)
        fields = [(name, form, how) for _, name, form, how in parts if name is not None]
    except ValueError as error:
        raise DHRDError(f"{path}: {key}: {error}. Double braces that are no field.") from None
    used = {name for name, _, _ in fields}
    allowed = ", ".join(sorted(required | optional)) or "none"
    if unknown := sorted(used - required - optional):
        raise DHRDError(
            f"{path}: {key} has the field {{{unknown[0]}}}; its fields are: {allowed}. "
            "Double braces that are no field."
        )
    for name, form, conversion in fields:
        if form or conversion:
            raise DHRDError(f"{path}: {key}: write {{{name}}} alone, without ':' or '!' in it.")
    if missing := sorted(required - used):
        raise DHRDError(f"{path}: {key} lacks the field {{{missing[0]}}}; its fields: {allowed}.")
    if key.endswith(".template") and END_OF_REASONING not in text:
        raise DHRDError(
            f"{path}: {key} must ask for {END_OF_REASONING} after the explanation, and for the "
            "answer line after that: replies are read by them."
        )


def worked_reply(example: Example) -> str:
    """An example's reply, in the form that replies must have."""
    answer = answer_options(example.decision)[example.decision.label]
    return f"{example.rationale} {END_OF_REASONING}\nAnswer: {answer}"


def named_choices(decision: Decision) -> list[str]:
    """The choices as a prompt shows them: label words as they are, candidates with a letter."""
    if decision.formulation == "labels":
        return list(decision.choices)
    return [f"({letter(i)}) {choice}" for i, choice in enumerate(decision.choices)]


def _question(decision: Decision) -> str:
    return decision.context.strip() or "Which of the choices fits best?"


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _sha(wording: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(wording).encode()).hexdigest()[:16]
