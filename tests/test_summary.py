"""Rows, columns, averages and differences from made runs."""

from __future__ import annotations

import numpy as np
import pytest
from result_files import (
    DHRD,
    HF,
    POOLED,
    accuracy_task,
    cb_task,
    cot_task,
    paper_cb_task,
    rng_right,
    rows,
    sample,
    student,
    task_result,
    write_arm,
    write_results,
)
from scipy import stats as distributions
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from dhrd_plugin.report.results import load_runs


def test_seeds_of_one_setting_are_one_row_with_a_t_interval(tmp_path):
    write_arm(tmp_path, DHRD, 0.8, range(3))
    _, by_name = rows(tmp_path)
    (row,) = by_name.values()
    accuracies = [100 * np.mean(rng_right(100, 0.8, 1000 * s + 80)) for s in range(3)]
    expected = distributions.ttest_1samp(accuracies, 0).confidence_interval()
    score = row.cells["copa"].scores["acc"]
    assert (score.runs, score.method) == (3, "seeds")
    assert score.value == pytest.approx(np.mean(accuracies))
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
    assert len(row.files) == 3


def test_average_first_averages_the_two_metrics_of_cb(tmp_path):
    golds, preds = [0, 1, 2, 0, 1, 2], [0, 1, 1, 0, 0, 2]
    tasks = {"cb": cb_task(golds, preds), "copa": accuracy_task([1, 1, 1, 0])}
    write_results(tmp_path, tasks, config=HF)
    summary, by_name = rows(tmp_path)
    cb = (f1_score(golds, preds, average="macro") + 4 / 6) / 2
    assert summary.average_over == ["cb", "copa"]
    assert by_name["hf tiny"].average.value == pytest.approx(100 * (cb + 0.75) / 2)
    assert by_name["hf tiny"].average.low < by_name["hf tiny"].average.value


def test_average_of_multirc_is_over_f1a_and_em(tmp_path):
    golds, preds, questions = [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 1, 1]
    lines = [
        sample(i, {"idx": {"paragraph": 0, "question": q, "answer": i}}, g, values)
        for i, (g, p, q) in enumerate(zip(golds, preds, questions, strict=True))
        for values in [{"f1a": [g, p], "em": [q, g, p], "acc": float(g == p)}]
    ]
    metrics = {"acc,none": 0.75, "f1a,none": f1_score(golds, preds), "em,none": 0.5}
    made = task_result(lines, metrics, dataset_path="aps/super_glue", dataset_name="multirc")
    write_results(tmp_path, {"multirc_f1a": made, "copa": accuracy_task([1, 0])}, config=HF)
    summary, by_name = rows(tmp_path)
    assert summary.average_over == ["multirc_f1a", "copa"]
    multirc = (f1_score(golds, preds) + 0.5) / 2
    assert by_name["hf tiny"].average.value == pytest.approx(100 * (multirc + 0.5) / 2)
    assert all(s.low is not None for s in by_name["hf tiny"].cells["multirc_f1a"].scores.values())
    assert summary.columns[0].groups == 2


def test_no_average_over_a_single_task_or_for_a_row_that_lacks_one(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0])}, config=HF)
    summary, _ = rows(tmp_path / "a")
    assert summary.average_over == []
    both = {"copa": accuracy_task([1, 0]), "wic": accuracy_task([1, 1], "wic")}
    write_results(tmp_path / "b", both, config={"model": "dummy"})
    summary, by_name = rows(tmp_path)
    assert summary.average_over == ["copa", "wic"]
    assert by_name["hf tiny"].average is None
    assert by_name["dummy"].average.value == pytest.approx(75)


def test_a_joint_students_average_varies_as_its_seeds_do(tmp_path):
    """What one seed wins on a task and loses on another does not widen the average."""
    for seed, (copa, wic) in enumerate([(6, 4), (4, 6), (5, 5)]):
        tasks = {
            "copa": accuracy_task([1] * copa + [0] * (10 - copa)),
            "wic": accuracy_task([1] * wic + [0] * (10 - wic), "wic"),
        }
        write_results(tmp_path / str(seed), tasks, config=student(DHRD, seed))
    _, by_name = rows(tmp_path)
    average = by_name[f"{DHRD} · smollm2"].average
    assert (average.low, average.high) == pytest.approx((50, 50))


def test_separate_students_errors_add_up_in_the_average(tmp_path):
    """Students of their own per task, five for one task and three for the other."""
    for task, counts in (("copa", (5, 6, 7, 5, 6)), ("wic", (4, 8, 6))):
        for seed, count in enumerate(counts):
            made = accuracy_task([1] * count + [0] * (10 - count), task)
            config = student(DHRD, seed)
            config["dhrd"]["fingerprint"] += task
            write_results(tmp_path / f"{task}{seed}", {task: made}, config=config)
    _, by_name = rows(tmp_path)
    row = by_name[f"{DHRD} · smollm2"]
    assert row.cells["copa"].scores["acc"].runs == 5
    a, b = np.var([50, 60, 70, 50, 60], ddof=1) / 5, np.var([40, 80, 60], ddof=1) / 3
    df = (a + b) ** 2 / (a**2 / 4 + b**2 / 2)
    half = distributions.t.ppf(0.975, df) * np.sqrt(a + b) / 2
    assert (row.average.high - row.average.low) / 2 == pytest.approx(half)


