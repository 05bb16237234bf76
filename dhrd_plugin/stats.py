"""Intervals for scores and for differences between them. Pure functions of numbers and arrays.

Scores are fractions. Two sources of error are kept apart: documents (another validation set would
give another score) and seeds (another training run would). All intervals are 95%, two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as distributions

CONFIDENCE = 0.95
RESAMPLES = 2000
POWER = 0.8
DISAGREEMENT = 0.2  # fraction of documents that change between right and wrong, see below


@dataclass(frozen=True)
class Interval:
    """`method` is "wilson", "bootstrap" (both over documents), "seeds", or "combined"."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class ErrorTerm:
    """One independent source of error: a variance estimate and its degrees of freedom."""

    variance: float
    df: float

    def scaled(self, factor: float) -> ErrorTerm:
        """The error of `factor` times the quantity."""
        return ErrorTerm(self.variance * factor**2, self.df)


@dataclass(frozen=True)
class ClusterSums:
    """A metric as a weighted mean of ratios of sums over clusters of documents.

    metric = Σ_k weight_k · Σ_c numerator_ck / Σ_c denominator_ck, with 0/0 = 0 as in scikit-learn.
    Accuracy, F1, macro-F1, exact match per question and their averages all have this form, so that
    resampling any of them is one matrix product.

    Attributes:
        numerators, denominators: (C clusters, K ratios).
        weights: (K,), summing to 1.
    """

    numerators: NDArray[np.float64]
    denominators: NDArray[np.float64]
    weights: NDArray[np.float64]

    def value(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        """(R, C) how often each cluster is drawn -> (R,) the metric of each draw."""
        numerators, denominators = counts @ self.numerators, counts @ self.denominators
        ratios = np.divide(
            numerators, denominators, out=np.zeros_like(numerators), where=denominators != 0
        )
        return ratios @ self.weights

    @property
    def is_binomial(self) -> bool:
        """Whether it is a proportion of independent yes/no outcomes, one per cluster."""
        return bool(
            self.numerators.shape[1] == 1
            and (self.denominators == 1).all()
            and np.isin(self.numerators, (0, 1)).all()
        )


def mean_sums(values: Sequence[float], clusters: Sequence[Hashable]) -> ClusterSums:
    """The mean of one value per document."""
    column = np.asarray(values, dtype=float)[:, None]
    return _sum_by_cluster(column, np.ones_like(column), clusters)


def f1_sums(
    golds: Sequence[str], preds: Sequence[str], classes: Sequence[str], clusters: Sequence[Hashable]
) -> ClusterSums:
    """F1 = 2TP / (2TP + FP + FN), averaged over `classes`; one class gives binary F1."""
    gold = np.array([[g == c for c in classes] for g in golds], dtype=float)
    pred = np.array([[p == c for c in classes] for p in preds], dtype=float)
    return _sum_by_cluster(2 * gold * pred, gold + pred, clusters)


def exact_match_sums(
    golds: Sequence[str], preds: Sequence[str], clusters: Sequence[Hashable]
) -> ClusterSums:
    """The fraction of clusters (questions) whose documents are all answered right: MultiRC's EM."""
    wrong = mean_sums([g != p for g, p in zip(golds, preds, strict=True)], clusters).numerators
    return ClusterSums((wrong == 0).astype(float), np.ones_like(wrong), np.ones(1))


def average_sums(parts: Sequence[ClusterSums]) -> ClusterSums:
    """The plain average of several metrics of the same documents (CB's F1 and accuracy)."""
    return ClusterSums(
        np.hstack([part.numerators for part in parts]),
        np.hstack([part.denominators for part in parts]),
        np.concatenate([part.weights for part in parts]) / len(parts),
    )


def recompute(
    values: Sequence[Any], clusters: Sequence[Hashable], reported: float
) -> ClusterSums | None:
    """The metric that the logged per-document `values` amount to, or None if it is not a known one.

    The harness logs a number per document, or a tuple ending in (gold, prediction) for what it
    aggregates over all documents; how, the results file does not reliably say. So the reported
    value is the judge: a known metric that does not reproduce it is not the one. Tuples of four
    may also be candidates of one question (see `chosen_candidates`).
    """
    if _are_numbers(values):
        known = [mean_sums(values, clusters)]
    elif all(isinstance(value, list | tuple) and len(value) >= 2 for value in values):
        golds, preds = ([str(value[i]) for value in values] for i in (-2, -1))
        class_sets = [("1",), tuple({*golds, *preds}), tuple(set(golds))]
        known = [f1_sums(golds, preds, classes, clusters) for classes in class_sets]
        known.append(exact_match_sums(golds, preds, clusters))
        if all(len(value) == 4 and _are_numbers(value[1:]) for value in values):
            known += _metrics_of_questions(values, clusters)
    else:
        return None
    for sums in known:
        everything = np.ones((1, len(sums.numerators)))
        if math.isclose(sums.value(everything)[0], reported, abs_tol=1e-6):
            return sums
    return None


def chosen_candidates(
    values: Sequence[Any], clusters: Sequence[Hashable]
) -> tuple[list[str], list[str], list[Hashable]]:
    """(gold, prediction, cluster) per question, of one (question, candidate, is correct, score) per
    document: the correct candidate, the one of highest score (the first of equals).

    A question with fewer candidates than the others is incomplete (under --limit) and left out.
    """
    questions: dict[str, list[tuple]] = {}
    for (question, candidate, correct, score), cluster in zip(values, clusters, strict=True):
        questions.setdefault(str(question), []).append((candidate, correct, score, cluster))
    most = max(map(len, questions.values()))
    golds, preds, found = [], [], []
    for candidates in questions.values():
        if len(candidates) == most:
            candidates.sort(key=lambda item: item[0])
            golds.append(str(max(candidates, key=lambda item: item[1])[0]))
            preds.append(str(max(candidates, key=lambda item: item[2])[0]))
            found.append(candidates[0][3])
    return golds, preds, found


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _metrics_of_questions(values: Sequence[Any], clusters: Sequence[Hashable]) -> list[ClusterSums]:
    """Accuracy and macro-F1 over questions with several candidates."""
    golds, preds, questions = chosen_candidates(values, clusters)
    right = [gold == pred for gold, pred in zip(golds, preds, strict=True)]
    classes = sorted({str(candidate) for _, candidate, _, _ in values})
    return [mean_sums(right, questions), f1_sums(golds, preds, classes, questions)]


def _sum_by_cluster(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    clusters: Sequence[Hashable],
) -> ClusterSums:
    positions: dict[Hashable, int] = {}
    index = [positions.setdefault(cluster, len(positions)) for cluster in clusters]
    sums = [np.zeros((len(positions), numerators.shape[1])) for _ in range(2)]
    np.add.at(sums[0], index, numerators)
    np.add.at(sums[1], index, denominators)
    k = numerators.shape[1]
    return ClusterSums(sums[0], sums[1], np.full(k, 1 / k))


def bootstrap(statistic: Callable[[NDArray[Any]], NDArray[np.float64]], n: int) -> NDArray:
    """`statistic` of RESAMPLES draws with replacement from n clusters; the same draws every time.

    `statistic` takes (R, n) counts and returns (R,) values; it is called in chunks of draws, since
    all counts at once can take gigabytes.
    """
    rng, chunk = np.random.default_rng(0), 100
    rows = np.arange(chunk)[:, None] * n
    draws = []
    for _ in range(RESAMPLES // chunk):
        picks = rng.integers(n, size=(chunk, n)) + rows
        draws.append(statistic(np.bincount(picks.ravel(), minlength=chunk * n).reshape(chunk, n)))
    return np.concatenate(draws)


def document_interval(sums: ClusterSums) -> Interval:
    """Interval of one run's score: Wilson for independent yes/no outcomes, else a percentile
    bootstrap over clusters."""
    n = len(sums.numerators)
    if sums.is_binomial:
        successes = int(sums.numerators.sum())
        found = distributions.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
        return Interval(float(found.low), float(found.high), "wilson")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(bootstrap(sums.value, n), [tail, 1 - tail])
    return Interval(float(low), float(high), "bootstrap")


def document_error(ours: Sequence[ClusterSums], theirs: Sequence[ClusterSums] = ()) -> ErrorTerm:
    """Error, from the choice of documents, of a mean over runs, or of a difference of such means.

    All runs must have scored the same documents. A difference of accuracies takes the closed form
    of Agresti & Min (2005, Stat. Med. 24:729), which adds half a document to each cell of the 2×2
    table: without it, four documents changed in one direction out of 56 would count as
    significant (the exact McNemar test gives p = 0.125). All else is a bootstrap over clusters.
    """
    n = len(ours[0].numerators)
    df = max(n - 1, 1)
    if theirs and all(sums.is_binomial for sums in (*ours, *theirs)):
        change = _mean([s.numerators[:, 0] for s in ours]) - _mean(
            [s.numerators[:, 0] for s in theirs]
        )
        squares = (change**2).sum() + 1 - change.sum() ** 2 / (n + 2)
        return ErrorTerm(float(squares) / (n + 2) ** 2, df)

    def statistic(counts: NDArray[Any]) -> NDArray[np.float64]:
        value = _mean([sums.value(counts) for sums in ours])
        return value - _mean([sums.value(counts) for sums in theirs]) if theirs else value

    return ErrorTerm(float(bootstrap(statistic, n).var(ddof=1)), df)


def seed_error(values: Sequence[float]) -> ErrorTerm:
    """Error of the mean of at least two runs, from their spread."""
    return ErrorTerm(float(np.var(values, ddof=1)) / len(values), len(values) - 1)


def interval_around(value: float, errors: Sequence[ErrorTerm], method: str) -> Interval:
    """value ± t · standard error, independent errors summed, degrees of freedom after Welch and
    Satterthwaite.

    For seeds and documents together this errs on the wide side: the part of a run's error that
    belongs to single documents counts in both terms.
    """
    total = sum(error.variance for error in errors)
    if total == 0:
        return Interval(value, value, method)
    df = total**2 / sum(error.variance**2 / error.df for error in errors)
    half = float(distributions.t.ppf((1 + CONFIDENCE) / 2, df)) * math.sqrt(total)
    return Interval(value - half, value + half, method)


def smallest_difference(n: int) -> float | None:
    """The smallest difference in accuracy that n documents show with 80% power, or None: n < 4.

    Two runs on the same documents, McNemar's test, two-sided 5% (Connor 1987, Biometrics 43:207):
    δ√n = z_{1-a/2} √ψ + z_{power} √(ψ - δ²), where ψ is the fraction of documents on which one run
    is right and the other wrong: DISAGREEMENT, or δ where that is more.
    """
    z_test, z_power = distributions.norm.ppf([(1 + CONFIDENCE) / 2, POWER])

    def surplus(delta: float) -> float:
        psi = max(DISAGREEMENT, delta)
        return (
            delta * math.sqrt(n)
            - z_test * math.sqrt(psi)
            - z_power * math.sqrt(max(psi - delta**2, 0.0))
        )

    return float(optimize.brentq(surplus, 0.0, 1.0)) if surplus(1.0) > 0 else None


def _mean(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.mean(arrays, axis=0)
