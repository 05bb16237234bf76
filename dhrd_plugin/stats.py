"""Intervals for scores and for differences between them. Pure functions of numbers and arrays.

Scores are fractions. Two sources of error are kept apart: documents (another validation set would
give another score) and seeds (another training run would). All intervals are 95%, two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from dhrd_plugin.metrics import ClusterSums

CONFIDENCE = 0.95
RESAMPLES = 2000


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
    bootstrap over clusters.

    Where nothing or everything is right, all draws are equal and the bootstrap claims certainty:
    then Wilson's, as if each cluster were one yes/no outcome. No score between 0 and 1 varies more
    than these, so that it errs on the wide side.
    """
    n = len(sums.numerators)
    value = float(sums.value(np.ones((1, n)))[0])
    if sums.is_binomial or math.isclose(value, round(value), abs_tol=1e-9):
        found = distributions.binomtest(round(value * n), n).proportion_ci(
            CONFIDENCE, method="wilson"
        )
        return Interval(float(found.low), float(found.high), "wilson")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(bootstrap(sums.value, n), [tail, 1 - tail])
    return Interval(float(low), float(high), "bootstrap")


def document_error(ours: Sequence[ClusterSums], theirs: Sequence[ClusterSums] = ()) -> ErrorTerm:
    """Error, from the choice of documents, of a mean over runs, or of a difference of such means.

    All runs must have scored the same documents. A difference of accuracies takes the closed form
    of Agresti & Min (2005, Stat. Med. 24:729), which adds half a document to each cell of the 2×2
    table: without it, four documents changed in one direction out of 56 would count as
    significant (the exact McNemar test gives p = 0.125). All else is a bootstrap over clusters,
    with the degrees of freedom of `_satterthwaite`, which has the same purpose.
    """
    n = len(ours[0].numerators)
    if theirs and all(sums.is_binomial for sums in (*ours, *theirs)):
        change = _mean([s.numerators[:, 0] for s in ours]) - _mean(
            [s.numerators[:, 0] for s in theirs]
        )
        squares = (change**2).sum() + 1 - change.sum() ** 2 / (n + 2)
        return ErrorTerm(float(squares) / (n + 2) ** 2, max(n - 1, 1))

    def statistic(counts: NDArray[Any]) -> NDArray[np.float64]:
        value = _mean([sums.value(counts) for sums in ours])
        return value - _mean([sums.value(counts) for sums in theirs]) if theirs else value

    influence = _mean([sums.influence() for sums in ours])
    if theirs:
        influence = influence - _mean([sums.influence() for sums in theirs])
    variance = float(bootstrap(statistic, n).var(ddof=1))
    return ErrorTerm(variance, _satterthwaite(influence))


def _satterthwaite(influence: NDArray[np.float64]) -> float:
    """Degrees of freedom of the variance Σu² of a sum of n influences u: 2 (Σu²)² / Var(Σu²)
    (Satterthwaite 1946, Biometrics 2:110), n - 1 at most.

    Where few documents change, few decide: two or three times their number, whatever n is.
    """
    n, squares = len(influence), influence**2
    spread = (squares**2).sum() - squares.sum() ** 2 / n
    most = max(n - 1.0, 1.0)
    return min(2 * float(squares.sum() ** 2 / spread), most) if spread > 0 else most


def seed_error(values: Sequence[float]) -> ErrorTerm:
    """Error of the mean of at least two runs, from their spread."""
    return ErrorTerm(float(np.var(values, ddof=1)) / len(values), len(values) - 1)


def total_error(errors: Sequence[ErrorTerm]) -> ErrorTerm:
    """Independent errors summed, degrees of freedom after Welch and Satterthwaite.

    For seeds and documents together this errs on the wide side: the part of a run's error that
    belongs to single documents counts in both terms.
    """
    variance = sum(error.variance for error in errors)
    if variance == 0:
        return ErrorTerm(0.0, 1.0)
    return ErrorTerm(variance, variance**2 / sum(e.variance**2 / e.df for e in errors))


def interval_around(value: float, errors: Sequence[ErrorTerm], method: str) -> Interval:
    """value ± t · standard error of independent errors."""
    total = total_error(errors)
    half = float(distributions.t.ppf((1 + CONFIDENCE) / 2, total.df)) * math.sqrt(total.variance)
    return Interval(value - half, value + half, method)


def _mean(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.mean(arrays, axis=0)
