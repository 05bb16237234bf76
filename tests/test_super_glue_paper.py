"""The paper's yes-no form: what is asked, what is right, and how candidates become an answer."""

from __future__ import annotations

import importlib.util
import math
import random
from statistics import fmean

import pytest
from conftest import REPO
from made_super_glue import ROWS, repeated, write_super_glue
from scripted_lm import ScriptedLM, evaluate, random_log_likelihood
from sklearn.metrics import accuracy_score, f1_score

from dhrd_plugin.decisions import load_decisions, primary_metric
from dhrd_plugin.harness import load_task

TASKS = ("boolq", "cb", "copa", "multirc", "rte", "wic", "wsc")
NAMES = tuple(f"dhrd_paper_{task}" for task in TASKS)
ASKED = "Is the answer correct Yes or No?"

# Of the first made row (of COPA and CB: of its candidates), and how many rows are right.
PROMPTS = {
    "boolq": ["Passage: Tea is drunk hot.\nQuestion: is tea a drink?\nAnswer: True"],
    "cb": [
        "Passage: It rains.\n"
        'Question: Is the hypothesis "there is rain" entailed by the passage: '
        f"True, False, or Neither?\nAnswer: {answer}"
        for answer in ("True", "False", "Neither")
    ],
    "copa": [
        f"Passage: The glass broke.\nQuestion: What was the cause of this?\nAnswer: {answer}"
        for answer in ("It fell.", "It was full.")
    ],
    "multirc": ["Passage: Ann saw a fox.\nQuestion: What did Ann see?\nAnswer: a fox"],
    "rte": [
        "Passage: It rains.\n"
        'Question: Is the hypothesis "There is rain." entailed by the passage?\nAnswer: True'
    ],
    "wic": [
        "Passage: A river bank.\nA savings bank.\n"
        'Question: Does the word "bank" have the same meaning in both sentences?\nAnswer: True'
    ],
    "wsc": [
        "Passage: Ann met Eve because *she* called.\n"
        'Question: What does the pronoun "*she*" refer to?\nAnswer: Ann'
    ],
}
GOLD = {
    "boolq": ["Yes", "No"],
    "cb": ["Yes", "No", "No", "No", "No", "Yes"],
    "copa": ["Yes", "No", "No", "Yes"],
    "multirc": ["Yes", "No"],
    "rte": ["Yes", "No"],
    "wic": ["No", "Yes"],
    "wsc": ["No", "Yes"],
}


