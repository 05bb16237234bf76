"""Metrics as cluster sums against scikit-learn, and recognised from what the harness logs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from dhrd_plugin import metrics


def labels(n: int, classes: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Gold labels, and predictions that are right about half of the time."""
    rng = np.random.default_rng(seed)
    golds = rng.integers(classes, size=n)
    preds = np.where(rng.random(n) < 0.5, golds, rng.integers(classes, size=n))
    return [str(g) for g in golds], [str(p) for p in preds]


def value(sums: metrics.ClusterSums) -> float:
    return float(sums.value(np.ones((1, len(sums.numerators))))[0])


def recomputed(values, clusters, reported) -> list[metrics.ClusterSums]:
    """Of one run."""
    return metrics.recompute([(values, reported)], clusters) or []


def test_metrics_equal_scikit_learn_also_when_resampled():
    golds, preds = labels(80, 3)
    right = [float(g == p) for g, p in zip(golds, preds, strict=True)]
    counts = np.random.default_rng(1).integers(0, 4, size=(5, 80))
    macro = metrics.f1_sums(golds, preds, ["0", "1", "2"], range(80)).value(counts)
    binary = metrics.f1_sums(golds, preds, ["1"], range(80)).value(counts)
    accuracy = metrics.mean_sums(right, range(80)).value(counts)
    for i, weight in enumerate(counts):
        assert macro[i] == pytest.approx(
            f1_score(golds, preds, average="macro", sample_weight=weight)
        )
        one_class = f1_score(golds, preds, labels=["1"], average=None, sample_weight=weight)
        assert binary[i] == pytest.approx(one_class[0])
        assert accuracy[i] == pytest.approx(accuracy_score(golds, preds, sample_weight=weight))


def test_f1_without_any_positive_is_zero_as_in_scikit_learn():
    assert value(metrics.f1_sums(["0", "0"], ["0", "0"], ["1"], range(2))) == 0.0


def test_exact_match_asks_for_all_answers_of_a_question():
    golds, preds = ["1", "0", "1", "1"], ["1", "0", "0", "1"]
    sums = metrics.exact_match_sums(golds, preds, ["q1", "q1", "q2", "q3"])
    assert value(sums) == pytest.approx(2 / 3)
    assert sums.is_binomial


def test_average_is_the_plain_mean_of_metrics():
    golds, preds = labels(60, 3)
    f1 = metrics.f1_sums(golds, preds, ["0", "1", "2"], range(60))
    accuracy = metrics.mean_sums([g == p for g, p in zip(golds, preds, strict=True)], range(60))
    both = metrics.average_sums([f1, accuracy])
    assert value(both) == pytest.approx((value(f1) + value(accuracy)) / 2)
    assert both.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("classes, average", [(2, "binary"), (3, "macro")])
def test_recompute_finds_the_metric_that_was_reported(classes, average):
    golds, preds = labels(50, classes)
    pairs = [[int(g), int(p)] for g, p in zip(golds, preds, strict=True)]
    options = {"pos_label": "1"} if average == "binary" else {}
    reported = f1_score(golds, preds, average=average, **options)
    (sums,) = recomputed(pairs, range(50), reported)
    assert value(sums) == pytest.approx(reported)
    assert recomputed(pairs, range(50), reported + 0.01) == []


def test_recompute_of_numbers_grouped_pairs_and_unknown_values():
    assert len(recomputed([1.0, 0.0, 1.0], range(3), 2 / 3)) == 1
    assert recomputed([1.0, 0.0, 0.0], range(3), 0.5) == []  # a median, say
    grouped = [["q1", 1, 1], ["q1", 0, 1], ["q2", 1, 1], ["q3", 0, 0]]
    (em,) = recomputed(grouped, ["q1", "q1", "q2", "q3"], 2 / 3)
    assert len(em.numerators) == 3
    assert recomputed(["text", "text"], range(2), 0.5) == []


def test_candidates_are_put_together_per_question():
    """(question, candidate, correct, log-odds): the highest wins, the first of equals."""
    values = [
        *[["a", 1, 1, 91.0], ["a", 0, 0, 90.0], ["a", 2, 0, -1.0]],  # in any order
        *[["b", 0, 1, -9.0], ["b", 1, 0, -8.0], ["b", 2, 0, -9.5]],
        *[["c", 0, 0, 1.0], ["c", 1, 0, 1.0], ["c", 2, 1, 0.0]],
        ["d", 0, 1, 5.0],  # incomplete
    ]
    clusters = [f"question {value[0]}" for value in values]
    golds, preds, questions = metrics.chosen_candidates(values, clusters)
    assert (golds, preds) == (["1", "0", "2"], ["1", "1", "0"])
    assert questions == ["question a", "question b", "question c"]
    (accuracy,) = recomputed(values, clusters, 1 / 3)
    assert accuracy.is_binomial and len(accuracy.numerators) == 3
    macro = f1_score(golds, preds, labels=["0", "1", "2"], average="macro")
    (f1,) = recomputed(values, clusters, macro)
    assert value(f1) == pytest.approx(macro)
    assert recomputed(values, clusters, 0.9) == []


def test_four_values_of_another_kind_are_no_candidates():
    assert recomputed([["x", ["y"], 1, 0], ["x", ["z"], 0, 0]], range(2), 0.9) == []


def test_one_metric_must_reproduce_what_every_run_reported():
    """Without an error each F1 is 1, and without a hit each is 0: another run tells which it is."""
    golds, preds = labels(60, 3)
    pairs = [[g, p] for g, p in zip(golds, preds, strict=True)]
    perfect = [[g, g] for g in golds]
    macro = f1_score(golds, preds, average="macro")
    found = metrics.recompute([(perfect, 1.0), (pairs, macro)], range(60))
    assert found is not None
    assert [sums.numerators.shape for sums in found] == [(60, 3), (60, 3)]
    assert [value(sums) for sums in found] == pytest.approx([1.0, macro])
    assert metrics.recompute([(perfect, 1.0), (pairs, 0.123)], range(60)) is None
    assert metrics.recompute([(pairs, macro), ([1.0] * 60, 1.0)], range(60)) is None


def test_influence_of_a_document_on_accuracy_and_f1():
    golds, preds = labels(90, 3)
    right = np.equal(golds, preds).astype(float)
    accuracy = metrics.mean_sums(right.tolist(), range(90))
    assert accuracy.influence() == pytest.approx((right - right.mean()) / 90)
    f1 = metrics.f1_sums(golds, preds, ["0", "1", "2"], range(90))
    without = f1.value(1 - np.eye(90))  # the jackknife, equal to first order
    assert f1.influence() == pytest.approx(value(f1) - without, abs=3e-4)
    assert f1.influence().sum() == pytest.approx(0)
    never = metrics.f1_sums(["0", "0"], ["0", "0"], ["1"], range(2))
    assert (never.influence() == 0).all()
