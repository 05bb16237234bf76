"""COPA as a chain-of-thought task: both alternatives in the prompt, either way of naming one."""

import string

from lm_eval.tasks.super_glue.copa import utils as stock

LETTERS = "AB"


def copa_alternatives(doc: dict) -> list[str]:
    return [choice.strip() for choice in stock.doc_to_choice(doc)]


def copa_prompt(doc: dict) -> str:
    """The stock prompt, the alternatives as (A) and (B), and what a student's rationale follows."""
    listed = zip(LETTERS, copa_alternatives(doc), strict=True)
    lines = [f"({letter}) {text}" for letter, text in listed]
    return "\n".join([stock.doc_to_text(doc), *lines, "Reasoning:"])


def copa_answers(resps: list[list[str]], docs: list[dict]) -> list[list[str]]:
    """Answer lines as the text of the alternative that they name; others stay as they are: wrong.

    An alternative is named by its letter, its text, or both; case and punctuation do not matter.
    """
    return [
        [_named(answer, copa_alternatives(doc)) for answer in answers]
        for answers, doc in zip(resps, docs, strict=True)
    ]


def _named(answer: str, alternatives: list[str]) -> str:
    for letter, text in zip(LETTERS, alternatives, strict=True):
        if _plain(answer) in {_plain(form) for form in (letter, text, f"{letter} {text}")}:
            return text
    return answer


def _plain(text: str) -> str:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.split())