@pytest.fixture
def super_glue(tmp_path, monkeypatch):
    write_super_glue(tmp_path, {name: repeated(rows, 12) for name, rows in ROWS.items()})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def utils():
    path = REPO / "tasks" / "super_glue_paper" / "utils.py"
    spec = importlib.util.spec_from_file_location("super_glue_paper_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_yes_no_questions_with_the_right_gold(super_glue, task):
    for split in ("train", "validation"):
        loaded = load_decisions(load_task(f"dhrd_paper_{task}"), split)
        assert (loaded.formulation, loaded.choices) == ("labels", ("No", "Yes"))
        prompts = [f"{prompt}\n{ASKED}" for prompt in PROMPTS[task]]
        assert [d.inputs[0] for d in loaded.decisions[: len(prompts)]] == prompts
        assert [d.label_text for d in loaded.decisions] == GOLD[task] * 12
    assert primary_metric(load_task(f"dhrd_paper_{task}")) == "acc"


def test_tag_holds_the_seven_tasks(super_glue):
    model = ScriptedLM(log_likelihood=random_log_likelihood(0))
    assert sorted(evaluate(model, ["super-glue-dhrd-paper"])["results"]) == sorted(NAMES)


def p_yes(sample: dict) -> float:
    no, yes = (math.exp(reply[0]) for reply in sample["filtered_resps"])
    return yes / (no + yes)


def decided(samples: list[dict]) -> tuple[list[int], list[int]]:
    """Gold and prediction per question, from the logged samples alone."""
    questions = {}
    for sample in samples:
        questions.setdefault(sample["doc"]["idx"]["question"], []).append(sample)
    golds, preds = [], []
    for rows in questions.values():
        rows.sort(key=lambda row: row["doc"]["idx"]["candidate"])
        golds.append([row["doc"]["label"] for row in rows].index(1))
        chances = [p_yes(row) for row in rows]
        preds.append(chances.index(max(chances)))
    return golds, preds


@pytest.mark.parametrize("seed", [1, 2])
def test_every_metric_can_be_computed_from_the_logged_samples(super_glue, seed):
    model = ScriptedLM(log_likelihood=random_log_likelihood(seed))
    found = evaluate(model, ["super-glue-dhrd-paper-average"], log_samples=True)
    samples, expected = found["samples"], {}
    for name in NAMES:
        golds = [s["doc"]["label"] for s in samples[name]]
        preds = [p_yes(s) > 0.5 for s in samples[name]]
        expected[name] = {"acc": accuracy_score(golds, preds)}
        expected[name]["score"] = expected[name]["acc"]
        if name == "dhrd_paper_multirc":  # one question per made paragraph, two answers each
            right = [gold == pred for gold, pred in zip(golds, preds, strict=True)]
            em = fmean(all(right[i : i + 2]) for i in range(0, len(right), 2))
            f1a = f1_score(golds, preds)
            expected[name] |= {"f1a": f1a, "em": em, "score": (f1a + em) / 2}
        if name in ("dhrd_paper_copa", "dhrd_paper_cb"):
            row_acc, pairs = expected[name]["acc"], decided(samples[name])
            acc = accuracy_score(*pairs)
            expected[name] = {"row_acc": row_acc, "acc": acc, "score": acc}
        if name == "dhrd_paper_cb":
            f1 = f1_score(*pairs, labels=[0, 1, 2], average="macro")
            expected[name] |= {"f1": f1, "score": (f1 + acc) / 2}
    for name, metrics in expected.items():
        got = {metric: found["results"][name][f"{metric},none"] for metric in metrics}
        assert got == pytest.approx(metrics), name
    average = found["groups"]["super-glue-dhrd-paper-average"]["score,none"]
    assert average == pytest.approx(fmean(metrics["score"] for metrics in expected.values()))


def test_limit_leaves_out_a_question_without_all_its_candidates(super_glue):
    def always_right(request):
        return 0.0 if (request.args[1] == " Yes") == request.doc["label"] else -5.0

    tasks = ["dhrd_paper_copa", "dhrd_paper_cb"]
    results = evaluate(ScriptedLM(log_likelihood=always_right), tasks, limit=4)["results"]
    assert results["dhrd_paper_copa"]["acc,none"] == 1
    assert results["dhrd_paper_cb"]["acc,none"] == 1
    assert results["dhrd_paper_cb"]["f1,none"] == pytest.approx(1 / 3)  # one class of three seen
    results = evaluate(ScriptedLM(log_likelihood=always_right), tasks, limit=1)["results"]
    assert results["dhrd_paper_copa"]["row_acc,none"] == 1
    assert math.isnan(results["dhrd_paper_copa"]["acc,none"])
    assert math.isnan(results["dhrd_paper_cb"]["score,none"])


def test_candidates_are_put_together_in_any_order(utils):
    # (question, candidate, correct, log-odds of "Yes")
    items = [
        *[(7, 0, 0, 90.0), (7, 1, 1, 91.0), (7, 2, 0, -1.0)],  # both P("Yes") round to 1
        *[(3, 0, 1, -9.0), (3, 1, 0, -8.0), (3, 2, 0, -9.5)],  # all say "No"; 1 the least
        *[(4, 0, 0, 1.0), (4, 1, 0, 1.0), (4, 2, 1, 0.0)],  # the first of equals
        *[(5, 1, 1, 2.0), (5, 2, 0, 1.0)],  # 0 is missing
    ]
    for seed in range(5):
        random.Random(seed).shuffle(items)
        assert utils.chosen(items, 3) == [(0, 1), (2, 0), (1, 1)]
        assert utils.cb_acc(items) == pytest.approx(1 / 3)
        assert utils.cb_f1(items) == pytest.approx((2 / 3) / 3)


def test_a_student_trains_on_the_form_and_is_scored_on_it(super_glue, distill_config, tmp_path):
    from distill.train import train

    names = ("dhrd_paper_copa", "dhrd_paper_boolq")
    settings = {"tasks": names, "rationales": (), "alpha": 0.0, "max_steps": 2}
    student = tmp_path / "student"
    trained = train(distill_config(student, **settings, include_path=None))
    dev = trained.training["dev"]["metrics"]["dhrd_paper_copa"]
    assert dev.keys() == {"acc"} and 0 <= dev["acc"] <= 1  # over questions: whole ones only
    found = evaluate(
        "dhrd", names, model_args={"pretrained": str(student), "device": "cpu"}, log_samples=True
    )
    samples, results = found["samples"], found["results"]
    acc = accuracy_score(*decided(samples["dhrd_paper_copa"]))
    assert results["dhrd_paper_copa"]["acc,none"] == pytest.approx(acc)
    right = [(p_yes(s) > 0.5) == s["doc"]["label"] for s in samples["dhrd_paper_boolq"]]
    assert results["dhrd_paper_boolq"]["acc,none"] == pytest.approx(fmean(right))
    assert all(
        sum(math.exp(reply[0]) for reply in sample["filtered_resps"]) == pytest.approx(1)
        for sample in samples["dhrd_paper_copa"]
    )
