"""Tests and corrections against scipy, statsmodels and scikit-learn; planted effects are found, and
equal models raise no more false alarms than they may."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as distributions
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from dhrd_plugin import significance, stats
from dhrd_plugin.metrics import ClusterSums, f1_sums, mean_sums

REPEATS = 200


def value(sums: ClusterSums) -> float:
    return float(sums.value(np.ones((1, len(sums.numerators))))[0])


def changed(gained: int, lost: int, both: int, neither: int) -> tuple[ClusterSums, ClusterSums]:
    """Two runs' accuracies, by the documents that only one of them answers right."""
    ours = [1] * gained + [0] * lost + [1] * both + [0] * neither
    theirs = [0] * gained + [1] * lost + [1] * both + [0] * neither
    return mean_sums(ours, range(len(ours))), mean_sums(theirs, range(len(ours)))


def test_mcnemar_is_that_of_statsmodels():
    cells = itertools.product((0, 1, 4, 5, 17), (0, 3, 12), (0, 40), (6,))
    for gained, lost, both, neither in cells:
        table = [[both, gained], [lost, neither]]
        p = significance.mcnemar(*changed(gained, lost, both, neither))
        assert p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_holm_is_that_of_statsmodels(n):
    p_values = (np.random.default_rng(n).random(n) ** 4).round(2).tolist()  # some are equal
    expected = multipletests(p_values, method="holm")[1] if n else []
    assert significance.holm(p_values) == pytest.approx(expected)


def test_of_seeds_it_is_welchs_t_test():
    ours, theirs = [0.81, 0.84, 0.79], [0.70, 0.78, 0.74, 0.71, 0.75]
    errors = [stats.seed_error(ours), stats.seed_error(theirs)]
    p = significance.t_test(float(np.mean(ours) - np.mean(theirs)), errors)
    assert p == pytest.approx(distributions.ttest_ind(ours, theirs, equal_var=False).pvalue)


def test_bootstrap_of_a_mean_is_near_the_paired_t_test():
    rng = np.random.default_rng(1)
    ours, theirs = rng.beta(3, 1, size=(2, 400))
    ours += 0.02
    error = stats.document_error([mean_sums(ours, range(400))], [mean_sums(theirs, range(400))])
    p = significance.t_test(float(ours.mean() - theirs.mean()), [error])
    assert p == pytest.approx(distributions.ttest_rel(ours, theirs).pvalue, rel=0.1)


def test_bootstrap_error_of_an_f1_difference_is_that_of_scipy_and_scikit_learn():
    gold, ours, theirs = answers(0, 120, (0.4, 0.5, 0.1), disagreement=0.5)
    classes = ["0", "1", "2"]
    sums = [f1_sums(gold.astype(str), p.astype(str), classes, range(120)) for p in (ours, theirs)]

    def difference(gold, ours, theirs):
        f1 = [f1_score(gold, p, average="macro", labels=[0, 1, 2]) for p in (ours, theirs)]
        return f1[0] - f1[1]

    assert value(sums[0]) - value(sums[1]) == pytest.approx(difference(gold, ours, theirs))
    expected = distributions.bootstrap(
        (gold, ours, theirs),
        difference,
        paired=True,
        vectorized=False,
        n_resamples=300,
        method="percentile",
        rng=np.random.default_rng(0),
    ).standard_error
    error = stats.document_error(sums[:1], sums[1:])
    assert np.sqrt(error.variance) == pytest.approx(expected, rel=0.12)


def test_a_p_value_below_five_percent_is_an_interval_without_zero():
    error = stats.ErrorTerm(0.01**2, 7.5)
    edge = 0.01 * distributions.t.ppf(0.975, 7.5)
    for difference in (0.0, 0.9 * edge, 1.1 * edge, -1.1 * edge):
        found = stats.interval_around(difference, [error], "combined")
        p = significance.t_test(difference, [error])
        assert p is not None and (p < significance.LEVEL) == (not found.low <= 0 <= found.high)


def test_without_any_error_there_is_no_test():
    none = [stats.ErrorTerm(0.0, 3.0)]
    assert significance.t_test(0.1, none) is None
    assert significance.t_test(0.0, none) == 1.0


@pytest.mark.parametrize("n_changed, significant", [(4, False), (8, True)])
def test_few_changed_documents_decide_little_whatever_the_metric(n_changed, significant):
    """All in one direction, of 56: exact McNemar gives 0.125 and 0.008."""
    theirs = np.full(56, 0.5)  # a document's F1, say
    ours = theirs + 0.5 * (np.arange(56) < n_changed)
    error = stats.document_error([mean_sums(ours, range(56))], [mean_sums(theirs, range(56))])
    p = significance.t_test(0.5 * n_changed / 56, [error])
    assert p is not None and (p < significance.LEVEL) == significant
    exact = significance.mcnemar(*changed(n_changed, 0, 56 - n_changed, 0))
    assert (exact < significance.LEVEL) == significant


