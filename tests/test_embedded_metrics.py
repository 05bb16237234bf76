"""`ece` and `brier` of our own tasks: the harness reports what `distill.calibration` computes."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from conftest import REPO
from harness_runs import answers, evaluate, made_manager
from scipy.special import log_softmax
from scripted_lm import ScriptedLM, random_log_likelihood
from sklearn.metrics import accuracy_score
from test_tasks import load_module

from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.lm import DHRDLM
from distill.calibration import reliability

LIMIT = 60


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return made_manager(tmp_path_factory.mktemp("none"))


def expected(results, task):
    """Accuracy, ECE and Brier score of what the harness logged."""
    log_probs = log_softmax(np.array(answers(results, task)), axis=1)
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    golds = [int(sample["target"]) for sample in samples]
    found = reliability(log_probs.tolist(), [frozenset([gold]) for gold in golds])
    accuracy = accuracy_score(golds, log_probs.argmax(axis=1))
    return {"acc": accuracy, "ece": found["ece"], "brier": found["brier"]}


def reported(results, task):
    return {
        metric: results["results"][task][f"{metric},none"] for metric in ("acc", "ece", "brier")
    }


@pytest.mark.parametrize("task", ["scenes", "everyday"])
def test_any_models_log_likelihoods_are_normalised_and_judged(tasks, task):
    model = ScriptedLM(log_likelihood=random_log_likelihood(1))
    results = evaluate(model, task, task_manager=tasks, limit=LIMIT)
    assert reported(results, task) == pytest.approx(expected(results, task))
    assert results["higher_is_better"][task] == {"acc": True, "ece": False, "brier": False}


def test_calibration_changes_them_and_not_the_accuracy(student, tasks, tmp_path):
    folder = shutil.copytree(student, tmp_path / "student")
    description = json.loads((folder / "dhrd.json").read_text())
    description["tasks"]["scenes"]["temperature"] = 0.2
    (folder / "dhrd.json").write_text(json.dumps(description))
    assert read_student_config(folder).tasks["scenes"].temperature == 0.2
    plain, calibrated = (
        evaluate(
            DHRDLM(str(folder), batch_size=20, calibrated=calibrated),
            "scenes",
            task_manager=tasks,
            limit=LIMIT,
        )
        for calibrated in (False, True)
    )
    for results in (plain, calibrated):
        assert reported(results, "scenes") == pytest.approx(expected(results, "scenes"), abs=1e-6)
    one, other = reported(plain, "scenes"), reported(calibrated, "scenes")
    assert one["acc"] == other["acc"]
    assert abs(one["ece"] - other["ece"]) > 1e-3 and abs(one["brier"] - other["brier"]) > 1e-3


def test_by_hand():
    utils = load_module(REPO / "tasks" / "_embedded" / "utils.py")
    replies = [(math.log(p), False) for p in (0.2, 0.7, 0.1)]
    scores = utils.scores({"label": 0}, replies)
    assert scores["acc"] == 0 and scores["ece"] == (pytest.approx(0.7), 0)
    assert scores["brier"] == pytest.approx(0.8**2 + 0.7**2 + 0.1**2)
    # Two bins: 0.95 and 1.0 with one of two right, 0.5 with one of one.
    assert utils.ece([(0.95, 1.0), (1.0, 0.0), (0.5, 1.0)]) == pytest.approx(
        2 / 3 * abs(1 / 2 - 0.975) + 1 / 3 * abs(1 - 0.5)
    )
    assert utils.ece([(1 / 3, 1.0)]) == pytest.approx(2 / 3)
