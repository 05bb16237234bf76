"""Decisions on made rows of all eight SuperGLUE tasks, on the real rows, and in odd cases."""

from __future__ import annotations

import json

import pytest
from conftest import SHARED_DATA, needs_shared_data
from made_super_glue import ROWS, write_super_glue

from dhrd_plugin.decisions import (
    build_decision,
    infer_formulation,
    load_decisions,
    request_pairs,
    task_version,
    template_sha,
)
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task, render_requests, split_docs

YES_NO = ("no", "yes")
LABELS = {  # task: choices, gold of the two made rows
    "boolq": (YES_NO, [1, 0]),
    "cb": (("True", "False", "Neither"), [0, 2]),
    # Stock multirc rewards "no" (1) for a correct answer: we read what the harness rewards.
    "multirc": (("yes", "no"), [1, 0]),
    "sglue_rte": (("True", "False"), [0, 1]),
    "wic": (YES_NO, [0, 1]),
    "wsc": (YES_NO, [0, 1]),
}
REAL_ROWS = {
    "boolq": ("train", 1061),
    "cb": ("train", 250),
    "copa": ("train", 400),
    "multirc": ("validation", 4848),  # the 27,243 training rows take most of a minute
    "record": ("train", 82),
    "sglue_rte": ("train", 2490),
    "wic": ("validation", 638),
    "wsc": ("train", 554),
}
TASK = """
task: made
dataset_path: json
dataset_kwargs: {data_files: {train: ROWS, validation: ROWS}}
output_type: multiple_choice
training_split: train
validation_split: validation
"""


@pytest.fixture
def super_glue(tmp_path, monkeypatch):
    write_super_glue(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def made_task(tmp_path):
    """Load a task made of `yaml` and `rows`."""

    def load(yaml: str, rows: list[dict]):
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "made.yaml").write_text(TASK.replace("ROWS", str(data)) + yaml)
        return load_task("made", str(tmp_path))

    return load


@pytest.mark.parametrize("name", LABELS)
def test_labels_tasks(super_glue, name):
    choices, gold = LABELS[name]
    loaded = load_decisions(load_task(name), "train")
    assert (loaded.formulation, loaded.choices) == ("labels", choices)
    assert [sorted(decision.gold) for decision in loaded.decisions] == [[label] for label in gold]
    for index, decision in enumerate(loaded.decisions):
        assert decision.id == f"{name}/train/{index}"
        assert decision.choices == choices
        assert decision.inputs == (decision.context,)
        assert decision.label_text == choices[gold[index]]


def test_prompt_is_the_harness_own(super_glue):
    decision = load_decisions(load_task("cb"), "validation").decisions[0]
    expected = "It rains.\nQuestion: there is rain. True, False, or Neither?\nAnswer:"
    assert decision.inputs == (expected,)


def test_common_prefix_of_multirc_choices_moves_into_the_input(super_glue):
    decision = load_decisions(load_task("multirc"), "train").decisions[0]
    assert decision.inputs[0].endswith("Answer: a fox\nIs the answer correct?")
    assert decision.choices == ("yes", "no")


def test_copa_candidates_with_a_text_as_target(super_glue):
    loaded = load_decisions(load_task("copa"), "train")
    assert (loaded.formulation, loaded.choices) == ("candidates", None)
    first, second = loaded.decisions
    # Two spaces: the harness puts its delimiter before a choice that begins with one. So be it.
    assert first.inputs == (
        "The glass broke because  it fell.",
        "The glass broke because  it was full.",
    )
    assert first.choices == ("it fell.", "it was full.")
    assert first.context == "The glass broke because"
    assert (first.gold, second.gold) == (frozenset([0]), frozenset([1]))


def test_record_has_several_golds_and_close_matches(super_glue):
    loaded = load_decisions(load_task("record"), "train")
    assert loaded.formulation == "candidates"
    first, second = loaded.decisions
    # Sorted, without repeats: Bern, Italy, Rome; both Italy and Rome are right.
    assert [choice.split()[4] for choice in first.choices] == ["Bern", "Italy", "Rome"]
    assert first.gold == frozenset([1, 2]) and first.label == 1
    # "The United Nations" is not among the answers, but scores best against "United Nations".
    assert second.choices[second.label].startswith("- The United Nations")


