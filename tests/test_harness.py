"""Loading harness tasks by name: shipped, stock and the user's own."""

from __future__ import annotations

import pytest

from dhrd_plugin import harness
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task, render_requests, split_docs, stock_record_loads

MINE = """
task: scenes
dataset_path: json
dataset_kwargs: {data_files: {validation: FOLDER/rows.jsonl}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{text}}"
doc_to_target: label
doc_to_choice: ["no", "yes"]
"""


@pytest.fixture
def own_task(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "mine", "label": 1}\n')
    (tmp_path / "mine.yaml").write_text(MINE.replace("FOLDER", str(tmp_path)))
    return load_task("scenes", str(tmp_path))


def test_broken_yaml_of_the_users_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: mine\ndoc_to_text: 'never closed\n")
    with pytest.raises(DHRDError, match=r"mine\.yaml: cannot be read as a task"):
        load_task("mine", str(tmp_path))


def test_shipped_task_loads_by_name():
    task = load_task("scenes")
    assert len(split_docs(task, "train")) == 600
    assert len(split_docs(task, "validation")) == 300


def test_users_folder_wins_over_ours(own_task):
    assert [doc["text"] for doc in split_docs(own_task, "validation")] == ["mine"]


def test_missing_split_is_named_with_the_ones_there_are(own_task):
    with pytest.raises(DHRDError, match=r"no train split \(it has: validation\)"):
        split_docs(own_task, "train")


def test_unknown_split_lists_the_known():
    with pytest.raises(DHRDError, match="'dev': use one of train, validation, test"):
        split_docs(load_task("scenes"), "dev")


def test_missing_include_path_is_named():
    with pytest.raises(DHRDError, match="--include-path nowhere: no such folder"):
        load_task("scenes", "nowhere")


def test_unknown_task_suggests_similar_names():
    with pytest.raises(DHRDError, match=r"'scene'.*Similar names: .*scenes"):
        load_task("scene")


def test_tag_is_refused_with_its_members():
    with pytest.raises(DHRDError, match=r"group or tag.*boolq,cb,copa"):
        load_task("super-glue-lm-eval-v1")


def test_task_without_its_data_says_what_to_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no aps/super_glue here, and no hub
    with pytest.raises(DHRDError, match="'copa' was found but could not be loaded"):
        load_task("copa")


def test_requests_are_those_that_the_harness_builds():
    task = load_task("scenes")
    task.build_all_requests(limit=3, rank=0, world_size=1)
    ours = [
        instance.args
        for index, doc in enumerate(split_docs(task, "validation").select(range(3)))
        for instance in render_requests(task, doc, index)
    ]
    assert ours == [instance.args for instance in task.instances]


@pytest.mark.parametrize(("file", "loads"), [("squad_metrics.py", True), ("__init__.py", False)])
def test_drop_in_record_is_used_only_where_the_stock_one_cannot_load(
    tmp_path, monkeypatch, file, loads
):
    metrics = tmp_path / "transformers" / "data" / "metrics"
    metrics.mkdir(parents=True)
    (metrics / file).touch()
    monkeypatch.setattr(harness.sys, "path", ["", str(tmp_path / "none"), str(tmp_path)])
    assert stock_record_loads() is loads
    names = {folder.name for folder in harness.task_folders()}
    assert ("record_squad_free" in names) is not loads


def test_only_the_transformers_that_python_imports_counts(tmp_path, monkeypatch):
    (tmp_path / "newer" / "transformers").mkdir(parents=True)
    metrics = tmp_path / "older" / "transformers" / "data" / "metrics"
    metrics.mkdir(parents=True)
    (metrics / "squad_metrics.py").touch()
    monkeypatch.setattr(harness.sys, "path", [str(tmp_path / "newer"), str(tmp_path / "older")])
    assert stock_record_loads() is False
