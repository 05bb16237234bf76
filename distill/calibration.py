"""Calibration on dev rows: is a choice given 80% right four times in five? Pure functions.

Everywhere a row is the log-probabilities (nats) of its choices and the set of its gold choices.
Rows may differ in their number of choices. Several gold choices count as one event, as in the loss:
its probability is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

from dhrd_plugin.confidence import BINS, accuracy_by_coverage, by_confidence

TEMPERATURE_RANGE = (0.05, 20.0)
COVERAGES = (50, 80, 90, 100)  # percent of the rows
# A gold choice of probability 0 has an infinite loss, which JSON cannot hold: about -708 nats.
LEAST_LOG_PROB = float(np.log(np.finfo(np.float64).tiny))


def fit_temperature(log_probs: Sequence[Sequence[float]], gold: Sequence[frozenset[int]]) -> float:
    """The T > 0 that minimises the mean of `-log sum_{c in gold} softmax(log_probs / T)_c`.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599); scikit-learn's (1.8 and later) is the
    same for one gold choice and a fixed set of classes. T above 1 makes an overconfident student
    less sure, T below 1 an underconfident one surer. The ranking of the choices stays as it is.

    T is kept within `TEMPERATURE_RANGE`, since few rows make it noisy; its upper end, almost
    uniform, is what rows ask for that are wrong more often than chance. When no row is wrong they
    do not determine T: the likelihood improves all the way to T = 0, where the student would be
    certain of everything. Then, and with nothing but rows whose gold choices have probability 0
    (which have an infinite loss at every T and are left out), T is 1: nothing is changed.

    Args:
        log_probs, gold: at least one row.
    """
    logits, is_gold = _stack(log_probs, gold)
    best_gold = np.where(is_gold, logits, -np.inf).max(axis=1)
    best_other = np.where(is_gold, -np.inf, logits).max(axis=1)
    informative = np.isfinite(best_gold)
    if (best_gold >= best_other)[informative].all():
        return 1.0
    logits, is_gold = logits[informative], is_gold[informative]

    def mean_nll(log_t: float) -> float:
        scaled = log_softmax(logits / np.exp(log_t), axis=1)
        return -float(_gold_log_probs(scaled, is_gold).mean())

    low, high = np.log(TEMPERATURE_RANGE)
    return float(np.exp(minimize_scalar(mean_nll, bounds=(low, high), method="bounded").x))


def reliability(
    log_probs: Sequence[Sequence[float]], gold: Sequence[frozenset[int]], *, bins: int = BINS
) -> dict[str, float]:
    """How far the probabilities can be trusted, as plain numbers.

    The prediction is the choice of highest probability, its probability the confidence.

    - `ece`: expected calibration error over `bins` bins (see `dhrd_plugin.confidence`).
    - `brier`: multi-class Brier score, from 0 to 2: `sum_c (p_c - y_c)^2`, mean over the rows. Gold
      choices are one class of target 1, so that it does not matter how the student divides its
      belief between them.
    - `nll`: `-log sum_{c in gold} p_c` in nats, mean over the rows; a row counts 708 at most, where
      the sum is 0.
    - `accuracy_at_50`, `_80`, `_90`, `_100`: accuracy on that percentage of the rows (rounded up),
      the most confident ones; of equally confident rows the earlier come first.

    Args:
        log_probs, gold: at least one row.
    """
    values, is_gold = _stack(log_probs, gold)
    n = len(values)
    probs = np.exp(values)
    confidence = probs.max(axis=1)
    right = is_gold[np.arange(n), probs.argmax(axis=1)]

    gold_log_probs = _gold_log_probs(values, is_gold)
    others = np.where(is_gold, 0, probs)
    brier = (1 - np.exp(gold_log_probs)) ** 2 + (others**2).sum(axis=1)

    accuracies = accuracy_by_coverage(confidence, right)
    return {
        "ece": by_confidence(confidence, right, bins).ece,
        "brier": float(brier.mean()),
        "nll": -float(np.maximum(gold_log_probs, LEAST_LOG_PROB).mean()),
    } | {
        f"accuracy_at_{percent}": float(accuracies[-(-n * percent // 100) - 1])
        for percent in COVERAGES
    }


def _stack(
    log_probs: Sequence[Sequence[float]], gold: Sequence[frozenset[int]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, C) log-probabilities and gold marks; choices that a row does not have are -inf."""
    values = np.full((len(log_probs), max(map(len, log_probs))), -np.inf)
    is_gold = np.zeros(values.shape, dtype=bool)
    for i, (row, choices) in enumerate(zip(log_probs, gold, strict=True)):
        values[i, : len(row)] = row
        is_gold[i, list(choices)] = True
    return values, is_gold


def _gold_log_probs(
    log_probs: NDArray[np.float64], is_gold: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(N, C), (N, C) -> (N,) log of the gold choices' joint probability."""
    return logsumexp(np.where(is_gold, log_probs, -np.inf), axis=1)
