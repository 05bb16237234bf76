"""How far a model's confidence can be trusted. Pure functions of one value per document.

The prediction is the choice of highest probability; `confidence` is that probability, `right`
whether the choice is gold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 15


@dataclass(frozen=True)
class ConfidenceBins:
    """Documents in bins (lower, upper] of equal width in confidence, from 0 to 1.

    Attributes:
        counts: (B,) documents.
        confidence, accuracy: (B,) their means, NaN for an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, arXiv 1706.04599).

        `sum_b n_b/N |accuracy_b - confidence_b|`. Biased upwards on few documents.
        """
        gaps = self.counts * np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps) / self.counts.sum())


def by_confidence(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> ConfidenceBins:
    """(N,), (N,) -> bins; at least one document."""
    index = np.digitize(
        np.asarray(confidence, dtype=float), np.linspace(0, 1, bins + 1)[1:-1], right=True
    )
    counts = np.bincount(index, minlength=bins)
    confidences, hits = (
        np.bincount(index, weights=np.asarray(values, dtype=float), minlength=bins)
        for values in (confidence, right)
    )
    with np.errstate(invalid="ignore"):  # 0/0 in an empty bin
        return ConfidenceBins(counts, confidences / counts, hits / counts)


def accuracy_by_coverage(confidence: ArrayLike, right: ArrayLike) -> NDArray[np.float64]:
    """(N,), (N,) -> (N,) accuracy on the 1, 2, … N most confident documents; of equally confident
    ones the earlier come first."""
    order = np.argsort(-np.asarray(confidence, dtype=float), kind="stable")
    hits = np.cumsum(np.asarray(right, dtype=float)[order])
    return hits / np.arange(1, len(hits) + 1)