def test_decision_is_the_same_from_instances_as_handed_over_at_test_time(super_glue):
    """Whatever order they come in."""
    for name in (*LABELS, "copa", "record"):
        task = load_task(name)
        loaded = load_decisions(task, "validation")
        docs = list(split_docs(task, "validation"))
        for index, decision in enumerate(loaded.decisions):
            pairs = request_pairs(reversed(render_requests(task, docs[index], index)))
            place = {"task": name, "split": "validation", "index": index}
            rebuilt = build_decision(pairs, loaded.formulation, **place)
            assert rebuilt.input_sha == decision.input_sha


def test_input_sha_tells_rows_and_choices_apart():
    place = {"task": "t", "split": "train", "index": 0}
    shas = {
        build_decision(pairs, "labels", **place).input_sha
        for pairs in (
            [("a", " x"), ("a", " y")],
            [("b", " x"), ("b", " y")],
            [("a", " x"), ("a", " z")],
        )
    }
    assert len(shas) == 3


def test_limit_does_not_change_the_formulation(super_glue):
    loaded = load_decisions(load_task("copa"), "train", limit=1)
    assert loaded.formulation == "candidates"
    assert len(loaded.decisions) == 1


def test_missing_gold_names_the_row(tmp_path, monkeypatch):
    unlabelled = [ROWS["cb"][0], {**ROWS["cb"][1], "label": -1}]
    write_super_glue(tmp_path, {"cb": unlabelled})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DHRDError, match=r"cb/train/1: no gold answer: the target is -1"):
        load_decisions(load_task("cb"), "train")


def test_record_row_without_a_right_entity_is_named(tmp_path, monkeypatch):
    hopeless = {**ROWS["record"][0], "answers": ["Oslo"]}
    write_super_glue(tmp_path, {"record": [hopeless, ROWS["record"][1]]})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DHRDError, match=r"record/train/0: no gold answer"):
        load_decisions(load_task("record"), "train")


def test_choices_in_the_context_make_each_input_a_candidate(made_task):
    """As in winogrande: one ending, a context for each option."""
    task = made_task(
        'doc_to_text: label\ndoc_to_target: "{{ending}}"\n'
        'doc_to_choice: "{{[start ~ first, start ~ second]}}"\n',
        [
            {"start": "The ", "first": "cup", "second": "jar", "ending": "broke.", "label": 1},
            {"start": "A ", "first": "fox", "second": "yak", "ending": "ran.", "label": 0},
        ],
    )
    assert task.multiple_input
    loaded = load_decisions(task, "train")
    assert loaded.formulation == "candidates"
    assert loaded.decisions[0].inputs == ("The cup broke.", "The jar broke.")
    assert loaded.decisions[0].context == ""
    assert [decision.label for decision in loaded.decisions] == [1, 0]


def test_several_targets_are_all_gold(made_task):
    task = made_task(
        'doc_to_text: "{{text}}"\ndoc_to_target: labels\ndoc_to_choice: ["a", "b", "c"]\n',
        [{"text": "one", "labels": [0, 2]}, {"text": "two", "labels": [1, 1]}],
    )
    golds = [decision.gold for decision in load_decisions(task, "train").decisions]
    assert golds == [frozenset([0, 2]), frozenset([1])]


def test_auxiliary_requests_of_mutual_information_are_no_choices(made_task):
    task = made_task(
        'doc_to_text: "{{text}}"\ndoc_to_target: label\ndoc_to_choice: ["no", "yes"]\n'
        "metric_list: [{metric: acc}, {metric: acc_mutual_info}]\n",
        [{"text": "one", "label": 1}, {"text": "two", "label": 0}],
    )
    doc = split_docs(task, "train")[0]
    assert len(render_requests(task, doc, 0)) == 4
    assert request_pairs(render_requests(task, doc, 0)) == [("one", " no"), ("one", " yes")]
    assert load_decisions(task, "train").choices == ("no", "yes")


