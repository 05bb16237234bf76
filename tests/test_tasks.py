"""The shipped task families: all found, all sound, and scored as their READMEs say."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from conftest import REPO, SHARED_DATA, needs_shared_data
from made_super_glue import ROWS, write_super_glue

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task, render_requests, split_docs, stock_record_loads
from teachers.records import load_rationales

TASKS = REPO / "tasks"
FAMILIES = sorted(folder for folder in TASKS.iterdir() if not folder.name.startswith(("_", ".")))
EMBEDDED = {"scenes": (600, 300), "everyday": (840, 360)}


@pytest.fixture
def super_glue(tmp_path, monkeypatch):
    write_super_glue(tmp_path)
    monkeypatch.chdir(tmp_path)


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared_names() -> Counter[str]:
    """Names of the tasks that our YAML files declare (a plain loader does: tags of no interest)."""
    lines = (line for path in TASKS.rglob("*.yaml") for line in path.read_text().splitlines())
    return Counter(yaml.safe_load(line)["task"] for line in lines if line.startswith("task:"))


def test_every_task_is_indexed_under_a_name_of_its_own():
    """The harness passes over a YAML that it cannot read without a word."""
    from lm_eval import tasks as harness_tasks
    from lm_eval.tasks._index import TaskIndex

    ours = TaskIndex.build(FAMILIES)
    assert declared_names() == Counter(ours.keys())
    stock = TaskIndex.build([Path(harness_tasks.__file__).parent])
    # A drop-in takes a stock task's place on purpose, and must not declare its tag.
    assert ours.keys() & stock.keys() - {"scenes", "everyday", "cb_cot", "copa_cot"} == {"record"}
    assert not [entry.name for entry in ours.values() if entry.tags]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda folder: folder.name)
def test_family_has_a_readme_that_names_its_tasks(family):
    text = (family / "README.md").read_text()
    for path in family.glob("*.yaml"):
        for line in path.read_text().splitlines():
            if line.startswith("task:"):
                assert f"`{line.removeprefix('task: ')}`" in text
    assert "icence" in text or "terms" in text


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_task(name):
    task = load_task(name)
    for split, rows in zip(("train", "validation"), EMBEDDED[name], strict=True):
        loaded = load_decisions(task, split)
        assert len(loaded.decisions) == rows
        assert (loaded.formulation, loaded.choices) == ("labels", tuple(task.config.doc_to_choice))
        share = Counter(decision.label for decision in loaded.decisions)
        assert set(share.values()) == {rows // len(loaded.choices)}
        # No passage on both sides: the two splits were cut by `unit`.
    units = [set(split_docs(task, split)["unit"]) for split in ("train", "validation")]
    assert not units[0] & units[1]


@pytest.mark.parametrize("name", EMBEDDED)
def test_reference_rationales_belong_to_the_rows_and_stay_out_of_prompts(name):
    file = TASKS / name / "rationales.jsonl"
    for split in ("train", "validation"):
        decisions = {d.id: d for d in load_decisions(load_task(name), split).decisions}
        records = load_rationales([file], decisions)
        assert records.keys() == decisions.keys()
        for key, decision in decisions.items():
            assert records[key]["rationale"] not in decision.inputs[0]


@needs_shared_data
@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_data_is_the_original(name):
    rationales = [json.loads(line) for line in (TASKS / name / "rationales.jsonl").open()]
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (TASKS / name / "data" / f"{split}.jsonl").open()]
        for record in (record for record in rationales if record["split"] == split):
            rows[record["index"]]["rationale"] = record["rationale"]
        original = (SHARED_DATA / name / f"{split}.jsonl").read_text().splitlines()
        assert rows == [json.loads(line) for line in original]


def score(task, index: int, reply: str) -> float:
    """What the harness gives for `reply` to a validation document."""
    doc = split_docs(task, "validation")[index]
    instance = SimpleNamespace(idx=0, doc=doc, resps=[reply], filtered_resps={})
    for pipeline in task._filters:
        pipeline.apply([instance])
    return task.process_results(doc, [instance.filtered_resps["final-answer"]])["exact_match"]


def prompt(task, index: int) -> str:
    return render_requests(task, split_docs(task, "validation")[index], index).args[0]


def test_cb_cot_asks_what_a_student_was_trained_on(super_glue):
    trained_on = load_decisions(load_task("cb"), "validation").decisions
    task = load_task("cb_cot")
    for index, decision in enumerate(trained_on):
        assert prompt(task, index) == decision.inputs[0] + "\nReasoning:"


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("\nRain is rain.\nFinal Answer:\nTrue", 1),
        ("\nRain is rain.\nFinal Answer: true.\nQuestion", 1),
        ("\nFinal Answer:\nTrue\n\nIt snows.\nFinal Answer:\nFalse", 1),  # the first one counts
        ("\nRain is rain.\nFinal Answer:\nFalse", 0),
        ("\nFinal Answer:\nTrue or False", 0),
        ("\nFinal Answer:\nIt is True", 0),
        ("\nFinal Answer:\n", 0),
        ("\nThe answer is True", 0),
        ("True", 0),
        ("", 0),
    ],
)
def test_cb_cot_scores_the_answer_line(super_glue, reply, right):
    assert score(load_task("cb_cot"), 0, reply) == right


def test_copa_cot_lists_both_alternatives(super_glue):
    expected = "The glass broke because\n(A) it fell.\n(B) it was full.\nReasoning:"
    assert prompt(load_task("copa_cot"), 0) == expected


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("it got light.", 1),
        ("It got light", 1),
        ("(B)", 1),
        ("b.", 1),
        ("(B) it got light.", 1),
        ("it got dark.", 0),
        ("(A)", 0),
        ("(A) it got light.", 0),
        ("(A) or (B)", 0),
        ("it got light because the sun rose", 0),
        ("", 0),
    ],
)
def test_copa_cot_takes_letter_text_or_both(super_glue, answer, right):
    reply = f"\nSunrise brings light.\nFinal Answer:\n{answer}"
    assert score(load_task("copa_cot"), 1, reply) == right


@pytest.mark.parametrize("name", ["cb_cot", "copa_cot"])
def test_cot_is_greedy_bounded_and_never_cut_before_the_answer(super_glue, name):
    settings = load_task(name).config.generation_kwargs
    assert settings["do_sample"] is False and settings["max_gen_toks"] == 256
    written = "\nBecause.\nFinal Answer:\nTrue"
    assert not [stop for stop in settings["until"] if stop in written]


@pytest.fixture
def drop_in_record() -> ModuleType:
    return load_module(TASKS / "record_squad_free" / "utils.py")


@pytest.fixture
def stock_record(drop_in_record, monkeypatch) -> ModuleType:
    """The harness's own code; where transformers lacks what it scores with, it gets ours."""
    from lm_eval import tasks as harness_tasks

    if not stock_record_loads():
        metrics = ModuleType("squad_metrics")
        metrics.compute_f1 = drop_in_record.token_f1
        metrics.compute_exact = drop_in_record.exact
        package = ModuleType("transformers.data.metrics")
        package.squad_metrics = metrics
        monkeypatch.setitem(sys.modules, package.__name__, package)
        monkeypatch.setitem(sys.modules, f"{package.__name__}.squad_metrics", metrics)
    return load_module(Path(harness_tasks.__file__).parent / "super_glue" / "record" / "util.py")


