"""Intervals against scipy and hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as distributions

from dhrd_plugin import stats
from dhrd_plugin.metrics import f1_sums, mean_sums


def test_wilson_interval_of_independent_answers():
    z, n, p = distributions.norm.ppf(0.975), 56, 48 / 56
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = stats.document_interval(mean_sums([1] * 48 + [0] * 8, range(56)))
    assert found.method == "wilson"
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(3).beta(2, 1, size=120)
    ours = stats.document_interval(mean_sums(values.tolist(), range(120)))
    theirs = distributions.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert ours.method == "bootstrap"
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_documents_of_one_question_count_once():
    """Five equal answers per question: as many independent observations as questions."""
    per_question = np.random.default_rng(5).integers(0, 2, size=60)
    clusters = np.repeat(np.arange(60), 5)
    clustered = mean_sums(np.repeat(per_question, 5).tolist(), clusters.tolist())
    error = stats.document_error([clustered])
    p = per_question.mean()
    assert math.sqrt(error.variance) == pytest.approx(math.sqrt(p * (1 - p) / 60), rel=0.05)
    assert stats.document_interval(clustered).method == "bootstrap"


def test_bootstrap_draws_are_the_same_every_time():
    rng = np.random.default_rng(0)
    golds, preds = (rng.choice(["0", "1", "2"], size=40).tolist() for _ in range(2))
    sums = f1_sums(golds, preds, ["0", "1", "2"], range(40))
    assert stats.document_interval(sums) == stats.document_interval(sums)


def test_interval_over_seeds_is_the_t_interval_of_the_mean():
    values = [0.81, 0.84, 0.79, 0.86, 0.80]
    found = stats.interval_around(float(np.mean(values)), [stats.seed_error(values)], "seeds")
    expected = distributions.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_seeds_of_two_arms_combine_as_welch():
    ours, theirs = [0.81, 0.84, 0.79], [0.70, 0.78, 0.74, 0.71, 0.75]
    errors = [stats.seed_error(ours), stats.seed_error(theirs)]
    found = stats.interval_around(float(np.mean(ours) - np.mean(theirs)), errors, "combined")
    expected = distributions.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_no_error_gives_an_interval_of_no_width():
    found = stats.interval_around(0.5, [stats.seed_error([0.5, 0.5])], "seeds")
    assert (found.low, found.high) == (0.5, 0.5)


def paired(gained: int, lost: int, n: int) -> stats.Interval:
    """Interval of the difference when `gained` documents become right and `lost` wrong."""
    both = n - gained - lost
    ours = mean_sums([1] * gained + [0] * lost + [1] * both, range(n))
    base = mean_sums([0] * gained + [1] * lost + [1] * both, range(n))
    return stats.interval_around(
        (gained - lost) / n, [stats.document_error([ours], [base])], "combined"
    )


def test_paired_difference_of_accuracies_by_hand():
    """Agresti & Min: 10.5 and 3.5 of 58 documents changed."""
    half = distributions.t.ppf(0.975, 55) * math.sqrt(14 - 7**2 / 58) / 58
    found = paired(10, 3, 56)
    assert (found.low, found.high) == pytest.approx((7 / 56 - half, 7 / 56 + half))


def test_few_changed_documents_are_not_significant():
    assert paired(4, 0, 56).low < 0  # exact McNemar: p = 0.125
    assert paired(8, 0, 56).low > 0  # p = 0.008
    assert paired(0, 0, 56).low < 0


def test_degrees_of_freedom_are_those_of_the_documents_that_change():
    """Two or three times their number; n - 1 where every document has a difference of its own."""
    theirs = np.full(50, 0.5)
    ours = theirs + 0.5 * (np.arange(50) < 5)
    error = stats.document_error([mean_sums(ours, range(50))], [mean_sums(theirs, range(50))])
    u = np.where(np.arange(50) < 5, 0.45, -0.05)
    assert error.df == pytest.approx(2 / ((u**4).sum() / (u**2).sum() ** 2 - 1 / 50))
    assert error.df < 15
    spread = mean_sums(np.linspace(0, 1, 50), range(50))
    assert stats.document_error([spread], [mean_sums(theirs, range(50))]).df == 49
    assert stats.document_error([spread], [spread]) == stats.ErrorTerm(0.0, 49)


@pytest.mark.parametrize("right", [0, 1])
def test_all_wrong_or_all_right_is_no_certainty_whatever_the_metric(right):
    """A bootstrap has nothing to draw from: macro-F1, and answers to shared questions."""
    golds = ["0", "1", "2"] * 4
    preds = golds if right else ["1", "2", "0"] * 4
    f1, shared = f1_sums(golds, preds, ["0", "1", "2"], range(12)), [0, 0, *range(1, 12)]
    expected = distributions.binomtest(12 * right, 12).proportion_ci(method="wilson")
    for sums in (f1, mean_sums([right] * 13, shared)):
        found = stats.document_interval(sums)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
