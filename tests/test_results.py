"""Reading result files: made ones, and ones that the harness itself wrote."""

from __future__ import annotations

import json

import pytest
from conftest import REPO
from result_files import (
    accuracy_task,
    cb_task,
    cot_task,
    sample,
    student,
    students,
    task_result,
    write_results,
)

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.results import drop_superseded, load_runs

HF = {"model": "hf", "model_args": {"pretrained": "org/tiny"}}


def test_a_run_holds_what_the_files_say(tmp_path):
    path = write_results(tmp_path, {"cb": cb_task([0, 1, 2, 1], [0, 1, 1, 1])}, config=HF)
    (run,) = load_runs([str(tmp_path)])
    (score,) = run.scores
    assert (run.path, run.name, run.named) == (path, "hf tiny", False)
    assert (score.task, score.column, score.mark, score.dataset) == ("cb", "cb", "", "cb")
    assert list(score.metrics) == ["f1", "acc"]  # F1 first, as in papers
    assert score.metrics["acc"] == 0.75
    assert (score.n, score.n_total) == (4, 4)
    assert [s.values["f1"] for s in score.samples] == [[0, 0], [1, 1], [2, 1], [1, 1]]
    assert score.samples[2].cluster == "2"


def test_names_come_from_the_student_the_model_or_the_user(tmp_path):
    task = {"copa": accuracy_task([1, 0])}
    write_results(tmp_path / "a", task, config=student("DHRD α=1 β=1", 0))
    write_results(tmp_path / "b", task, config={"model": "hf", "model_args": "pretrained=x/y,a=b"})
    write_results(tmp_path / "c", task, config={"model": "dummy"})
    names = [run.name for run in load_runs([str(tmp_path), f"lr=1e-3={tmp_path / 'a'}"])]
    assert names == ["DHRD α=1 β=1 · smollm2", "hf y", "dummy", "lr=1e-3"]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path):
    write_results(tmp_path / "lr=2", {"copa": accuracy_task([1])}, config=HF)
    assert [run.name for run in load_runs([str(tmp_path / "lr=2")])] == ["hf tiny"]


def test_a_file_given_twice_is_read_once(tmp_path):
    path = write_results(tmp_path, {"copa": accuracy_task([1])}, config=HF)
    assert len(load_runs([str(tmp_path), str(path)])) == 1


@pytest.mark.parametrize(
    "task, mark", [("copa_cot", " (CoT)"), ("copa_cot_sampled", " (CoT, sampled)")]
)
def test_a_cot_task_stands_in_its_twins_column(tmp_path, task, mark):
    write_results(tmp_path, {task: cot_task([1, 0], unparsable=[0, 1])}, config=HF)
    (score,) = load_runs([str(tmp_path)])[0].scores
    assert (score.column, score.mark, dict(score.metrics)) == ("copa", mark, {"acc": 0.5})
    assert score.unparsable == 0.5


def test_a_tasks_share_of_the_superglue_average_is_no_metric_of_its_own(tmp_path):
    for dataset, metrics in (("aps/super_glue", ["acc"]), ("elsewhere", ["acc", "score"])):
        made = accuracy_task([1, 0])
        made["config"]["dataset_path"] = dataset
        made["results"]["score,none"] = 0.5
        made["higher_is_better"]["score"] = True
        for line in made["samples"]:
            line["score"] = line["acc"]
        write_results(tmp_path / dataset, {"copa": made}, config=HF)
        assert list(load_runs([str(tmp_path / dataset)])[0].scores[0].metrics) == metrics


@pytest.mark.parametrize(
    "config, metrics",
    [
        (student("DHRD α=1 β=1", 0), ["acc"]),
        (student("DHRD α=1 β=1", 0, zero_shot=["arc_easy"]), ["acc", "acc_norm"]),
        (HF, ["acc", "acc_norm"]),
    ],
)
def test_metrics_that_a_classifier_does_not_have_are_read_of_others_only(tmp_path, config, metrics):
    made = accuracy_task([1, 0])
    made["results"]["acc_norm,none"] = 0.5
    made["higher_is_better"]["acc_norm"] = True
    for line in made["samples"]:
        line["acc_norm"] = line["acc"]
    write_results(tmp_path, {"arc_easy": made}, config=config)
    assert list(load_runs([str(tmp_path)])[0].scores[0].metrics) == metrics


