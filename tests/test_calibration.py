"""Calibration against hand-computed values, planted temperatures and scikit-learn."""

from __future__ import annotations

import doctest
import json
import math

import numpy as np
import pytest
from scipy.special import log_softmax

from dhrd_plugin import scoring
from dhrd_plugin.scoring import rescale
from distill.calibration import TEMPERATURE_RANGE, fit_temperature, reliability

INF = float("inf")


def logs(*probs):
    return [math.log(p) if p else -INF for p in probs]


def gold(*choices):
    return [frozenset({c}) for c in choices]


def drawn_rows(n_rows=4000, n_choices=4, seed=0):
    """Log-probabilities that are right by construction: gold is drawn from them."""
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(rng.normal(scale=2, size=(n_rows, n_choices)), axis=1)
    labels = [int(rng.choice(n_choices, p=np.exp(row))) for row in log_probs]
    return log_probs, labels


def test_examples_in_docstrings_hold():
    result = doctest.testmod(scoring)
    assert result.attempted >= 1
    assert result.failed == 0


# --- temperature ---


def test_temperature_by_hand():
    # 90% sure, right on three rows of four: 9^(1/T) = 3, T = 2.
    rows = [logs(0.9, 0.1)] * 4
    assert fit_temperature(rows, gold(0, 0, 0, 1)) == pytest.approx(2, rel=1e-4)


def test_temperature_with_several_gold_choices_by_hand():
    # p(gold) = 2x / (2x + 1) with x = 6^(1/T); right on three rows of four: x = 3/2.
    rows = [logs(6 / 13, 6 / 13, 1 / 13)] * 4
    choices = [frozenset({0, 1})] * 3 + [frozenset({2})]
    expected = math.log(6) / math.log(1.5)
    assert fit_temperature(rows, choices) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("planted", [0.5, 1.0, 3.0])
def test_planted_temperature_is_found(planted):
    log_probs, labels = drawn_rows()
    overconfident = log_softmax(log_probs * planted, axis=1)
    assert fit_temperature(overconfident.tolist(), gold(*labels)) == pytest.approx(
        planted, rel=0.05
    )


def test_planted_temperature_is_found_over_rows_of_different_lengths():
    two, labels_of_two = drawn_rows(n_choices=2, seed=1)
    five, labels_of_five = drawn_rows(n_choices=5, seed=2)
    rows = [rescale(row, 1 / 3) for row in [*two, *five]]
    fitted = fit_temperature(rows, gold(*labels_of_two, *labels_of_five))
    assert fitted == pytest.approx(3, rel=0.05)


def test_temperature_equals_scikit_learns():
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.dummy import DummyClassifier
    from sklearn.frozen import FrozenEstimator

    class Logits(DummyClassifier):
        """Its inputs are its logits."""

        def decision_function(self, X):
            return X

    log_probs, labels = drawn_rows(n_rows=60)
    logits = log_probs * 2.5
    classifier = FrozenEstimator(Logits().fit(logits, labels))
    reference = CalibratedClassifierCV(classifier, method="temperature").fit(logits, labels)
    temperature = fit_temperature(logits.tolist(), gold(*labels))
    ours = [np.exp(rescale(row, temperature)) for row in logits]
    np.testing.assert_allclose(ours, reference.predict_proba(logits), atol=1e-4)


@pytest.mark.parametrize(
    "probs", [(0.6, 0.4), (1.0, 0.0), (0.5, 0.5)], ids=["separable", "certain", "undecided"]
)
def test_rows_without_an_error_leave_the_probabilities_alone(probs):
    assert fit_temperature([logs(*probs)] * 20, gold(*[0] * 20)) == 1.0


def test_rows_that_no_temperature_helps_do_not_count():
    never = ([logs(1.0, 0.0)], gold(1))
    assert fit_temperature(*never) == 1.0
    rows, choices = [logs(0.9, 0.1)] * 4 + never[0], gold(0, 0, 0, 1) + never[1]
    assert fit_temperature(rows, choices) == pytest.approx(2, rel=1e-4)


def test_temperature_stays_in_its_range():
    low, high = TEMPERATURE_RANGE
    mostly_wrong = fit_temperature([logs(0.9, 0.1)] * 3, gold(1, 1, 0))
    assert mostly_wrong == pytest.approx(high, rel=1e-3)
    unsure = [logs(0.501, 0.499)] * 100
    assert fit_temperature(unsure, gold(1, *[0] * 99)) == pytest.approx(low, rel=1e-3)


# --- rescaling ---


