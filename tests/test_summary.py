"""Rows, columns, averages and differences from made runs."""

from __future__ import annotations

import numpy as np
import pytest
from result_files import (
    accuracy_task,
    cb_task,
    cot_task,
    paper_cb_task,
    sample,
    student,
    task_result,
    write_results,
)
from scipy import stats as distributions
from sklearn.metrics import f1_score

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.results import load_runs
from dhrd_plugin.report.summary import summarise

DHRD, POOLED = "DHRD α=1 β=1", "pooled (α=0)"
HF = {"model": "hf", "model_args": {"pretrained": "org/tiny"}}


def rng_right(n: int, p: float, seed: int) -> list[int]:
    return (np.random.default_rng(seed).random(n) < p).astype(int).tolist()


def write_arm(folder, setting, p, seeds, n=100):
    """Students of one setting with accuracy about `p` on CB and COPA."""
    golds = np.random.default_rng(99).integers(3, size=n)
    for seed in seeds:
        right = rng_right(n, p, 1000 * seed + int(100 * p))
        preds = np.where(right, golds, (golds + 1) % 3)
        tasks = {"cb": cb_task(golds.tolist(), preds.tolist()), "copa": accuracy_task(right)}
        write_results(folder / f"{setting}-{seed}", tasks, config=student(setting, seed))


def rows(*arguments, baseline=None):
    summary = summarise(load_runs([str(a) for a in arguments]), baseline)
    return summary, {row.name: row for row in summary.rows}


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
        assert better.cells["cb"].differences[metric].excludes_zero
        assert not same.cells["cb"].differences[metric].excludes_zero
    assert better.average_difference.excludes_zero
    assert better.average_difference.value == pytest.approx(20, abs=3)
    assert not same.average_difference.excludes_zero
    base = by_name[f"{POOLED} · smollm2"]
    assert base.average_difference is None and not base.cells["cb"].differences


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
    assert cell.differences["acc"].excludes_zero
    assert summary.columns[0].groups == 24 + (not complete)


def test_documents_that_differ_are_an_error_that_names_the_first(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=HF)
    other = accuracy_task([1, 0, 1])
    other["samples"][1]["doc_hash"] = "changed"
    write_results(tmp_path / "b", {"copa": other}, config={"model": "dummy"})
    with pytest.raises(DHRDError, match=r"samples_copa.*document 1 is not document 1"):
        rows(tmp_path, baseline="hf tiny")
    rows(tmp_path)  # without a comparison they may stand in one table


def test_a_changed_gold_answer_is_another_document(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=HF)
    other = accuracy_task([1, 0, 1])
    other["samples"][2]["target"] = "1"
    write_results(tmp_path / "b", {"copa": other}, config={"model": "dummy"})
    with pytest.raises(DHRDError, match="document 2"):
        rows(tmp_path, baseline="hf tiny")


def test_fewer_documents_are_no_silent_intersection(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=HF)
    partial = {"copa": accuracy_task([1, 0])}
    write_results(tmp_path / "b", partial, config={"model": "dummy"}, n_total=3)
    with pytest.raises(DHRDError, match=r"2 documents, but .* has 3"):
        rows(tmp_path, baseline="hf tiny")
    summary, by_name = rows(tmp_path)
    assert (summary.columns[0].n, by_name["dummy"].cells["copa"].n) == (3, 2)


def test_different_models_are_not_folded_as_seeds(tmp_path):
    task = {"copa": accuracy_task([1, 0])}
    for parent in "ab":
        args = {"pretrained": f"{parent}/final"}
        write_results(tmp_path / parent, task, config={"model": "hf", "model_args": args})
    with pytest.raises(DHRDError, match="share the row 'hf final'"):
        rows(tmp_path)
    _, by_name = rows(f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")
    assert list(by_name) == ["a", "b"]
    _, by_name = rows(f"both={tmp_path}")
    assert by_name["both"].cells["copa"].scores["acc"].runs == 2


def test_two_students_of_one_seed_are_not_folded(tmp_path):
    for learning_rate in ("1e-3", "2e-4"):
        config = student(DHRD, 0)
        config["dhrd"]["fingerprint"] = learning_rate
        write_results(tmp_path / learning_rate, {"copa": accuracy_task([1])}, config=config)
    with pytest.raises(DHRDError, match="NAME=PATH"):
        rows(tmp_path)


@pytest.mark.parametrize("differs, folded", [("dev", True), ("lr", False)])
def test_seeds_of_one_recipe_are_folded_and_other_recipes_are_not(tmp_path, differs, folded):
    for seed in (0, 1):
        config = student(DHRD, seed)
        config["dhrd"]["training"] = {"lr": 1e-3, "seed": seed, "dev": None} | {differs: seed}
        write_results(tmp_path / str(seed), {"copa": accuracy_task([1, 0])}, config=config)
    if folded:
        _, by_name = rows(tmp_path)
        (row,) = by_name.values()
        assert row.cells["copa"].scores["acc"].runs == 2
    else:
        with pytest.raises(DHRDError, match="Two different models would share"):
            rows(tmp_path)


def test_a_metric_that_cannot_be_recomputed_has_no_interval(tmp_path):
    made = accuracy_task([1, 0, 0, 0])
    made["results"]["acc,none"] = 0.5
    write_results(tmp_path / "a", {"copa": made}, config=HF)
    write_results(tmp_path / "b", {"copa": accuracy_task([1, 1, 0, 0])}, config={"model": "dummy"})
    _, by_name = rows(tmp_path, baseline="dummy")
    cell = by_name["hf tiny"].cells["copa"]
    assert (cell.scores["acc"].value, cell.scores["acc"].low) == (50, None)
    assert cell.differences["acc"].value == 0 and not cell.differences["acc"].excludes_zero


@pytest.mark.parametrize("asked, says", [("nothing", "is no row"), ("smollm2", "fits 2 rows")])
def test_an_unknown_or_ambiguous_baseline_lists_the_rows(tmp_path, asked, says):
    write_arm(tmp_path, DHRD, 0.8, [0])
    write_arm(tmp_path, POOLED, 0.7, [0])
    with pytest.raises(DHRDError, match=says) as error:
        rows(tmp_path, baseline=asked)
    assert DHRD in str(error.value) and POOLED in str(error.value)
