"""SuperGLUE as yes-no questions about candidate answers, and back to each task's own metric.

The first half makes rows, the second half puts together the candidates of one question. `results`
are the harness's: (log-likelihood in nats, is greedy) of "No" and of "Yes".
"""

from collections.abc import Callable, Sequence
from functools import wraps
from statistics import fmean

import datasets
from lm_eval.tasks.super_glue.cb.aggregate import cb_multi_fi
from lm_eval.tasks.super_glue.wsc.preprocess_wsc import default_doc_to_text as stock_wsc_prompt

CB_CLASSES = ("True", "False", "Neither")  # by label, named as in the stock task
COPA_QUESTIONS = {
    "cause": "What was the cause of this?",
    "effect": "What happened as a result?",
}
Candidate = tuple[int, int, int, float]  # (question, candidate, is correct, log-odds of "Yes")


def row(idx: int | dict, passage: str, question: str, answer: str, correct: bool) -> dict:
    return {
        "idx": idx,
        "passage": passage,
        "question": question,
        "answer": answer,
        "label": int(correct),
    }


def process_docs(to_rows: Callable[[dict], list[dict]]) -> Callable:
    """Make the rows of a whole data set out of those of one document."""

    @wraps(to_rows)
    def rows(dataset: datasets.Dataset) -> datasets.Dataset:
        return datasets.Dataset.from_list([made for doc in dataset for made in to_rows(doc)])

    return rows


@process_docs
def boolq(doc: dict) -> list[dict]:
    return [row(doc["idx"], doc["passage"], f"{doc['question']}?", "True", doc["label"] == 1)]


@process_docs
def cb(doc: dict) -> list[dict]:
    """One row per class."""
    question = (
        f'Is the hypothesis "{doc["hypothesis"]}" entailed by the passage: True, False, or Neither?'
    )
    return [
        row(_part(doc, i), doc["premise"], question, name, i == doc["label"])
        for i, name in enumerate(CB_CLASSES)
    ]


@process_docs
def copa(doc: dict) -> list[dict]:
    """One row per alternative."""
    question = COPA_QUESTIONS[doc["question"]]
    return [
        row(_part(doc, i), doc["premise"], question, doc[f"choice{i + 1}"], i == doc["label"])
        for i in range(2)
    ]


@process_docs
def multirc(doc: dict) -> list[dict]:
    correct = doc["label"] == 1
    return [row(doc["idx"], doc["paragraph"], doc["question"], doc["answer"], correct)]


@process_docs
def rte(doc: dict) -> list[dict]:
    question = f'Is the hypothesis "{doc["hypothesis"]}" entailed by the passage?'
    return [row(doc["idx"], doc["premise"], question, "True", doc["label"] == 0)]


@process_docs
def wic(doc: dict) -> list[dict]:
    question = f'Does the word "{doc["word"]}" have the same meaning in both sentences?'
    passage = f"{doc['sentence1']}\n{doc['sentence2']}"
    return [row(doc["idx"], passage, question, "True", doc["label"] == 1)]


@process_docs
def wsc(doc: dict) -> list[dict]:
    """The passage marks the pronoun, as the stock task's does."""
    passage = stock_wsc_prompt(doc).removeprefix("Passage: ").split("\nQuestion: ")[0]
    question = f'What does the pronoun "*{doc["span2_text"]}*" refer to?'
    return [row(doc["idx"], passage, question, doc["span1_text"], doc["label"] == 1)]


def _part(doc: dict, candidate: int) -> dict[str, int]:
    """Names a row's question and its place among the question's candidates."""
    return {"question": doc["idx"], "candidate": candidate}


def copa_candidate(doc: dict, results: Sequence[tuple[float, bool]]) -> dict:
    """`row_acc` of the single row; the others are aggregated over a question's candidates."""
    (no, _), (yes, _) = results
    index, correct = doc["idx"], doc["label"]
    judged: Candidate = (index["question"], index["candidate"], correct, yes - no)
    return {"row_acc": float((yes > no) == correct), "acc": judged, "score": judged}


def cb_candidate(doc: dict, results: Sequence[tuple[float, bool]]) -> dict:
    scores = copa_candidate(doc, results)
    return scores | {"f1": scores["acc"]}


def chosen(items: Sequence[Candidate], n_candidates: int) -> list[tuple[int, int]]:
    """(gold, prediction) per question: its correct candidate and that with the largest P("Yes").

    Log-odds order as P("Yes") does and do not round to 1. Processes hand in rows in any order. A
    question some of whose candidates are missing (the last one under `--limit`) is left out.
    """
    questions: dict[int, list[Candidate]] = {}
    for item in sorted(items):
        questions.setdefault(item[0], []).append(item)
    pairs = []
    for candidates in questions.values():
        if len(candidates) == n_candidates:
            gold = max(candidates, key=lambda item: item[2])
            predicted = max(candidates, key=lambda item: item[3])
            pairs.append((gold[1], predicted[1]))
    return pairs


def _accuracy(pairs: Sequence[tuple[int, int]]) -> float:
    return fmean(gold == predicted for gold, predicted in pairs) if pairs else float("nan")


def _macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    return float(cb_multi_fi(pairs)) if pairs else float("nan")


def copa_acc(items: Sequence[Candidate]) -> float:
    return _accuracy(chosen(items, 2))


def cb_acc(items: Sequence[Candidate]) -> float:
    return _accuracy(chosen(items, len(CB_CLASSES)))


def cb_f1(items: Sequence[Candidate]) -> float:
    return _macro_f1(chosen(items, len(CB_CLASSES)))


def cb_score(items: Sequence[Candidate]) -> float:
    """(macro-F1 + accuracy) / 2."""
    return fmean([cb_f1(items), cb_acc(items)])
