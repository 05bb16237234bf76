"""The prompts that teachers are asked with, all in one place.

A prompt's hash is stored in every record and in the output's sidecar: change a word here, and
resuming a file that was begun with the old wording is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from dhrd_plugin.decisions import Decision
from teachers.checks import (
    END_OF_REASONING,
    MAX_SENTENCES,
    MIN_SENTENCES,
    VERDICT_WORDS,
    answer_options,
    forbidden_words,
    letter,
)

# The harness's stock `multirc` (0.4.13) offers [yes, no] but rewards "no" for a right answer.
INVERTED_TASKS = {"multirc": ("yes", "no")}

WORDS_RULE = "Do not use any of these words, or synonyms of them, in the explanation: {words}."
LETTERS_RULE = (
    "Do not refer to a choice by its letter or position in the explanation; speak of its content."
)


@dataclass(frozen=True)
class Prompt:
    """A way to ask for a rationale.

    Attributes:
        origin: what a record calls it ("hinted": the gold answer is shown).
        template: text with the fields question, choices, gold, rule and options.
        opening: how a local model's explanation is made to begin; part of the rationale.
    """

    origin: str
    template: str
    opening: str

    def render(self, decision: Decision) -> str:
        """The prompt for one decision."""
        words = forbidden_words(decision)
        return self.template.format(
            question=decision.context.strip() or "Which of the choices fits best?",
            choices="\n".join(named_choices(decision)),
            gold=named_choices(decision)[decision.label],
            rule=WORDS_RULE.format(words=", ".join(words)) if words else LETTERS_RULE,
            options=" or ".join(f'"Answer: {option}"' for option in answer_options(decision)),
        )

    @property
    def sha(self) -> str:
        """Hash of all wording that goes into a rendered prompt."""
        wording = [self.template, self.opening, WORDS_RULE, LETTERS_RULE, *VERDICT_WORDS]
        return hashlib.sha256(json.dumps(wording).encode()).hexdigest()[:16]


def named_choices(decision: Decision) -> list[str]:
    """The choices as a prompt shows them: label words as they are, candidates with a letter."""
    if decision.formulation == "labels":
        return list(decision.choices)
    return [f"({letter(i)}) {choice}" for i, choice in enumerate(decision.choices)]


HINTED = Prompt(
    origin="hinted",
    template=f"""\
Read the question and explain why its answer is the right one.

Question:
{{question}}

Choices:
{{choices}}

Right answer: {{gold}}

Write a short explanation of {MIN_SENTENCES} to {MAX_SENTENCES} sentences that reasons step by \
step from the words of the question to the right answer.
- {{rule}}
- End the explanation with {END_OF_REASONING}
- Then, on a new line, write {{options}}.""",
    opening="We are told that",
)