def test_rescaled_rows_by_hand():
    assert np.exp(rescale(logs(0.8, 0.2), 2)).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert np.exp(rescale(logs(0.8, 0.2), 0.5)).tolist() == pytest.approx([16 / 17, 1 / 17])


def test_rescaling_does_not_see_an_offset_and_temperature_one_changes_nothing():
    row = logs(0.7, 0.2, 0.1)
    assert rescale([value + 5 for value in row], 3) == pytest.approx(rescale(row, 3))
    assert rescale(row, 1) == pytest.approx(row)


def test_rescaling_keeps_impossible_choices_impossible():
    assert rescale(logs(1.0, 0.0), 3) == [0.0, -INF]


def test_rescaling_leaves_the_accuracy_as_it_is():
    log_probs, labels = drawn_rows(n_rows=200)
    before = reliability(log_probs.tolist(), gold(*labels))
    after = reliability([rescale(row, 7.0) for row in log_probs], gold(*labels))
    assert after["accuracy_at_100"] == before["accuracy_at_100"]
    assert after["ece"] > before["ece"] + 0.1


# --- reliability ---


def test_reliability_by_hand():
    # Two bins: (0, 1/2] has the 0.5 row, right; (1/2, 1] has 0.8, 0.9 (right) and 0.6 (wrong).
    rows = [logs(0.5, 0.3, 0.2), logs(0.8, 0.2), logs(0.1, 0.9), logs(0.6, 0.4)]
    result = reliability(rows, gold(0, 0, 1, 1), bins=2)
    assert result["ece"] == pytest.approx((abs(1 - 0.5) + abs(2 - 2.3)) / 4)
    briers = [0.25 + 0.09 + 0.04, 0.04 + 0.04, 0.01 + 0.01, 0.36 + 0.36]
    assert result["brier"] == pytest.approx(sum(briers) / 4)
    assert result["nll"] == pytest.approx(-sum(logs(0.5, 0.8, 0.9, 0.4)) / 4)
    assert result["accuracy_at_100"] == 0.75


def test_accuracy_at_coverage_takes_the_most_confident_rows():
    confidences = [0.51, 0.95, 0.6, 0.9, 0.7]
    rows = [logs(p, 1 - p) for p in confidences]
    result = reliability(rows, gold(1, 0, 1, 0, 0))  # right at 0.95, 0.9 and 0.7
    coverage = {key: value for key, value in result.items() if key.startswith("accuracy")}
    assert coverage == {
        "accuracy_at_50": 1.0,
        "accuracy_at_80": 0.75,
        "accuracy_at_90": 0.6,
        "accuracy_at_100": 0.6,
    }


def test_several_gold_choices_are_one_event():
    together = reliability([logs(0.5, 0.3, 0.2)], [frozenset({0, 1})])
    assert together["nll"] == pytest.approx(-math.log(0.8))
    assert together["brier"] == pytest.approx(0.2**2 + 0.2**2)
    assert together["accuracy_at_100"] == 1.0


def test_padding_of_shorter_rows_changes_nothing():
    row, other = logs(0.7, 0.3), logs(0.4, 0.3, 0.2, 0.1)
    alone = [reliability([r], gold(0)) for r in (row, other)]
    both = reliability([row, other], gold(0, 0))
    for name in ("ece", "brier", "nll"):
        assert both[name] == pytest.approx((alone[0][name] + alone[1][name]) / 2)


def test_calibrated_rows_have_a_small_error_and_overconfident_ones_a_large_one():
    log_probs, labels = drawn_rows()
    assert reliability(log_probs.tolist(), gold(*labels))["ece"] < 0.03
    overconfident = [rescale(row, 0.2) for row in log_probs]
    assert reliability(overconfident, gold(*labels))["ece"] > 0.1


def test_certainty_gives_finite_numbers():
    result = reliability([logs(1.0, 0.0)] * 2, gold(0, 1))
    assert result["brier"] == 1.0
    assert result["ece"] == 0.5
    assert result["nll"] == pytest.approx(354, abs=1)
    json.dumps(result, allow_nan=False)


def test_reliability_equals_scikit_learns():
    from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

    log_probs, labels = drawn_rows(n_rows=50)
    probs, classes = np.exp(log_probs), list(range(4))
    result = reliability(log_probs.tolist(), gold(*labels))
    assert result["nll"] == pytest.approx(log_loss(labels, probs, labels=classes))
    assert result["accuracy_at_100"] == accuracy_score(labels, probs.argmax(axis=1))
    reference = brier_score_loss(labels, probs, labels=classes, scale_by_half=False)
    assert result["brier"] == pytest.approx(reference)
