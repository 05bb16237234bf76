"""Prompts of the chain-of-thought tasks that a template cannot write, and scores of their answers.

`results` hold one text, the answer line. It counts only if it names one of the choices and says
nothing else; any other is unparsable, and wrong.
"""

import string
from collections.abc import Iterable, Sequence

from lm_eval.tasks.super_glue.copa import utils as stock_copa
from lm_eval.tasks.super_glue.record.t5_utils import normalize_squad, squad_em_agg, squad_f1_agg
from lm_eval.tasks.super_glue.wsc.preprocess_wsc import default_doc_to_text as stock_wsc_prompt

LETTERS = "AB"
UNPARSABLE = -1  # in place of a choice's index


def plain(text: str) -> str:
    """Lower case, without punctuation (markdown's included) and surplus whitespace."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.split())


def named(answer: str, choices: Sequence[Iterable[str]]) -> int:
    """Index of the first choice that `answer` is one of the forms of, or UNPARSABLE."""
    for index, forms in enumerate(choices):
        if plain(answer) in map(plain, forms):
            return index
    return UNPARSABLE


def exact_match(predicted: int, gold: int) -> dict[str, float]:
    return {
        "exact_match": float(predicted == gold),
        "unparsable": float(predicted == UNPARSABLE),
    }


def yes_no(doc: dict, results: Sequence[str]) -> dict[str, float]:
    return exact_match(named(results[0], [["no"], ["yes"]]), doc["label"])


def rte(doc: dict, results: Sequence[str]) -> dict[str, float]:
    return exact_match(named(results[0], [["True"], ["False"]]), doc["label"])


def cb(doc: dict, results: Sequence[str]) -> dict[str, float | tuple[int, int]]:
    """For F1 an unparsable answer is of no class."""
    predicted = named(results[0], [["True"], ["False"], ["Neither"]])
    return exact_match(predicted, doc["label"]) | {"f1": (doc["label"], predicted)}


def multirc(doc: dict, results: Sequence[str]) -> dict[str, float | tuple]:
    """For F1a and EM an unparsable answer is the wrong one, as in the harness's T5 tasks."""
    gold = doc["label"]
    predicted = named(results[0], [["no"], ["yes"]])
    judged = (gold, 1 - gold if predicted == UNPARSABLE else predicted)
    question = f"{doc['idx']['paragraph']}/{doc['idx']['question']}"
    return exact_match(predicted, gold) | {"f1a": judged, "em": (question, *judged)}


def wsc_prompt(doc: dict) -> str:
    return f"{stock_wsc_prompt(doc)}\nReasoning:"


def copa_alternatives(doc: dict) -> list[str]:
    return [choice.strip() for choice in stock_copa.doc_to_choice(doc)]


def copa_prompt(doc: dict) -> str:
    """The stock prompt, the alternatives as (A) and (B), and what a student's rationale follows."""
    listed = zip(LETTERS, copa_alternatives(doc), strict=True)
    lines = [f"({letter}) {text}" for letter, text in listed]
    return "\n".join([stock_copa.doc_to_text(doc), *lines, "Reasoning:"])


def copa_target(doc: dict) -> str:
    return copa_alternatives(doc)[doc["label"]]


def copa(doc: dict, results: Sequence[str]) -> dict[str, float]:
    """An alternative is named by its letter, its text, or both."""
    listed = zip(LETTERS, copa_alternatives(doc), strict=True)
    forms = [(letter, text, f"{letter} {text}") for letter, text in listed]
    return exact_match(named(results[0], forms), doc["label"])


def record_prompt(doc: dict) -> str:
    """The stock text and query, the entities to choose from, and what a rationale follows."""
    text, *highlights = doc["passage"].strip().split("\n@highlight\n")
    listed = "".join(f"  - {highlight}.\n" for highlight in highlights)
    entities = "\n".join(["Entities:", *doc["entities"]])
    return f"{text}\n\n{listed}   - {doc['query']}\n{entities}\nReasoning:"


def record(doc: dict, results: Sequence[str]) -> dict[str, float]:
    """SQuAD's F1 and exact match of an entity, named by itself or by the query filled in with it.

    The last is what a student is trained to write. Articles do not matter, as in SQuAD.
    """
    query, entities = doc["query"], doc["entities"]
    forms = [(entity, query.replace("@placeholder", entity)) for entity in entities]
    choices = [[normalize_squad(form) for form in pair] for pair in forms]
    predicted = named(normalize_squad(results[0]), choices)
    if predicted == UNPARSABLE:
        return {"f1": 0.0, "em": 0.0, "unparsable": 1.0}
    # The harness's aggregations, of one group: the document's right answers, after "group_".
    pairs = [(entities[predicted], f"0_{normalize_squad(answer)}") for answer in doc["answers"]]
    return {"f1": float(squad_f1_agg(pairs)), "em": float(squad_em_agg(pairs)), "unparsable": 0.0}
