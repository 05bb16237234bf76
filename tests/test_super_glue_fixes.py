"""Corrected MultiRC, and the average: the right answers rewarded, as scikit-learn counts them."""

from __future__ import annotations

import importlib.util
import random
import re
import string
from collections import Counter
from statistics import fmean

import numpy as np
import pytest
from conftest import REPO
from made_super_glue import ROWS, write_super_glue
from scripted_lm import ScriptedLM, evaluate, random_log_likelihood
from sklearn.metrics import accuracy_score, f1_score

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task

ACCURACY_TASKS = ("boolq", "copa", "sglue_rte", "wic", "wsc")


def made_multirc(seed: int, n_questions: int) -> list[dict]:
    """Two questions per paragraph, with one to four answers each; the second's idx starts anew."""
    rng = random.Random(seed)
    return [
        ROWS["multirc"][0]
        | {
            "idx": {"paragraph": n // 2, "question": n % 2, "answer": a},
            "answer": f"answer {n} {a}",
            "label": rng.randint(0, 1),
        }
        for n in range(n_questions)
        for a in range(rng.randint(1, 4))
    ]


def made_cb(seed: int, n: int) -> list[dict]:
    rng = random.Random(seed)
    return [ROWS["cb"][0] | {"idx": i, "label": rng.randrange(3)} for i in range(n)]


@pytest.fixture
def super_glue(tmp_path, monkeypatch):
    rows = ROWS | {"multirc": made_multirc(0, 40), "cb": made_cb(0, 60)}
    write_super_glue(tmp_path, rows)
    monkeypatch.chdir(tmp_path)


def predictions(samples: list[dict]) -> list[int]:
    """The likeliest choice of each logged sample."""
    return [int(np.argmax([reply[0] for reply in s["filtered_resps"]])) for s in samples]


def test_multirc_asks_as_the_stock_task_and_rewards_yes_for_a_correct_answer(super_glue):
    ours, stock = (load_decisions(load_task(n), "train") for n in ("sglue_multirc", "multirc"))
    assert (ours.formulation, ours.choices) == ("labels", ("no", "yes"))
    labels = [row["label"] for row in made_multirc(0, 40)]
    assert {0, 1} == set(labels)
    assert [d.label_text for d in ours.decisions] == ["yes" if label else "no" for label in labels]
    assert [d.inputs for d in ours.decisions] == [d.inputs for d in stock.decisions]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_multirc_scores_agree_with_scikit_learn(super_glue, seed):
    found = evaluate(
        ScriptedLM(log_likelihood=random_log_likelihood(seed)), ["sglue_multirc"], log_samples=True
    )
    scores, samples = found["results"]["sglue_multirc"], found["samples"]["sglue_multirc"]
    golds, preds = [s["doc"]["label"] for s in samples], predictions(samples)
    assert scores["acc,none"] == pytest.approx(accuracy_score(golds, preds))
    assert scores["f1a,none"] == pytest.approx(f1_score(golds, preds))
    questions = [(s["doc"]["idx"]["paragraph"], s["doc"]["idx"]["question"]) for s in samples]
    per_question = []
    for question in set(questions):
        at = [i for i, other in enumerate(questions) if other == question]
        per_question.append(accuracy_score([golds[i] for i in at], [preds[i] for i in at]) == 1)
    assert 0 < sum(per_question) < len(per_question) == 40
    assert scores["em,none"] == pytest.approx(fmean(per_question))
    mean = (f1_score(golds, preds) + fmean(per_question)) / 2
    assert scores["score,none"] == pytest.approx(mean)


def test_a_model_that_knows_every_answer_gets_none_right_in_stock_multirc(super_glue):
    def truthful(request):
        says_yes = request.args[1].endswith("yes")
        return 0.0 if says_yes == bool(request.doc["label"]) else -5.0

    found = evaluate(ScriptedLM(log_likelihood=truthful), ["multirc", "sglue_multirc"])["results"]
    assert found["multirc"]["acc,none"] == 0
    metrics = ("acc", "f1a", "em", "score")
    assert {found["sglue_multirc"][f"{metric},none"] for metric in metrics} == {1.0}


def test_stock_cb_agrees_with_scikit_learn(super_glue):
    """Why there is no corrected CB here."""
    model = ScriptedLM(log_likelihood=random_log_likelihood(4))
    found = evaluate(model, ["cb"], log_samples=True)
    golds = [s["doc"]["label"] for s in found["samples"]["cb"]]
    preds = predictions(found["samples"]["cb"])
    assert found["results"]["cb"]["acc,none"] == pytest.approx(accuracy_score(golds, preds))
    macro = f1_score(golds, preds, labels=[0, 1, 2], average="macro")
    assert found["results"]["cb"]["f1,none"] == pytest.approx(macro)


def test_average_is_over_tasks_after_averaging_each_tasks_two_metrics(super_glue):
    tasks = [*ACCURACY_TASKS, "cb", "sglue_multirc"]

    def by_content(request):  # the same for the stock tasks and for the group's
        return -random.Random(f"{request.doc}{request.args[1]}").random()

    alone = evaluate(ScriptedLM(log_likelihood=by_content), tasks)["results"]
    found = evaluate(ScriptedLM(log_likelihood=by_content), ["super-glue-average"])
    group = found["results"]
    for task in tasks:  # what the stock tasks report stays as it is
        for metric in alone[task].keys() - {"alias", "name", "sample_len"}:
            assert group[task][metric] == alone[task][metric]
    per_task = [alone[task]["acc,none"] for task in ACCURACY_TASKS]
    per_task.append((alone["cb"]["f1,none"] + alone["cb"]["acc,none"]) / 2)
    multirc = alone["sglue_multirc"]
    per_task.append((multirc["f1a,none"] + multirc["em,none"]) / 2)
    assert len(set(per_task)) > 3
    assert found["groups"]["super-glue-average"]["score,none"] == pytest.approx(fmean(per_task))


def squad_normalise(text: str) -> str:
    """The reference: SQuAD 1.1's evaluation script."""
    text = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(prediction: str, truth: str) -> float:
    predicted, wanted = squad_normalise(prediction).split(), squad_normalise(truth).split()
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def made_entity(rng: random.Random) -> str:
    words = rng.choices(
        ["the", "The", "A", "Rome", "ROME", "U.N.", "Council", "St.", "Mary's", "Zürich", "12"],
        k=rng.randint(1, 4),
    )
    return " ".join([*words, rng.choice(["Bern", "bern!", "Oslo"])])


def test_drop_in_record_agrees_with_the_squad_script_on_200_rows():
    path = REPO / "tasks" / "record_squad_free" / "utils.py"
    spec = importlib.util.spec_from_file_location("drop_in_record", path)
    drop_in = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drop_in)
    rng = random.Random(0)
    f1s, ems = [], []
    for _ in range(200):
        entities = sorted({made_entity(rng) for _ in range(rng.randint(2, 8))})
        answers = [made_entity(rng) for _ in range(2)] + rng.sample(entities, rng.randint(0, 1))
        winner = rng.randrange(len(entities))
        results = [(-float(i != winner), i == winner) for i in range(len(entities))]
        scores = drop_in.process_results({"entities": entities, "answers": answers}, results)
        f1s.append(max(squad_f1(entities[winner], answer) for answer in answers))
        exact = [squad_normalise(entities[winner]) == squad_normalise(a) for a in answers]
        ems.append(float(any(exact)))
        assert scores == {"f1": pytest.approx(f1s[-1]), "em": ems[-1]}
    assert len(set(f1s)) > 5 and 10 < sum(ems) < 190  # partial matches, hits and misses