def test_a_planted_difference_is_found_and_none_is_not(tmp_path):
    write_arm(tmp_path, DHRD, 0.9, range(5), n=300)
    write_arm(tmp_path, POOLED, 0.7, range(5), n=300)
    write_arm(tmp_path, "twin", 0.7, range(5, 10), n=300)
    _, by_name = rows(tmp_path, baseline="pooled")
    better, same = by_name[f"{DHRD} · smollm2"], by_name["twin · smollm2"]
    for metric in ("f1", "acc"):
        assert better.cells["cb"].differences[metric].significant
        assert not same.cells["cb"].differences[metric].significant
    assert better.average_difference.significant
    assert better.average_difference.value == pytest.approx(20, abs=3)
    assert not same.average_difference.significant
    assert {d.test for d in better.differences} == {"t"}
    base = by_name[f"{POOLED} · smollm2"]
    assert base.average_difference is None and not base.cells["cb"].differences


def test_single_runs_are_compared_by_mcnemar_and_a_bootstrap(tmp_path):
    write_arm(tmp_path, DHRD, 0.9, [0])
    write_arm(tmp_path, POOLED, 0.7, [0])
    _, by_name = rows(tmp_path, baseline="pooled")
    cells = by_name[f"{DHRD} · smollm2"].cells
    ours, theirs = rng_right(100, 0.9, 90), rng_right(100, 0.7, 70)
    table = [[sum(np.equal(ours, i) & np.equal(theirs, j)) for j in (1, 0)] for i in (1, 0)]
    assert cells["copa"].differences["acc"].test == "mcnemar"
    expected = mcnemar(table, exact=True).pvalue
    assert cells["copa"].differences["acc"].p_value == pytest.approx(expected)
    f1, average = cells["cb"].differences["f1"], by_name[f"{DHRD} · smollm2"].average_difference
    assert (f1.test, average.test) == ("bootstrap", "bootstrap")
    for difference in (f1, average):
        assert (difference.p_value < 0.05) == (not difference.low <= 0 <= difference.high)


def test_all_differences_of_the_table_are_corrected_together(tmp_path):
    """Three rows against one; one that would be significant alone is not among them."""
    write_arm(tmp_path, POOLED, 0.7, [0])
    for seed, (setting, p) in enumerate([("a", 0.95), ("b", 0.84), ("c", 0.7)]):
        write_arm(tmp_path, setting, p, [seed])
    summary, _ = rows(tmp_path, baseline="pooled")
    found = [d for row in summary.rows for d in row.differences]
    assert len(found) == 3 * (3 + 1)  # F1 and accuracy of CB, accuracy of COPA, the average
    expected = multipletests([d.p_value for d in found], method="holm")
    assert [d.p_adjusted for d in found] == pytest.approx(expected[1])
    assert [d.significant for d in found] == expected[0].tolist()
    assert any(d.low > 0 and d.p_value < 0.05 and not d.significant for d in found)


def test_relative_change_is_in_percent_of_the_baseline(tmp_path):
    for name, copa, wic in (("base", [1, 0, 0, 0], [0, 0]), ("other", [1, 1, 1, 0], [1, 0])):
        tasks = {"copa": accuracy_task(copa), "wic": accuracy_task(wic, "wic")}
        write_results(tmp_path / name, tasks, config={"model": name})
    _, by_name = rows(tmp_path, baseline="base")
    row = by_name["other"]
    assert row.cells["copa"].differences["acc"].relative == pytest.approx(200)
    assert row.cells["wic"].differences["acc"].relative is None  # of nothing
    assert row.average_difference.relative == pytest.approx(400)  # from 12.5 to 62.5
    assert row.average_difference.test == "t"  # of accuracies alone: no bootstrap


def test_a_row_knows_its_recipes_and_what_its_students_trainings_have_in_common(tmp_path):
    for seed, lr in enumerate((1e-3, 2e-4)):
        config = student(DHRD, seed, zero_shot=["wic"])
        config["dhrd"]["training"] = {"alpha": 1.0, "lr": lr, "seed": seed}
        tasks = {"copa": accuracy_task([1, 0]), "wic": accuracy_task([1, 0], "wic")}
        write_results(tmp_path / str(seed), tasks, config=config)
    write_results(tmp_path / "hf", {"copa": accuracy_task([1, 0])}, config=HF)
    summary, by_name = rows(f"both={tmp_path / '0'}", f"both={tmp_path / '1'}", tmp_path / "hf")
    assert by_name["both"].training == by_name["both (zero-shot)"].training == {"alpha": 1.0}
    assert [row.mark for row in summary.rows] == ["", " (zero-shot)", ""]
    runs = load_runs([str(tmp_path)])
    assert by_name["both"].recipes == [run.recipe for run in runs if run.training]
    assert by_name["hf tiny"].training == {} and len(by_name["hf tiny"].recipes) == 1


