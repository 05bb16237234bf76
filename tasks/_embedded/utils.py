"""Data sets that lie in this repository, as JSON lines beside a family's YAML, and their scores."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np

BINS = 15


def load(family: str, **_metadata) -> datasets.DatasetDict:
    """Train and validation rows of `family`; the harness passes the task's metadata along."""
    folder = Path(__file__).parent.parent / family / "data"
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")}
    return datasets.load_dataset("json", data_files=files)


def scores(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float | tuple]:
    """Accuracy of one document, its Brier score, and (confidence, is right) for `ece`.

    Probabilities are the softmax of the log-likelihoods (nats); a classifier's stay as they are.
    Brier: Σ_c (p_c - y_c)², from 0 to 2.
    """
    log_likelihoods = np.array([log_likelihood for log_likelihood, _ in results])
    unscaled = np.exp(log_likelihoods - log_likelihoods.max())
    probs = unscaled / unscaled.sum()
    right = float(probs.argmax() == doc["label"])
    return {
        "acc": right,
        "ece": (float(probs.max()), right),
        "brier": float(((probs - np.eye(len(probs))[doc["label"]]) ** 2).sum()),
    }


def ece(items: Sequence[tuple[float, float]]) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599) of (confidence, is right).

    Σ_b n_b/N |accuracy_b - confidence_b| over 15 bins (lower, upper] of equal width, from 0 to 1.
    Biased upwards on few documents.
    """
    confidence, right = np.array(items).T
    inner_edges = np.linspace(0, 1, BINS + 1)[1:-1]
    bins = np.digitize(confidence, inner_edges, right=True)
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(items))
