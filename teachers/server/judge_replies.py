"""What a reply that should be an answer option, and nothing else, tells about the choices."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from dhrd_plugin.decisions import Decision
from teachers.checks import answer_options, match_answer

LEAST_COVERED = 0.5  # probability that must lie on tokens which name an option
# Models put things around an answer, the word "Answer:" in front of all.
_LEAD = re.compile(r"[\s\"'“‘(\[*`_]*(?:answer\s*:)?[\s\"'“‘(\[*`]*", re.IGNORECASE)
_AROUND = " \t\n.,;:\"'“”‘’()[]*`"


def chosen(decision: Decision, text: str) -> int | None:
    """Index of the choice that the first line of a reply names; None if it names none."""
    line, _, _ = text[_answer_start(text) :].partition("\n")
    return match_answer(decision, line.strip("*` "))


def option_probs(decision: Decision, tokens: Sequence[Any]) -> tuple[float, ...] | None:
    """P(choice), from the alternatives to the first token of the answer.

    P(c) is the sum of exp(logprob) over the alternatives that begin the option of c and no other,
    divided by that sum over all choices.

    Args:
        tokens: the reply's, as in `choices[0].logprobs.content`.

    Returns:
        None where the alternatives do not tell: half of the probability or more is on tokens that
        begin no option or several ("not" begins both "not_similar" and "not_sure").
    """
    start = _answer_start("".join(token.token for token in tokens))
    end = 0
    for token in tokens:
        end += len(token.token)
        if end > start:
            break
    else:
        return None
    options = [option.strip(_AROUND).casefold() for option in answer_options(decision)]
    mass = [0.0] * len(options)
    for alternative in token.top_logprobs:
        begun = alternative.token.strip(_AROUND).casefold()
        begins = [i for i, option in enumerate(options) if begun and option.startswith(begun)]
        if len(begins) == 1:
            mass[begins[0]] += math.exp(alternative.logprob)
    covered = sum(mass)
    if covered < LEAST_COVERED:
        return None
    return tuple(m / covered for m in mass)


def _answer_start(text: str) -> int:
    lead = _LEAD.match(text)
    return lead.end() if lead else 0
