"""What makes a rationale acceptable: its form, its answer, and no answer words inside it.

Everything here is a pure function of text and a decision, so that an imported rationale, a reply
from a server and a locally generated one are held to the same rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dhrd_plugin.decisions import Decision

END_OF_REASONING = "[END OF REASONING]"
MIN_SENTENCES, MAX_SENTENCES = 2, 5

# Why an attempt was rejected, as stored in the rejected file, and in words for people.
REASONS = {
    "form": "broken form",
    "answer": "answer is not the gold one",
    "leak": "answer words in the explanation",
    "failed": "request failed",
}

# Words that give a verdict away, used for tasks whose labels are such words (yes/no, true/false,
# entailment …). A star stands for any ending. "right", "wrong" and "implies" are left out: they
# have everyday meanings ("the right hand"), and hand-checked rationales use them harmlessly.
VERDICT_WORDS = (
    "yes",
    "no",
    "true",
    "untrue",
    "false",
    "correct",
    "correctly",
    "incorrect",
    "incorrectly",
    "entail*",
    "contradict*",
    "neutral",
    "affirmative",
)

_REPLY = re.compile(
    rf"(?P<rationale>.*?)\s*{re.escape(END_OF_REASONING)}[ \t]*\n\s*"
    r"Answer:[ \t]*(?P<answer>[^\n]+?)\s*",
    re.DOTALL,
)
# A sentence ends with . ! or ?, closing quotes included, before a space or the end of the text.
_SENTENCE = re.compile(r".+?[.!?]+[\"'”’)\]]*(?=\s|$)", re.DOTALL)
_NUMBERED = r"(?i:choice|option|candidate|alternative|answer)s?[\s:#]+(?:is\s+)?"
_ORDINAL = r"(?i:(?:first|1st|second|2nd|third|3rd|fourth|4th|fifth|5th|last|former|latter)\s+)"
_QUOTE = r"[\"'“”‘’*]"


@dataclass(frozen=True)
class Verdict:
    """Whether a rationale is kept, and what was measured on the way.

    Attributes:
        reason: a key of `REASONS`, or None when the rationale is kept.
        detail: what exactly was wrong, for the rejected file.
        checks: the record's `checks` object.
    """

    reason: str | None
    detail: str
    checks: dict[str, Any]


def judge(
    decision: Decision, rationale: str, *, answer: str | None, problem: str | None = None
) -> Verdict:
    """Hold a rationale to the rules.

    Args:
        answer: what the teacher wrote after "Answer:"; None for a rationale that has no answer line
            (an imported one), which is then checked for leaks only.
        problem: what the adapter found wrong with the form, if anything.
    """
    chosen = None if answer is None else match_answer(decision, answer)
    leaked = leaked_words(decision, rationale)
    checks = {
        "answer": answer,
        "answer_matches": None if answer is None else chosen in decision.gold,
        "leaked_words": leaked,
        "words": len(rationale.split()),
    }
    if problem is not None:
        return Verdict("form", problem, checks)
    if checks["answer_matches"] is False:
        return Verdict("answer", f"answered {answer!r}, gold is {decision.label_text!r}", checks)
    if leaked:
        return Verdict("leak", f"contains {', '.join(leaked)}", checks)
    return Verdict(None, "", checks)


def parse_reply(text: str) -> tuple[str, str | None, str | None]:
    """(rationale, answer, problem) of a reply that should end with the sentinel and answer line.

    `problem` is None when the form was kept to.
    """
    match = _REPLY.fullmatch(text.strip())
    if match is None:
        rationale = text.partition(END_OF_REASONING)[0].strip()
        if END_OF_REASONING not in text:
            return rationale, None, f"no {END_OF_REASONING}"
        return rationale, None, f"no single line 'Answer: …' right after {END_OF_REASONING}"
    rationale = match["rationale"].strip()
    return rationale, match["answer"], length_problem(rationale)


def length_problem(rationale: str) -> str | None:
    """What is wrong with the number of sentences, if anything."""
    count = len(sentences(rationale))
    if MIN_SENTENCES <= count <= MAX_SENTENCES:
        return None
    return f"{count} complete sentences, need {MIN_SENTENCES} to {MAX_SENTENCES}"


def distribution_problem(decision: Decision, probs: Any) -> str | None:
    """What keeps `probs`, as read from JSON, from being a distribution over the choices, if
    anything."""
    valid = isinstance(probs, list | tuple) and all(
        isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1 for p in probs
    )
    if valid and len(probs) == len(decision.choices) and abs(sum(probs) - 1) <= 1e-3:
        return None
    return (
        f"{probs!r}, need a probability for each of the {len(decision.choices)} choices "
        f"({', '.join(decision.choices)}), together 1, or null"
    )


def sentences(text: str) -> list[str]:
    """The complete sentences of `text`; an unfinished last one is left out.

    Abbreviations count as ends ("Mr. Smith"): good enough for the generous bounds.
    """
    return [sentence.strip() for sentence in _SENTENCE.findall(text)]


def letter(index: int) -> str:
    """A, B, …, Z, AA, AB, …: the name of a candidate in a prompt."""
    name = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def answer_options(decision: Decision) -> tuple[str, ...]:
    """What may stand after "Answer:": the label words, or the candidates' letters."""
    if decision.formulation == "labels":
        return decision.choices
    return tuple(letter(i) for i in range(len(decision.choices)))


