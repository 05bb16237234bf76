"""One document and what two models make of it, ready to be shown."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from dhrd_plugin.decisions import Pair
from dhrd_plugin.report.answers import Answer
from dhrd_plugin.report.visible import visible

BOTH_RIGHT, FIXED, BROKEN, BOTH_WRONG = "both-right", "fixed", "broken", "both-wrong"
# In which order documents are shown, and what the kinds mean.
KINDS = {
    FIXED: "A wrong, B right",
    BROKEN: "A right, B wrong",
    BOTH_WRONG: "both wrong, with different answers",
}
MAX_SHOWN = 8  # choices of a document


@dataclass(frozen=True)
class Reply:
    """A model's answer.

    Attributes:
        said: index of the choice that it comes to; None for a decoded answer that names none.
        probs: per choice; None for decoded answers.
        written, reasoning: the answer found in a decoded text, and that text; else None.
    """

    right: bool
    said: int | None
    probs: tuple[float, ...] | None
    written: str | None
    reasoning: str | None

    @property
    def confidence(self) -> float:
        """The probability of the likeliest choice; 0 for decoded answers, which have none."""
        return max(self.probs, default=0.0) if self.probs else 0.0


@dataclass(frozen=True)
class Document:
    """A document as both models answered it. Its texts are `visible`.

    Attributes:
        question: as the model read it that was shown less around it (examples, instructions).
        choices: empty where both models wrote freely.
        gold: indices of the right choices as far as known; `gold_text` has them in words.
        pairs: (context, continuation) per choice, exactly as each model that was given choices was
            asked.
    """

    doc_id: int
    question: str
    choices: tuple[str, ...]
    gold: frozenset[int]
    gold_text: str
    a: Reply
    b: Reply
    pairs: tuple[tuple[Pair, ...], ...]

    @property
    def kind(self) -> str:
        if self.a.right:
            return BOTH_RIGHT if self.b.right else BROKEN
        return FIXED if self.b.right else BOTH_WRONG

    @property
    def differs(self) -> bool:
        """Whether one is right and one wrong, or both are wrong in different ways."""
        if self.kind == BOTH_WRONG:
            return _gist(self.a) != _gist(self.b)
        return self.a.right != self.b.right

    @property
    def confidence(self) -> float:
        """How sure the wrong model was; of two the surer one."""
        return max((reply.confidence for reply in (self.a, self.b) if not reply.right), default=0.0)

    @property
    def notable(self) -> list[int]:
        """The choices worth showing: all, or of very many the right ones, those that were said and
        the likeliest of the others."""
        kept = set(self.gold) | {r.said for r in (self.a, self.b) if r.said is not None}
        others = sorted(set(range(len(self.choices))) - kept, key=self._largest_prob, reverse=True)
        return sorted([*kept, *others[: max(0, MAX_SHOWN - len(kept))]])

    def _largest_prob(self, choice: int) -> float:
        return max((r.probs[choice] for r in (self.a, self.b) if r.probs), default=0.0)


def pair_up(a: Answer, b: Answer) -> Document:
    """One document out of two models' answers to it, given in the same choices if in any."""
    asked = min((a, b), key=lambda answer: (not answer.choices, len(answer.question)))
    gold = a.gold | b.gold
    golds = [asked.choices[i] for i in sorted(gold)] or [asked.target.strip()]
    return Document(
        doc_id=a.doc_id,
        question=visible(asked.question),
        choices=tuple(map(visible, asked.choices)),
        gold=gold,
        gold_text=visible(" / ".join(golds)),
        a=_reply(a, asked),
        b=_reply(b, asked),
        pairs=tuple(answer.pairs for answer in (a, b) if answer.pairs),
    )


def _reply(answer: Answer, asked: Answer) -> Reply:
    written, reasoning = (
        None if text is None else visible(text).strip()
        for text in (answer.written, answer.reasoning)
    )
    said = answer.predicted
    if answer.written is not None:
        said = _named(answer.written, asked)
    return Reply(answer.right, said, answer.probs, written, reasoning)


def _named(written: str, asked: Answer) -> int | None:
    """The choice that a decoded answer names: by its text or the whole continuation, else by the
    letter that it is listed under, alone or before the text."""
    continuations = [continuation for _, continuation in asked.pairs]
    texts = list(zip(asked.choices, continuations, strict=True))
    listed = [
        (letter, *(f"{letter} {text}" for text in forms))
        for letter, forms in zip(string.ascii_uppercase, texts, strict=False)
    ]
    for known in (texts, listed):
        named = [i for i, forms in enumerate(known) if _plain(written) in map(_plain, forms)]
        if len(named) == 1:
            return named[0]
    return None


def _plain(text: str) -> str:
    """The words of `text` in lower case: punctuation, markdown and spacing do not tell answers
    apart."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _gist(reply: Reply) -> int | str:
    return _plain(reply.written or "") if reply.said is None else reply.said
