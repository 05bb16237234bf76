"""Scores of single documents, and what each SuperGLUE task contributes to the average.

`results` are the harness's: (log-likelihood in nats, is greedy) per choice, in choice order. What
is aggregated over documents is logged as a tuple that ends in (gold, prediction).
"""

from collections.abc import Sequence
from statistics import fmean

from lm_eval.tasks.super_glue.cb.aggregate import cb_multi_fi
from lm_eval.tasks.super_glue.multirc.t5_utils import agg_em, agg_f1

Results = Sequence[tuple[float, bool]]


def prediction(results: Results) -> int:
    """Index of the likeliest choice; the first of several."""
    log_likelihoods = [log_likelihood for log_likelihood, _ in results]
    return log_likelihoods.index(max(log_likelihoods))


def accuracy(doc: dict, results: Results) -> dict[str, float]:
    right = float(prediction(results) == doc["label"])
    return {"acc": right, "score": right}


def cb(doc: dict, results: Results) -> dict[str, float | tuple[int, int]]:
    gold, predicted = doc["label"], prediction(results)
    return {
        "acc": float(predicted == gold),
        "f1": (gold, predicted),
        "score": (gold, predicted),
    }


def multirc(doc: dict, results: Results) -> dict[str, float | tuple]:
    """`acc` of the single answer, F1a over all answers, EM over those of one question."""
    gold, predicted = doc["label"], prediction(results)
    judged = (question(doc), gold, predicted)
    return {
        "acc": float(predicted == gold),
        "f1a": (gold, predicted),
        "em": judged,
        "score": judged,
    }


def question(doc: dict) -> str:
    """What the answers of one MultiRC question share: "paragraph/question"."""
    return f"{doc['idx']['paragraph']}/{doc['idx']['question']}"


def mean_of_f1_and_acc(items: Sequence[tuple[int, int]]) -> float:
    """CB: (macro-F1 + accuracy) / 2 of (gold, prediction)."""
    return fmean([float(cb_multi_fi(items)), fmean(gold == pred for gold, pred in items)])


def mean_of_f1a_and_em(items: Sequence[tuple[str, int, int]]) -> float:
    """MultiRC: (F1a + EM) / 2 of (question, gold, prediction)."""
    f1a = agg_f1([(gold, predicted) for _, gold, predicted in items])
    return fmean([float(f1a), float(agg_em(items))])