def test_a_task_without_a_head_is_marked(tmp_path):
    tasks = {"copa": accuracy_task([1, 0]), "wic": accuracy_task([1, 1], "wic")}
    write_results(tmp_path, tasks, config=student("DHRD α=1 β=1", 0, zero_shot=["wic"]))
    marks = {score.task: score.mark for score in load_runs([str(tmp_path)])[0].scores}
    assert marks == {"copa": "", "wic": " (zero-shot)"}


def test_several_students_of_one_evaluation_are_one_run(tmp_path):
    """What they have in common is said once."""
    for seed, folder in ((0, "a"), (1, "b")):
        config = students(student("DHRD α=1 β=1", seed), student("pooled (α=0)", seed, ["wic"]))
        for lr, found in zip((1e-3, 2e-4), config["dhrd"]["students"], strict=True):
            found["training"] = {"alpha": 1.0, "lr": lr}
        write_results(tmp_path / folder, {"copa": accuracy_task([1, 0])}, config=config)
    one, other = load_runs([str(tmp_path)])
    assert one.name == other.name == "DHRD α=1 β=1 + pooled (α=0) · smollm2"
    assert one.training == {"alpha": 1.0}
    assert (one.recipe == other.recipe, one.seed, other.seed) == (True, "0", "1")
    assert one.identity != other.identity
    alone = student("DHRD α=1 β=1", 0)
    path = write_results(tmp_path / "c", {"copa": accuracy_task([1, 0])}, config=alone)
    (joint,) = load_runs([str(path)])
    assert joint.recipe != one.recipe and joint.identity != one.identity


def test_several_filters_are_kept_apart(tmp_path):
    lines = [
        sample(i, {"q": i}, "A", {"exact_match": right}, name)
        for i, (strict, flexible) in enumerate([(1.0, 1.0), (0.0, 1.0)])
        for name, right in (("strict", strict), ("flexible", flexible))
    ]
    made = task_result(lines, {"exact_match,strict": 0.5, "exact_match,flexible": 1.0})
    path = write_results(tmp_path, {"qa": made}, config=HF)
    (score,) = load_runs([str(path)])[0].scores
    assert score.metrics == {"exact_match,strict": 0.5, "exact_match,flexible": 1.0}
    assert score.samples[1].values == {"exact_match,strict": 0.0, "exact_match,flexible": 1.0}


def test_answers_to_one_question_share_a_cluster(tmp_path):
    lines = [
        sample(i, {"idx": {"paragraph": 0, "question": q, "answer": i}}, 0, {"acc": 1.0})
        for i, q in enumerate([0, 0, 1])
    ]
    write_results(tmp_path, {"multirc": task_result(lines, {"acc,none": 1.0})}, config=HF)
    clusters = [s.cluster for s in load_runs([str(tmp_path)])[0].scores[0].samples]
    assert clusters[0] == clusters[1] != clusters[2]


def test_only_metrics_of_which_more_is_better_are_read(tmp_path):
    made = accuracy_task([1, 0])
    made["results"]["perplexity,none"] = 12.0
    made["higher_is_better"]["perplexity"] = False
    write_results(tmp_path, {"copa": made}, config=HF)
    assert list(load_runs([str(tmp_path)])[0].scores[0].metrics) == ["acc"]


def test_the_newest_evaluation_of_a_model_on_a_task_counts(tmp_path):
    config = student("DHRD α=1 β=1", 0)
    both = {"copa": accuracy_task([0, 0]), "wic": accuracy_task([1, 1], "wic")}
    write_results(tmp_path, both, config=config, date=1)
    newer = write_results(tmp_path, {"copa": accuracy_task([1, 1])}, config=config, date=2)
    runs = load_runs([str(tmp_path)])
    kept = {score.task: run.path for run in drop_superseded(runs) for score in run.scores}
    assert kept["copa"] == newer
    assert kept["wic"] != newer
    assert sum(len(run.scores) for run in drop_superseded(runs)) == 2


