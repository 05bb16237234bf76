"""Statistics against scipy, scikit-learn, hand computation and planted effects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as distributions
from sklearn.metrics import accuracy_score, f1_score

from dhrd_plugin import stats


def labels(n: int, classes: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Gold labels, and predictions that are right about half of the time."""
    rng = np.random.default_rng(seed)
    golds = rng.integers(classes, size=n)
    preds = np.where(rng.random(n) < 0.5, golds, rng.integers(classes, size=n))
    return [str(g) for g in golds], [str(p) for p in preds]


def value(sums: stats.ClusterSums) -> float:
    return float(sums.value(np.ones((1, len(sums.numerators))))[0])


def test_metrics_equal_scikit_learn_also_when_resampled():
    golds, preds = labels(80, 3)
    right = [float(g == p) for g, p in zip(golds, preds, strict=True)]
    counts = np.random.default_rng(1).integers(0, 4, size=(5, 80))
    macro = stats.f1_sums(golds, preds, ["0", "1", "2"], range(80)).value(counts)
    binary = stats.f1_sums(golds, preds, ["1"], range(80)).value(counts)
    accuracy = stats.mean_sums(right, range(80)).value(counts)
    for i, weight in enumerate(counts):
        assert macro[i] == pytest.approx(
            f1_score(golds, preds, average="macro", sample_weight=weight)
        )
        one_class = f1_score(golds, preds, labels=["1"], average=None, sample_weight=weight)
        assert binary[i] == pytest.approx(one_class[0])
        assert accuracy[i] == pytest.approx(accuracy_score(golds, preds, sample_weight=weight))


def test_f1_without_any_positive_is_zero_as_in_scikit_learn():
    assert value(stats.f1_sums(["0", "0"], ["0", "0"], ["1"], range(2))) == 0.0


def test_exact_match_asks_for_all_answers_of_a_question():
    golds, preds = ["1", "0", "1", "1"], ["1", "0", "0", "1"]
    sums = stats.exact_match_sums(golds, preds, ["q1", "q1", "q2", "q3"])
    assert value(sums) == pytest.approx(2 / 3)
    assert sums.is_binomial


def test_average_is_the_plain_mean_of_metrics():
    golds, preds = labels(60, 3)
    f1 = stats.f1_sums(golds, preds, ["0", "1", "2"], range(60))
    accuracy = stats.mean_sums([g == p for g, p in zip(golds, preds, strict=True)], range(60))
    both = stats.average_sums([f1, accuracy])
    assert value(both) == pytest.approx((value(f1) + value(accuracy)) / 2)
    assert both.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("classes, average", [(2, "binary"), (3, "macro")])
def test_recompute_finds_the_metric_that_was_reported(classes, average):
    golds, preds = labels(50, classes)
    pairs = [[int(g), int(p)] for g, p in zip(golds, preds, strict=True)]
    options = {"pos_label": "1"} if average == "binary" else {}
    reported = f1_score(golds, preds, average=average, **options)
    sums = stats.recompute(pairs, range(50), reported)
    assert sums is not None and value(sums) == pytest.approx(reported)
    assert stats.recompute(pairs, range(50), reported + 0.01) is None


def test_recompute_of_numbers_grouped_pairs_and_unknown_values():
    assert stats.recompute([1.0, 0.0, 1.0], range(3), 2 / 3) is not None
    assert stats.recompute([1.0, 0.0, 0.0], range(3), 0.5) is None  # a median, say
    grouped = [["q1", 1, 1], ["q1", 0, 1], ["q2", 1, 1], ["q3", 0, 0]]
    em = stats.recompute(grouped, ["q1", "q1", "q2", "q3"], 2 / 3)
    assert em is not None and len(em.numerators) == 3
    assert stats.recompute(["text", "text"], range(2), 0.5) is None


def test_candidates_are_put_together_per_question():
    """(question, candidate, correct, log-odds): the highest wins, the first of equals."""
    values = [
        *[["a", 1, 1, 91.0], ["a", 0, 0, 90.0], ["a", 2, 0, -1.0]],  # in any order
        *[["b", 0, 1, -9.0], ["b", 1, 0, -8.0], ["b", 2, 0, -9.5]],
        *[["c", 0, 0, 1.0], ["c", 1, 0, 1.0], ["c", 2, 1, 0.0]],
        ["d", 0, 1, 5.0],  # incomplete
    ]
    clusters = [f"question {value[0]}" for value in values]
    golds, preds, questions = stats.chosen_candidates(values, clusters)
    assert (golds, preds) == (["1", "0", "2"], ["1", "1", "0"])
    assert questions == ["question a", "question b", "question c"]
    accuracy = stats.recompute(values, clusters, 1 / 3)
    assert accuracy is not None and accuracy.is_binomial and len(accuracy.numerators) == 3
    macro = f1_score(golds, preds, labels=["0", "1", "2"], average="macro")
    f1 = stats.recompute(values, clusters, macro)
    assert f1 is not None and value(f1) == pytest.approx(macro)
    assert stats.recompute(values, clusters, 0.9) is None