def answers(
    seed: int, n: int, classes: tuple[float, ...], disagreement: float, gain: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gold classes of the given frequencies and the answers of two models.

    A share `disagreement` of the documents only one of them answers right, ours more often by
    `gain`; of the others, both answer 80% right.
    """
    rng = np.random.default_rng(seed)
    gold = rng.choice(len(classes), p=classes, size=n)
    wrong = (gold + rng.integers(1, len(classes), size=n)) % len(classes)
    agree = 1 - disagreement
    shares = [(disagreement + gain) / 2, (disagreement - gain) / 2, 0.8 * agree, 0.2 * agree]
    kind = rng.choice(4, p=shares, size=n)
    ours, theirs = np.isin(kind, (0, 2)), np.isin(kind, (1, 2))
    return gold, np.where(ours, gold, wrong), np.where(theirs, gold, wrong)


def accuracy_is_found(seed: int, **planted) -> bool:
    gold, ours, theirs = answers(seed, **planted)
    n = range(len(gold))
    return significance.mcnemar(mean_sums(gold == ours, n), mean_sums(gold == theirs, n)) < 0.05


def f1_is_found(seed: int, **planted) -> bool:
    gold, *models = answers(seed, **planted)
    classes = [str(c) for c in range(len(planted["classes"]))]
    sums = [f1_sums(gold.astype(str), p.astype(str), classes, range(len(gold))) for p in models]
    error = stats.document_error(sums[:1], sums[1:])
    p = significance.t_test(value(sums[0]) - value(sums[1]), [error])
    return p is not None and p < 0.05


def alarms_allowed(rate: float = significance.LEVEL) -> tuple[float, float]:
    """Between which numbers of REPEATS all but one in a thousand lie."""
    return tuple(distributions.binom.ppf([0.0005, 0.9995], REPEATS, rate))


@pytest.mark.parametrize("is_found", [accuracy_is_found, f1_is_found])
def test_planted_five_points_on_500_documents_are_found_and_no_difference_is_not(
    monkeypatch, is_found
):
    """Models that disagree on 12% of the documents: the power is 90% (Connor 1987)."""
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    scenario = {"n": 500, "classes": (0.4, 0.35, 0.25), "disagreement": 0.12}
    found = sum(is_found(seed, gain=0.05, **scenario) for seed in range(REPEATS))
    assert alarms_allowed(0.9)[0] <= found
    alarms = sum(is_found(seed, **scenario) for seed in range(REPEATS))
    assert alarms_allowed()[0] <= alarms <= alarms_allowed()[1]


@pytest.mark.parametrize("disagreement", [0.1, 0.4])
def test_a_small_validation_set_with_a_rare_class_raises_no_more_alarms(monkeypatch, disagreement):
    """CB: 56 documents, 5 of them neutral."""
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    scenario = {"n": 56, "classes": (0.41, 0.5, 0.09), "disagreement": disagreement}
    for is_found in (accuracy_is_found, f1_is_found):
        assert sum(is_found(seed, **scenario) for seed in range(REPEATS)) <= alarms_allowed()[1]


def test_documents_of_one_question_are_drawn_together(monkeypatch):
    """Two models that get all five answers of a question right, or all wrong: taken one by one they
    would differ far too often."""
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    gold = np.tile([1, 0, 0, 1, 0], 60).astype(str)
    questions, documents = np.repeat(np.arange(60), 5).tolist(), list(range(300))
    alarms = {"questions": 0, "documents": 0}
    for seed in range(REPEATS):
        right = np.random.default_rng(seed).random((2, 60)).repeat(5, axis=1) < 0.7
        preds = np.where(right, gold, np.where(gold == "1", "0", "1"))
        for unit, clusters in (("questions", questions), ("documents", documents)):
            sums = [f1_sums(gold, p, ["1"], clusters) for p in preds]
            error = stats.document_error(sums[:1], sums[1:])
            p = significance.t_test(value(sums[0]) - value(sums[1]), [error])
            alarms[unit] += p is not None and p < 0.05
    assert alarms["questions"] <= alarms_allowed()[1] < alarms["documents"]


def test_seeds_that_differ_at_random_raise_no_alarm():
    """Two arms of three seeds from one setting whose accuracy varies from training to training."""
    alarms = 0
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        chance = distributions.logistic.cdf(1 + rng.normal(size=300) + rng.normal(0, 0.3, (6, 1)))
        runs = [mean_sums(right.tolist(), range(300)) for right in rng.random((6, 300)) < chance]
        means = [value(sums) for sums in runs]
        errors = [
            stats.document_error(runs[:3], runs[3:]),
            stats.seed_error(means[:3]),
            stats.seed_error(means[3:]),
        ]
        p = significance.t_test(float(np.mean(means[:3]) - np.mean(means[3:])), errors)
        alarms += p is not None and p < 0.05
    assert alarms <= alarms_allowed()[1]


def test_smallest_difference_has_the_power_it_promises():
    n = 300
    smallest = significance.smallest_difference(n)
    assert smallest is not None
    psi = significance.DISAGREEMENT
    gained, lost = (psi + smallest) / 2, (psi - smallest) / 2
    draws = np.random.default_rng(0).multinomial(n, [gained, lost, 1 - psi], size=4000)
    statistic = (draws[:, 0] - draws[:, 1]) / np.sqrt(draws[:, 0] + draws[:, 1])
    assert np.mean(np.abs(statistic) > 1.96) == pytest.approx(significance.POWER, abs=0.03)


def test_smallest_difference_shrinks_with_documents_and_may_not_exist():
    sizes = [significance.smallest_difference(n) or 1.0 for n in (10, 56, 100, 277, 3270)]
    assert sizes[0] < 1 and sizes == sorted(set(sizes), reverse=True)
    assert significance.smallest_difference(3) is None