@pytest.mark.parametrize("value", [27.3, float("nan"), "N/A"])
def test_what_is_no_fraction_is_not_read_as_one(tmp_path, value):
    """BLEU is in points already."""
    made = accuracy_task([1, 0])
    made["results"]["bleu,none"] = value
    made["higher_is_better"]["bleu"] = True
    write_results(tmp_path, {"copa": made}, config=HF)
    assert list(load_runs([str(tmp_path)])[0].scores[0].metrics) == ["acc"]


@pytest.mark.parametrize(
    "given, name", [("x" * 300, "x" * 300), ("\x1b[31mred\x01\n\udcffnew", "␛[31mred␁ \ufffdnew")]
)
def test_any_text_can_be_a_name_and_is_shown_on_one_line(tmp_path, given, name):
    write_results(tmp_path, {"copa": accuracy_task([1])}, config=HF)
    assert load_runs([f"{given}={tmp_path}"])[0].name == name


def break_json(path):
    path.write_text(path.read_text()[:50])


def break_structure(path):
    path.write_text('{"results": {}}')


def drop_size(path):
    content = json.loads(path.read_text())
    del content["n-samples"]["copa"]
    path.write_text(json.dumps(content))


def predict_only(path):
    content = json.loads(path.read_text())
    content["results"]["copa"] = {"name": "copa", "alias": "copa", "sample_len": 0}
    content["n-samples"]["copa"]["effective"] = 0
    path.write_text(json.dumps(content))


def drop_config(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": None}))


def remove_samples(path):
    next(path.parent.glob("samples_*")).unlink()


def shorten_samples(path):
    samples = next(path.parent.glob("samples_*"))
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-1]))


def tear_samples(path):
    samples = next(path.parent.glob("samples_*"))
    samples.write_text(samples.read_text()[:-20])


def shorten_one_filter(path):
    samples = next(path.parent.glob("samples_*"))
    lines = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join([*lines[:-1], lines[-1].replace('"none"', '"other"')]))


@pytest.mark.parametrize(
    "damage, says",
    [
        (break_json, "cannot be read as JSON"),
        (break_structure, "lacks configs, config"),
        (drop_size, "do not all cover the task 'copa'"),
        (drop_config, "not as lm-evaluation-harness writes it"),
        (predict_only, "copa has no scores, as --predict_only leaves it"),
        (remove_samples, "--log_samples"),
        (shorten_samples, "holds 2 documents, but"),
        (tear_samples, r"jsonl:3: not a sample"),
        (shorten_one_filter, "document 2 has no acc"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, says):
    path = write_results(tmp_path, {"copa": accuracy_task([1, 0, 1])}, config=HF)
    damage(path)
    with pytest.raises(DHRDError, match=says) as error:
        load_runs([str(tmp_path)])
    assert str(tmp_path) in str(error.value)
    assert len(str(error.value).splitlines()) < 6


def test_paths_without_results_are_named(tmp_path):
    with pytest.raises(DHRDError, match="no results_"):
        load_runs([str(tmp_path)])
    with pytest.raises(DHRDError, match="no such file or folder"):
        load_runs([f"name={tmp_path / 'absent'}"])


def test_files_that_the_harness_itself_writes(tmp_path):
    """The dummy model on the shipped `scenes` task, through the harness's own tracker."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(tmp_path))
    results = simple_evaluate(
        model="dummy",
        tasks=["scenes"],
        limit=30,
        task_manager=TaskManager(include_path=str(REPO / "tasks"), include_defaults=False),
        evaluation_tracker=tracker,
        log_samples=True,
        bootstrap_iters=0,
    )
    assert results is not None
    samples = results.pop("samples")
    reported = results["results"]["scenes"]["acc,none"]
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples(task_name="scenes", samples=samples["scenes"])

    (run,) = load_runs([str(tmp_path)])
    (score,) = run.scores
    assert run.name == "dummy"
    assert score.metrics == {"acc": reported}
    assert (score.n, score.n_total) == (30, 300)
    right = [s.values["acc"] for s in score.samples]
    assert sum(right) / 30 == pytest.approx(reported)
    assert [s.doc_id for s in score.samples] == list(range(30))