def test_cot_row_is_compared_on_the_same_questions(tmp_path):
    cot = accuracy_task([0] * 20, metric="exact_match")
    for line in cot["samples"]:
        line["target"] = "True"  # a twin may write the same gold answer in another form
    write_results(tmp_path, {"copa": accuracy_task([1] * 20), "copa_cot": cot}, config=HF)
    _, by_name = rows(tmp_path, baseline="hf tiny")
    assert list(by_name) == ["hf tiny", "hf tiny (CoT)"]
    assert by_name["hf tiny (CoT)"].cells["copa"].differences["acc"].value == -100


def test_decoded_and_zero_shot_answers_are_rows_of_their_own(tmp_path):
    tasks = {
        "copa_cot_sampled": cot_task([1, 0], [0, 1]),
        "copa_cot": cot_task([1, 1], [0, 0]),
        "copa": accuracy_task([0, 0]),
        "wic": accuracy_task([0, 1], "wic"),
    }
    write_results(tmp_path, tasks, config=student(DHRD, 0, zero_shot=["wic"]))
    name = f"{DHRD} · smollm2"
    _, by_name = rows(tmp_path, baseline="smollm2")  # the unmarked row
    assert list(by_name) == [name + m for m in ("", " (CoT)", " (CoT, sampled)", " (zero-shot)")]
    assert list(by_name[f"{name} (zero-shot)"].cells) == ["wic"]
    cells = [by_name[name + mark].cells["copa"] for mark in ("", " (CoT)", " (CoT, sampled)")]
    assert [cell.unparsable for cell in cells] == [None, 0, 50]
    assert [cell.scores["acc"].value for cell in cells] == [0, 100, 50]


@pytest.mark.parametrize("complete", [True, False])
def test_metrics_over_candidates_have_intervals_over_questions(tmp_path, complete):
    golds, preds = [0, 1, 2, 0, 1, 2, 0, 1] * 3, [0, 1, 1, 0, 2, 2, 0, 1] * 3
    made = paper_cb_task(golds, preds, complete)
    write_results(tmp_path / "a", {"dhrd_paper_cb": made}, config=HF)
    worse = paper_cb_task(golds, [2] * 24, complete)
    write_results(tmp_path / "b", {"dhrd_paper_cb": worse}, config={"model": "dummy"})
    summary, by_name = rows(tmp_path, baseline="dummy")
    cell = by_name["hf tiny"].cells["dhrd_paper_cb"]
    expected = distributions.binomtest(18, 24).proportion_ci(method="wilson")
    assert cell.scores["acc"].method == "wilson"
    assert cell.scores["acc"].low == pytest.approx(100 * expected.low)
    assert cell.scores["f1"].method == "bootstrap" and cell.scores["f1"].low is not None
    assert cell.differences["acc"].test == "mcnemar" and cell.differences["acc"].significant
    assert cell.differences["f1"].test == "bootstrap"
    assert summary.columns[0].groups == 24 + (not complete)


def test_a_metric_that_cannot_be_recomputed_has_no_interval(tmp_path):
    made = accuracy_task([1, 0, 0, 0])
    made["results"]["acc,none"] = 0.5
    write_results(tmp_path / "a", {"copa": made}, config=HF)
    write_results(tmp_path / "b", {"copa": accuracy_task([1, 1, 0, 0])}, config={"model": "dummy"})
    _, by_name = rows(tmp_path, baseline="dummy")
    cell = by_name["hf tiny"].cells["copa"]
    assert (cell.scores["acc"].value, cell.scores["acc"].low) == (50, None)
    difference = cell.differences["acc"]
    assert (difference.value, difference.low, difference.test, difference.p_value) == (
        0,
        *[None] * 3,
    )
    assert not difference.significant


def test_a_dataset_counts_once_in_the_average(tmp_path):
    """Its task that most rows have done."""
    tasks = {
        "paper_copa": accuracy_task([0, 0]),
        "copa": accuracy_task([1, 1]),
        "wsc": accuracy_task([1, 0], "wsc.fixed"),
        "wsc_old": accuracy_task([0, 0], "wsc"),
    }
    write_results(tmp_path / "a", tasks, config=HF)
    del tasks["paper_copa"], tasks["wsc_old"]
    write_results(tmp_path / "b", tasks, config={"model": "dummy"})
    summary, by_name = rows(tmp_path)
    assert summary.average_over == ["copa", "wsc"]
    assert [row.average.value for row in by_name.values()] == [75, 75]


def test_equal_answers_give_no_interval_of_no_width(tmp_path):
    for name in "ab":
        made = {"cb": cb_task([0, 1, 2, 0], [0, 1, 1, 0])}
        write_results(tmp_path / name, made, config={"model": name})
    difference = rows(tmp_path, baseline="a")[1]["b"].cells["cb"].differences["f1"]
    assert (difference.value, difference.low, difference.p_value) == (0, None, 1)