def test_drop_in_record_is_the_stock_one(stock_record, drop_in_record):
    import datasets

    rows = datasets.Dataset.from_list(ROWS["record"])
    docs = drop_in_record.process_docs(rows).to_list()
    assert docs == stock_record.process_docs(rows).to_list()
    for doc in docs:
        for function in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            assert getattr(drop_in_record, function)(doc) == getattr(stock_record, function)(doc)
        for winner in range(len(doc["entities"])):
            results = [(-float(i != winner), i == winner) for i in range(len(doc["entities"]))]
            scores = drop_in_record.process_results(doc, results)
            assert scores == stock_record.process_results(doc, results)


@pytest.mark.parametrize(
    ("prediction", "target", "exact", "f1"),
    [
        ("Rome", "Rome", 1, 1.0),
        ("the Rome!", "rome", 1, 1.0),  # articles, case and punctuation do not count
        ("United Nations Council", "United Nations", 0, 0.8),
        ("Rome Rome", "Rome", 0, 2 / 3),  # tokens count as often as they occur
        ("Bern", "Rome", 0, 0.0),
        ("the", "a", 1, 1.0),  # two texts without tokens agree
        ("the", "Rome", 0, 0.0),
    ],
)
def test_squad_scores_by_hand(drop_in_record, prediction, target, exact, f1):
    assert drop_in_record.exact(prediction, target) == exact
    assert drop_in_record.token_f1(prediction, target) == pytest.approx(f1)


def test_drop_in_and_stock_record_declare_the_same_task(drop_in_record):
    from lm_eval import tasks as harness_tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    stock = Path(harness_tasks.__file__).parent / "super_glue" / "record" / "default.yaml"
    ours = TASKS / "record_squad_free" / "record.yaml"
    wanted, got = (load_yaml(path, resolve_func=False) for path in (stock, ours))
    assert got.keys() == wanted.keys() - {"tag"}
    for key in got.keys() - {"metric_list"}:
        mine, theirs = (str(config[key]).rsplit(".", 1)[-1] for config in (got, wanted))
        assert mine == theirs, key
    listed = [[metric["metric"] for metric in config["metric_list"]] for config in (got, wanted)]
    assert listed[0] == listed[1]