def match_answer(decision: Decision, answer: str) -> int | None:
    """Index of the choice that an answer line names, by option or by text; None for neither."""
    given = _bare(answer)
    for options in (answer_options(decision), decision.choices):
        for index, option in enumerate(options):
            if given == _bare(option):
                return index
    lettered = re.match(r"\(?([A-Z]+)[).:]", answer)  # "(A) the whole text of the candidate"
    if decision.formulation == "candidates" and lettered:
        return next(
            (i for i, name in enumerate(answer_options(decision)) if name == lettered[1]), None
        )
    return None


def _bare(text: str) -> str:
    return text.strip(" \t.\"'()“”‘’").casefold()


def forbidden_words(decision: Decision) -> tuple[str, ...]:
    """The words an explanation must not contain; none for choices that are named by a letter."""
    if _named_by_symbol(decision):
        return ()
    own = tuple(dict.fromkeys(choice.lower() for choice in decision.choices if choice))
    verdict = _pattern(VERDICT_WORDS)
    if any(verdict.search(choice) for choice in own):
        return (*own, *(word for word in VERDICT_WORDS if word not in own))
    return own


def leaked_words(decision: Decision, rationale: str) -> list[str]:
    """Answer words in `rationale`, in lower case, each once, in order of appearance.

    For the labels formulation: the label words themselves and, where they are verdicts, their
    synonyms. For candidates (and labels of one character): phrases such as "option (B)" or "the
    second choice"; the candidates' own words are the matter of the question, not a leak.
    """
    if _named_by_symbol(decision):
        pattern = _choice_phrases(decision)
    else:
        pattern = _pattern(forbidden_words(decision))
    found = (" ".join(match.group().lower().split()) for match in pattern.finditer(rationale))
    return list(dict.fromkeys(found))


def _named_by_symbol(decision: Decision) -> bool:
    return decision.formulation == "candidates" or all(len(c) == 1 for c in decision.choices)


def _pattern(words: tuple[str, ...]) -> re.Pattern:
    """Whole words in any case; a hyphen joins words ("no-one") but for "non-", an underscore (of
    emphasis) does not; a final star is any ending."""
    parts = [re.escape(word.rstrip("*")) + (r"\w*" if word.endswith("*") else "") for word in words]
    word = rf"(?:non-)?(?:{'|'.join(parts)})"
    return re.compile(rf"(?<![^\W_])(?<!-){word}(?!-|[^\W_])", re.IGNORECASE)


def _choice_phrases(decision: Decision) -> re.Pattern:
    names = "|".join(re.escape(name) for name in answer_options(decision))
    count = len(decision.choices)
    # A bare letter must be a capital ("answers a question" is no leak); in brackets any case is.
    numbers = f"[1-{min(count, 9)}]"
    bare = rf"{_NUMBERED}(?:{names}|{numbers})\b"
    quoted = (
        rf"{_NUMBERED}{_QUOTE}+(?:{names}|{numbers}){_QUOTE}+"  # "A dog barks" begins with no name
    )
    subject = rf"\b(?:{names})\s+is\s+the\b"
    bracketed = rf"(?:{_NUMBERED})?\((?i:{names})\)"
    ordinal = rf"{_ORDINAL}(?i:choice|option|candidate|alternative|answer)\b"
    return re.compile(f"{bare}|{quoted}|{subject}|{bracketed}|{ordinal}")
