"""The shipped task families: all found, all sound, and scored as their READMEs say."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPO, SHARED_DATA, needs_shared_data
from lm_eval.tasks._yaml_loader import load_yaml
from made_super_glue import ROWS

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task, split_docs, stock_record_loads
from teachers.records import load_rationales

TASKS = REPO / "tasks"
FAMILIES = sorted(folder for folder in TASKS.iterdir() if not folder.name.startswith(("_", ".")))
EMBEDDED = {"scenes": (600, 300), "everyday": (840, 360)}


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared_names(folder: Path) -> Counter[str]:
    """Names of the tasks and groups that our YAML files declare; a group's `task:` is a list."""
    names: Counter[str] = Counter()
    for path in folder.rglob("*.yaml"):
        config = load_yaml(path, resolve_func=False, recursive=False)
        names.update([config[key] for key in ("group", "task") if key in config][:1])
    return names


def test_every_task_is_indexed_under_a_name_of_its_own():
    """The harness passes over a YAML that it cannot read without a word."""
    from lm_eval import tasks as harness_tasks
    from lm_eval.tasks._index import Kind, TaskIndex

    ours = TaskIndex.build(FAMILIES)
    tags = {name for name, entry in ours.items() if entry.kind is Kind.TAG}
    assert tags == {"super-glue-cot", "super-glue-cot-sampled", "super-glue-dhrd-paper"}
    assert declared_names(TASKS) == Counter(ours.keys() - tags)
    stock = TaskIndex.build([*Path(harness_tasks.__file__).parent.glob("[!_]*/")])  # without ours
    # A drop-in takes a stock task's place on purpose, and must not declare its tag.
    assert ours.keys() & stock.keys() == {"record"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda folder: folder.name)
def test_family_has_a_readme_that_names_its_tasks(family):
    text = (family / "README.md").read_text()
    for name in declared_names(family):
        assert f"`{name}`" in text
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

    stock = Path(harness_tasks.__file__).parent / "super_glue" / "record" / "default.yaml"
    ours = TASKS / "record_squad_free" / "record.yaml"
    wanted, got = (load_yaml(path, resolve_func=False) for path in (stock, ours))
    assert got.keys() == wanted.keys() - {"tag"}
    for key in got.keys() - {"metric_list"}:
        mine, theirs = (str(config[key]).rsplit(".", 1)[-1] for config in (got, wanted))
        assert mine == theirs, key
    listed = [[metric["metric"] for metric in config["metric_list"]] for config in (got, wanted)]
    assert listed[0] == listed[1]
