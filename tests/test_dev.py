"""Dev rows are judged by the harness's own metric."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tiny_models import mixed_rows

from dhrd_plugin.harness import load_task, split_docs
from distill.calibration import fit_temperature
from distill.data import load_training_data
from distill.dev import DevSet, is_better

LOGS = [math.log(p) for p in (0.2, 0.5, 0.3)]


class FakeTask:
    """Counts rows whose most probable choice is the document's, as a harness task would."""

    def __init__(self, metric="acc", higher_is_better=True):
        self.metric = metric
        self.better = higher_is_better
        self.config = type("Config", (), {"metric_list": [{"metric": metric}]})

    def process_results(self, doc, results):
        return {self.metric: float(results[doc["gold"]][1])}

    def aggregation(self):
        return {self.metric: lambda values: sum(values) / len(values)}

    def higher_is_better(self):
        return {self.metric: self.better}


@pytest.fixture
def dev():
    rows = mixed_rows()
    docs = [{"gold": min(row.gold)} for row in rows]
    return DevSet({"made": FakeTask(), "made_copa": FakeTask("em")}, rows, docs)


def test_tasks_count_alike_whatever_their_number_of_rows(dev):
    result = dev.judge([LOGS[: row.n_choices] for row in dev.rows])
    gold = [min(row.gold) for row in dev.rows]
    labels = [g for g, row in zip(gold, dev.rows, strict=True) if row.head == 0]
    candidates = [g for g, row in zip(gold, dev.rows, strict=True) if row.head == 1]
    assert (len(labels), len(candidates)) == (5, 3)
    accuracy = sum(g == 1 for g in labels) / 5
    exact = sum(g == 1 for g in candidates) / 3
    assert result["metrics"]["made"]["acc"] == pytest.approx(accuracy, abs=1e-6)
    assert result["metrics"]["made_copa"]["em"] == pytest.approx(exact, abs=1e-6)
    assert result["score"] == pytest.approx((accuracy + exact) / 2, abs=1e-6)
    nll = -sum(LOGS[g] for g in labels) / 5 / 2 - sum(LOGS[g] for g in candidates) / 3 / 2
    assert result["nll"] == pytest.approx(nll, abs=1e-5)


def test_several_gold_choices_count_as_one_event(dev):
    rows = [replace(row, gold=frozenset(range(row.n_choices))) for row in dev.rows]
    certain = [[math.log(1 / row.n_choices)] * row.n_choices for row in rows]
    assert replace(dev, rows=rows).judge(certain)["nll"] == pytest.approx(0, abs=1e-6)


def test_metric_that_should_be_low_counts_negated(dev):
    logs = [LOGS[: row.n_choices] for row in dev.rows]
    lower = {
        "made": FakeTask(higher_is_better=False),
        "made_copa": FakeTask(higher_is_better=False),
    }
    assert replace(dev, tasks=lower).judge(logs)["score"] < 0


def test_better_is_a_higher_score_then_a_lower_nll():
    best = {"score": 0.7, "nll": 0.5}
    assert is_better({"score": 0.8, "nll": 0.9}, best)
    assert is_better({"score": 0.7, "nll": 0.4}, best)
    assert not is_better({"score": 0.7, "nll": 0.5}, best)
    assert not is_better({"score": 0.6, "nll": 0.1}, best)


def test_each_task_is_calibrated_on_its_own_rows(dev):
    logs = [LOGS[: row.n_choices] for row in dev.rows]
    fits = dev.calibrate(logs)
    for name, head in (("made", 0), ("made_copa", 1)):
        rows = [i for i, row in enumerate(dev.rows) if row.head == head]
        expected = fit_temperature([logs[i] for i in rows], [dev.rows[i].gold for i in rows])
        assert fits[name]["temperature"] == expected
        assert fits[name]["after"]["nll"] <= fits[name]["before"]["nll"] + 1e-9


MUTUAL = """
task: made_mutual
dataset_path: json
dataset_kwargs: {data_files: {train: FILE}}
output_type: multiple_choice
training_split: train
validation_split: train
doc_to_text: "{{text}} Is it wet?"
doc_to_choice: ["no", "yes"]
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""


def test_harness_task_judges_also_with_unconditional_likelihoods(made_tasks, tmp_path):
    file = made_tasks / "made_weather-train.jsonl"
    (tmp_path / "m.yaml").write_text(MUTUAL.replace("FILE", str(file)))
    data = load_training_data(["made_mutual"], (), dev_rows=8, seed=0, include_path=str(tmp_path))
    rows = [
        replace(mixed_rows()[0], n_choices=2, head=0, gold=decision.gold) for decision in data.dev
    ]
    right = [[0.0 if c in row.gold else -9.0 for c in range(2)] for row in rows]
    dev = DevSet(data.tasks, rows, data.dev_docs)
    assert dev.judge(right)["metrics"] == {"made_mutual": {"acc": 1.0}}
    right[0].reverse()
    assert dev.judge(right)["score"] == 7 / 8


def test_documents_are_those_of_the_rows(made_tasks):
    data = load_training_data(
        ["made_weather", "made_because"], (), dev_rows=3, seed=1, include_path=str(made_tasks)
    )
    for decision, doc in zip(data.dev, data.dev_docs, strict=True):
        docs = list(split_docs(load_task(decision.task, str(made_tasks)), "train"))
        assert doc == docs[decision.index]
