"""All of SuperGLUE in one run: every metric in the results file, once more from the samples."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from lm_eval.loggers import EvaluationTracker
from made_super_glue import ROWS, repeated, write_super_glue
from scripted_lm import evaluate
from sklearn.metrics import accuracy_score, f1_score

from dhrd_plugin.report.results import load_runs
from dhrd_plugin.report.summary import summarise
from distill.train import train

STOCK = ("boolq", "cb", "copa", "multirc", "record", "sglue_rte", "wic", "wsc")
NAMES = (*STOCK, "sglue_multirc")
CB_LABELS = (0, 1, 2)


def made_rows() -> dict[str, list[dict]]:
    """Twelve copies of each row, the texts told apart, with CB's third label."""
    rng = random.Random(0)
    rows = {name: repeated(lines, 12) for name, lines in ROWS.items()}
    for row in rows["cb"]:
        row["label"] = rng.randrange(3)
    for lines in rows.values():
        for i, row in enumerate(lines):
            for column in ("passage", "premise", "paragraph"):
                if column in row:
                    row[column] = f"{rng.choice('ABCDEFGH')}{i}. {row[column]}"
    return rows


@pytest.fixture(scope="module")
def scored(distill_config, tmp_path_factory):
    """The folder that the harness wrote to, for a joint student trained for a few steps."""
    folder = tmp_path_factory.mktemp("super-glue")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_super_glue(folder, made_rows())
        student = folder / "student"
        settings = {"rationales": (), "alpha": 0.0, "max_steps": 3, "dev_rows": 2}
        train(distill_config(student, tasks=NAMES, **settings, include_path=None))
        tracker = EvaluationTracker(output_path=str(folder / "results"))
        model_args = {"pretrained": str(student), "device": "cpu"}
        tag = ["super-glue-lm-eval-v1", "sglue_multirc"]
        found = evaluate(
            "dhrd",
            tag,
            model_args=model_args,
            batch_size="auto",
            max_batch_size=16,
            evaluation_tracker=tracker,
        )
        samples = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=samples)
        for name, lines in samples.items():
            tracker.save_results_samples(task_name=name, samples=lines)
    return folder / "results"


@pytest.fixture(scope="module")
def results(scored):
    (path,) = scored.rglob("results_*.json")
    return json.loads(path.read_text())


def logged(folder: Path, name: str) -> list[dict]:
    (path,) = folder.rglob(f"samples_{name}_20*.jsonl")
    return [json.loads(line) for line in path.open()]


def log_probs(sample: dict) -> list[float]:
    return [float(reply[0]) for reply in sample["filtered_resps"]]


def record_scores(samples: list[dict]) -> dict[str, float]:
    """Made entities and answers are one or two words, articles apart: F1 by the set of words."""

    def words(text: str) -> set[str]:
        return set(text.lower().split()) - {"the"}

    f1s, ems = [], []
    for sample in samples:
        entities = sorted(set(sample["doc"]["entities"]))
        chosen = words(entities[int(np.argmax(log_probs(sample)))])
        answers = [words(answer) for answer in sample["doc"]["answers"]]
        f1s.append(max(2 * len(chosen & a) / (len(chosen) + len(a)) for a in answers))
        ems.append(float(chosen in answers))
    return {"f1": fmean(f1s), "em": fmean(ems)}


def computed(name: str, samples: list[dict]) -> dict[str, float]:
    """A task's metrics from the samples' documents and log-probabilities alone."""
    if name == "record":
        return record_scores(samples)
    golds = [sample["doc"]["label"] for sample in samples]
    preds = [int(np.argmax(log_probs(sample))) for sample in samples]
    metrics = {"acc": accuracy_score(golds, preds)}
    if name == "cb":
        metrics["f1"] = f1_score(golds, preds, labels=CB_LABELS, average="macro", zero_division=0)
    if name == "sglue_multirc":
        questions: dict[tuple, list[bool]] = {}
        for sample, gold, pred in zip(samples, golds, preds, strict=True):
            index = sample["doc"]["idx"]
            key = (index["paragraph"], index["question"])
            questions.setdefault(key, []).append(gold == pred)
        metrics["f1a"] = f1_score(golds, preds)
        metrics["em"] = fmean(map(all, questions.values()))
        metrics["score"] = (metrics["f1a"] + metrics["em"]) / 2
    return metrics


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_can_be_computed_from_the_logged_samples(scored, results, name):
    samples = logged(scored, name)
    assert len(samples) == results["n-samples"][name]["original"] == 24
    for sample in samples:
        assert np.exp(log_probs(sample)).sum() == pytest.approx(1, abs=1e-5)
    reported = {
        key.removesuffix(",none"): value
        for key, value in results["results"][name].items()
        if key.endswith(",none") and "_stderr" not in key
    }
    assert reported == pytest.approx(computed(name, samples)), name


def test_the_samples_are_no_trivial_ones(scored):
    """Else a metric could be right by accident: students that always choose alike."""
    shares = [computed(name, logged(scored, name)) for name in NAMES]
    assert len({round(value, 3) for metrics in shares for value in metrics.values()}) > 4
    distributions = {
        tuple(np.round(log_probs(sample), 3)) for name in NAMES for sample in logged(scored, name)
    }
    assert len(distributions) > 60


def test_the_report_shows_the_same_numbers(scored, results):
    (run,) = load_runs([str(scored)])
    assert [score.task for score in run.scores] == list(results["configs"])
    (row,) = summarise([run]).rows
    for name in NAMES:
        shown = {metric: e.value / 100 for metric, e in row.cells[name].scores.items()}
        wanted = computed(name, logged(scored, name))
        wanted.pop("score", None)  # F1a and EM are there
        assert shown == pytest.approx(wanted)
        assert all(e.low is not None for e in row.cells[name].scores.values()), name
