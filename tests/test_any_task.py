"""Any multiple-choice task of the harness, or of a user's own, is distilled and scored."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from harness_runs import answers, evaluate
from lm_eval import tasks as harness_tasks
from lm_eval.tasks import TaskManager
from made_stock_rows import STOCK_ROWS, write_stock_data

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task
from dhrd_plugin.lm import DHRDLM
from distill.train import train

FAMILIES = ("arc", "hellaswag", "winogrande")
NAMES = tuple(STOCK_ROWS)
GOLD = {  # by made row, as the data sets write it
    "arc_easy": lambda row: row["choices"]["label"].index(row["answerKey"]),
    "hellaswag": lambda row: int(row["label"]),
    "winogrande": lambda row: int(row["answer"]) - 1,
}


@pytest.fixture
def stock_data(tmp_path, monkeypatch):
    write_stock_data(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """The harness's own YAML of these tasks; to look through all of it takes seconds."""
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        shutil.copytree(Path(harness_tasks.__file__).parent / family, folder / family)
    return str(folder)


@pytest.mark.parametrize("name", NAMES)
def test_decisions_of_stock_tasks(stock_data, families, name):
    loaded = load_decisions(load_task(name, families), "train")
    rows = STOCK_ROWS[name][2]
    assert (loaded.formulation, loaded.choices) == ("candidates", None)
    assert [decision.label for decision in loaded.decisions] == [GOLD[name](row) for row in rows]
    first = loaded.decisions[0]
    if name == "arc_easy":
        assert first.inputs[0] == "Question: What colour is a red cup?\nAnswer: red"
        assert {len(decision.choices) for decision in loaded.decisions} == {3, 4, 5}
    elif name == "hellaswag":
        assert first.inputs[3] == (
            "Painting: A man opens a pot of white paint. He paints a wall white. The end."
        )
    else:  # the choices stand in the contexts
        start, end = "The red cup did not fit into the box because the ", " was too big."
        assert first.inputs == (f"{start}cup{end}", f"{start}box{end}")
        assert first.choices == first.inputs


def test_stock_tasks_are_distilled_and_scored(
    stock_data, distill_config, families, tmp_path, caplog
):
    lines = [
        {"task": name, "split": "train", "index": i, "rationale": f"The {i}. row says so."}
        for name in NAMES
        for i in range(0, 10, 2)
    ]
    rationales = tmp_path / "r.jsonl"
    rationales.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "rationales": (rationales,),
        "max_steps": 2,
        "dev_rows": 2,
        "include_path": families,
    }
    trained = train(distill_config(tmp_path / "student", tasks=NAMES, **settings))
    assert trained.training["train_rows_with_rationale"] > 0
    assert trained.training["dev"]["metrics"].keys() == set(NAMES)

    with caplog.at_level(logging.WARNING, logger="dhrd_plugin.parity"):
        model = DHRDLM(str(tmp_path / "student"), batch_size=4, include_path=families)
        manager = TaskManager(include_path=families, include_defaults=False)
        found = evaluate(model, *NAMES, task_manager=manager)
        evaluate(model, "arc_easy", task_manager=manager)
    for name in NAMES:
        golds = [GOLD[name](row) for row in STOCK_ROWS[name][2]]
        log_probs = answers(found, name)
        assert len(log_probs) == len(golds)
        assert all(np.exp(values).sum() == pytest.approx(1) for values in log_probs)
        predicted = [int(np.argmax(values)) for values in log_probs]
        accuracy = np.mean(np.equal(predicted, golds))
        assert found["results"][name]["acc,none"] == pytest.approx(accuracy)
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "dhrd_plugin.parity"]
    assert "mean nothing for a classifier: arc_easy (acc_norm); hellaswag (acc_norm). " in warning
    assert warning.endswith("Read acc.")


def test_a_users_own_task_has_other_metrics_named_or_none(student, made_tasks, tmp_path, caplog):
    text = (made_tasks / "made_weather.yaml").read_text()
    own = tmp_path / "made_weather.yaml"
    for more, named in (
        ("", []),
        ("\n  - metric: acc_mutual_info\n  - metric: acc_bytes", ["acc_mutual_info, acc_bytes"]),
    ):
        own.write_text(text.replace("- metric: acc", "- metric: acc" + more))
        manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
        model = DHRDLM(str(student), include_path=str(tmp_path))
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="dhrd_plugin.parity"):
            evaluate(model, "made_weather", task_manager=manager)
        said = [r.getMessage() for r in caplog.records if r.name == "dhrd_plugin.parity"]
        assert len(said) == len(named)
        assert all(f"made_weather ({metrics})" in s for metrics, s in zip(named, said, strict=True))
