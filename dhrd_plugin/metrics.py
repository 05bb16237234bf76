"""Metrics as sums over clusters of documents, recomputed from what the harness logs per document.

A cluster is what is drawn together when documents are resampled: a question with its candidates.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        return _ratios(counts @ self.numerators, counts @ self.denominators) @ self.weights

    def influence(self) -> NDArray[np.float64]:
        """(C,) how much each cluster moves the metric: the infinitesimal jackknife (Efron 1982).

        The sum of squares is the metric's variance to first order; the sum is zero.
        """
        totals = self.denominators.sum(axis=0)
        ratios = _ratios(self.numerators.sum(axis=0), totals)
        residuals = self.numerators - ratios * self.denominators
        return _ratios(residuals, np.broadcast_to(totals, residuals.shape)) @ self.weights

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
    runs: Sequence[tuple[Sequence[Any], float]], clusters: Sequence[Hashable]
) -> list[ClusterSums] | None:
    """The metric of each of several runs on the same documents, or None if it is not a known one.

    A run is what it logged per document, and the value it reported. The harness logs a number, or a
    tuple ending in (gold, prediction) for what it aggregates over all documents; how, the results
    file does not reliably say. So the reported values are the judge: a known metric that does not
    reproduce all of them is not the one (one of them alone is ambiguous: without an error, every
    metric is 1).
    """
    known = [_known_metrics(values, clusters) for values, _ in runs]
    for name in known[0]:
        found = [metrics[name] for metrics in known if name in metrics]
        if len(found) == len(runs) and all(
            math.isclose(sums.value(np.ones((1, len(sums.numerators))))[0], reported, abs_tol=1e-6)
            for sums, (_, reported) in zip(found, runs, strict=True)
        ):
            return found
    return None


def _known_metrics(values: Sequence[Any], clusters: Sequence[Hashable]) -> dict[str, ClusterSums]:
    """Tuples of four may also be candidates of one question (see `chosen_candidates`)."""
    if _are_numbers(values):
        return {"mean": mean_sums(values, clusters)}
    if not all(isinstance(value, list | tuple) and len(value) >= 2 for value in values):
        return {}
    golds, preds = ([str(value[i]) for value in values] for i in (-2, -1))
    known = {
        "F1": f1_sums(golds, preds, ["1"], clusters),
        "macro-F1": f1_sums(golds, preds, list({*golds, *preds}), clusters),
        "macro-F1 over gold classes": f1_sums(golds, preds, list(set(golds)), clusters),
        "exact match": exact_match_sums(golds, preds, clusters),
    }
    if all(len(value) == 4 and _are_numbers(value[1:]) for value in values):
        golds, preds, questions = chosen_candidates(values, clusters)
        right = [gold == pred for gold, pred in zip(golds, preds, strict=True)]
        classes = sorted({str(candidate) for _, candidate, _, _ in values})
        known["accuracy over questions"] = mean_sums(right, questions)
        known["macro-F1 over questions"] = f1_sums(golds, preds, classes, questions)
    return known


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


def _ratios(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Element by element, 0/0 = 0."""
    return np.divide(
        numerators, denominators, out=np.zeros_like(numerators), where=denominators != 0
    )