def test_whole_sentences_as_choices_have_no_context(made_task):
    task = made_task(
        'doc_to_text: ""\ntarget_delimiter: ""\ndoc_to_target: 0\n'
        'doc_to_choice: "{{[good, bad]}}"\n',
        [{"good": "She sleeps.", "bad": "She sleep."}, {"good": "We go.", "bad": "We goes."}],
    )
    loaded = load_decisions(task, "train")
    assert loaded.formulation == "candidates"
    assert loaded.decisions[1].inputs == ("We go.", "We goes.")


METRIC = """process_results: !function scores.{metric}
metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]
"""
SCORES = """
def over_documents(doc, results):
    return {"over_documents": (doc["label"], results[0][0])}

def reverse(doc, results):
    return {"reverse": float(not results[doc["label"]][1])}
"""


@pytest.mark.parametrize("metric, golds", [("over_documents", [{1}, {0}]), ("reverse", [{0}, {1}])])
def test_own_metric_decides_only_where_it_is_a_number_per_document(
    made_task, tmp_path, metric, golds
):
    """What is put together from several documents says nothing of one: its target does."""
    (tmp_path / "scores.py").write_text(SCORES)
    rows = [{"text": "one", "label": 1}, {"text": "two", "label": 0}]
    task = made_task(LABELLED + METRIC.format(metric=metric), rows)
    assert [set(d.gold) for d in load_decisions(task, "train").decisions] == golds


LABELLED = 'doc_to_text: "{{text}}"\ndoc_to_target: label\ndoc_to_choice: ["no", "yes"]\n'


def test_task_that_demands_shots_is_refused(made_task):
    task = made_task(LABELLED + "num_fewshot: 3\n", [{"text": "one", "label": 1}])
    with pytest.raises(DHRDError, match="demands 3 few-shot examples"):
        load_decisions(task, "train")


def test_generating_task_is_refused(made_task):
    yaml = 'doc_to_text: "{{text}}"\ndoc_to_target: "{{label}}"\noutput_type: generate_until\n'
    task = made_task(yaml, [{"text": "one", "label": 1}])
    with pytest.raises(DHRDError, match="'made' is a generate_until task"):
        load_decisions(task, "train")


def test_prompt_hash_follows_the_template_and_the_version_the_metadata(made_task):
    rows = [{"text": "one", "label": 1}]
    plain = made_task(LABELLED, rows)
    again = made_task(LABELLED + "metadata: {version: 3}\n", rows)
    other = made_task(LABELLED.replace("{{text}}", "Text: {{text}}"), rows)
    assert template_sha(plain) == template_sha(again) != template_sha(other)
    assert task_version(again) == "3"


def test_formulation_needs_the_same_choices_in_every_row():
    same = [[("a", " x"), ("a", " y")], [("b", " x"), ("b", " y")]]
    assert infer_formulation(same) == ("labels", ("x", "y"))
    assert infer_formulation([*same, [("c", " x"), ("c", " z")]]) == ("candidates", None)
    assert infer_formulation([*same, [("c", " x")]]) == ("candidates", None)


@needs_shared_data
@pytest.mark.parametrize("name", REAL_ROWS)
def test_real_rows(name, monkeypatch):
    monkeypatch.chdir(SHARED_DATA)
    split, rows = REAL_ROWS[name]
    task = load_task(name)
    loaded = load_decisions(task, split)
    assert len({decision.id for decision in loaded.decisions}) == rows
    golds = [sorted(decision.gold) for decision in loaded.decisions]
    if name in LABELS:
        assert (loaded.formulation, loaded.choices) == ("labels", LABELS[name][0])
        assert golds == [[doc["label"]] for doc in split_docs(task, split)]
    else:
        assert (loaded.formulation, loaded.choices) == ("candidates", None)
        assert {len(gold) for gold in golds} == ({1} if name == "copa" else {1, 2, 3})