def test_four_values_of_another_kind_are_no_candidates():
    assert stats.recompute([["x", ["y"], 1, 0], ["x", ["z"], 0, 0]], range(2), 0.9) is None


def test_wilson_interval_of_independent_answers():
    z, n, p = distributions.norm.ppf(0.975), 56, 48 / 56
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = stats.document_interval(stats.mean_sums([1] * 48 + [0] * 8, range(56)))
    assert found.method == "wilson"
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(3).beta(2, 1, size=120)
    ours = stats.document_interval(stats.mean_sums(values.tolist(), range(120)))
    theirs = distributions.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert ours.method == "bootstrap"
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_documents_of_one_question_count_once():
    """Five equal answers per question: as many independent observations as questions."""
    per_question = np.random.default_rng(5).integers(0, 2, size=60)
    clusters = np.repeat(np.arange(60), 5)
    clustered = stats.mean_sums(np.repeat(per_question, 5).tolist(), clusters.tolist())
    error = stats.document_error([clustered])
    p = per_question.mean()
    assert math.sqrt(error.variance) == pytest.approx(math.sqrt(p * (1 - p) / 60), rel=0.05)
    assert stats.document_interval(clustered).method == "bootstrap"


def test_bootstrap_draws_are_the_same_every_time():
    golds, preds = labels(40, 3)
    sums = stats.f1_sums(golds, preds, ["0", "1", "2"], range(40))
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
    ours = stats.mean_sums([1] * gained + [0] * lost + [1] * both, range(n))
    base = stats.mean_sums([0] * gained + [1] * lost + [1] * both, range(n))
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


def flagged(gain: float, loss: float, seed: int, n: int = 500) -> bool:
    """Whether a difference is found when documents change with these probabilities."""
    rng = np.random.default_rng(seed)
    change = rng.choice([1, -1, 0], p=[gain, loss, 1 - gain - loss], size=n)
    stays = rng.random(n) < 0.7
    ours = np.where(change == 1, 1, np.where(change == -1, 0, stays))
    base = np.where(change == 1, 0, np.where(change == -1, 1, stays))
    error = stats.document_error(
        [stats.mean_sums(ours.tolist(), range(n))], [stats.mean_sums(base.tolist(), range(n))]
    )
    found = stats.interval_around(ours.mean() - base.mean(), [error], "combined")
    return not found.low <= 0 <= found.high


def test_planted_five_points_are_found_and_no_difference_is_not():
    assert sum(flagged(0.08, 0.03, seed) for seed in range(200)) > 160
    alarms = sum(flagged(0.055, 0.055, seed) for seed in range(200))
    assert alarms <= distributions.binom.ppf(0.999, 200, 0.05)


def test_seeds_that_differ_at_random_raise_no_alarm():
    """Two arms of three seeds from one setting whose accuracy varies from training to training."""
    alarms = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        difficulty = rng.normal(size=300)
        arms = [
            [
                stats.mean_sums(
                    (rng.random(300) < distributions.logistic.cdf(1 + difficulty + skill)).tolist(),
                    range(300),
                )
                for skill in rng.normal(0, 0.3, size=3)
            ]
            for _ in range(2)
        ]
        means = [[value(sums) for sums in arm] for arm in arms]
        errors = [stats.document_error(*arms), *map(stats.seed_error, means)]
        difference = float(np.mean(means[0]) - np.mean(means[1]))
        found = stats.interval_around(difference, errors, "combined")
        alarms += not found.low <= 0 <= found.high
    assert alarms <= distributions.binom.ppf(0.999, 200, 0.05)


def test_smallest_difference_has_the_power_it_promises():
    n = 300
    smallest = stats.smallest_difference(n)
    assert smallest is not None
    gained, lost = (stats.DISAGREEMENT + smallest) / 2, (stats.DISAGREEMENT - smallest) / 2
    draws = np.random.default_rng(0).multinomial(n, [gained, lost, 1 - gained - lost], size=4000)
    statistic = (draws[:, 0] - draws[:, 1]) / np.sqrt(draws[:, 0] + draws[:, 1])
    assert np.mean(np.abs(statistic) > 1.96) == pytest.approx(stats.POWER, abs=0.03)


def test_smallest_difference_shrinks_with_documents_and_may_not_exist():
    sizes = [stats.smallest_difference(n) or 1.0 for n in (10, 56, 100, 277, 3270)]
    assert sizes[0] < 1 and sizes == sorted(set(sizes), reverse=True)
    assert stats.smallest_difference(3) is None
