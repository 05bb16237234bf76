"""Which runs are folded or compared, and which may not be."""

from __future__ import annotations

import pytest
from result_files import DHRD, HF, POOLED, accuracy_task, rows, student, write_arm, write_results

from dhrd_plugin.errors import DHRDError


def test_documents_that_differ_are_an_error_that_names_the_first(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=HF)
    other = accuracy_task([1, 0, 1])
    other["samples"][1]["doc_hash"] = "changed"
    write_results(tmp_path / "b", {"copa": other}, config={"model": "dummy"})
    for baseline in ("hf tiny", None):  # side by side in a table, they are compared by its reader
        with pytest.raises(DHRDError, match=r"samples_copa.*document 1 is not document 1"):
            rows(tmp_path, baseline=baseline)


@pytest.mark.parametrize("changed", ["seed of the row", "seed of the baseline", "later row"])
def test_every_run_that_is_folded_or_compared_must_have_the_same_documents(tmp_path, changed):
    other = accuracy_task([1, 0, 1])
    other["samples"][2]["doc_hash"] = "changed"
    runs = {
        "row": student(DHRD, 0),
        "seed of the row": student(DHRD, 1),
        "baseline": student(POOLED, 0),
        "seed of the baseline": student(POOLED, 1),
        "later row": HF,
    }
    for name, config in runs.items():
        task = other if name == changed else accuracy_task([1, 0, 1])
        write_results(tmp_path / name, {"copa": task}, config=config)
    with pytest.raises(DHRDError, match=r"document 2 is not document 2"):
        rows(tmp_path, baseline="pooled")


def test_a_changed_gold_answer_is_another_document(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=HF)
    other = accuracy_task([1, 0, 1])
    other["samples"][2]["target"] = "1"
    write_results(tmp_path / "b", {"copa": other}, config={"model": "dummy"})
    with pytest.raises(DHRDError, match="document 2"):
        rows(tmp_path, baseline="hf tiny")


def test_fewer_documents_are_no_silent_intersection(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=HF)
    partial = {"copa": accuracy_task([1, 0])}
    write_results(tmp_path / "b", partial, config={"model": "dummy"}, n_total=3)
    with pytest.raises(DHRDError, match=r"3 documents, but .* has 2"):
        rows(tmp_path, baseline="hf tiny")
    summary, by_name = rows(tmp_path)
    assert (summary.columns[0].n, by_name["dummy"].cells["copa"].n) == (3, 2)


def test_different_models_are_not_folded_as_seeds(tmp_path):
    task = {"copa": accuracy_task([1, 0])}
    for parent in "ab":
        args = {"pretrained": f"{parent}/final"}
        write_results(tmp_path / parent, task, config={"model": "hf", "model_args": args})
    with pytest.raises(DHRDError, match="share the row 'hf final'"):
        rows(tmp_path)
    _, by_name = rows(f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")
    assert list(by_name) == ["a", "b"]
    _, by_name = rows(f"both={tmp_path}")
    assert by_name["both"].cells["copa"].scores["acc"].runs == 2


def test_two_students_of_one_seed_are_not_folded(tmp_path):
    for learning_rate in ("1e-3", "2e-4"):
        config = student(DHRD, 0)
        config["dhrd"]["fingerprint"] = learning_rate
        write_results(tmp_path / learning_rate, {"copa": accuracy_task([1])}, config=config)
    with pytest.raises(DHRDError, match="NAME=PATH"):
        rows(tmp_path)


@pytest.mark.parametrize("differs, folded", [("dev", True), ("lr", False)])
def test_seeds_of_one_recipe_are_folded_and_other_recipes_are_not(tmp_path, differs, folded):
    for seed in (0, 1):
        config = student(DHRD, seed)
        config["dhrd"]["training"] = {"lr": 1e-3, "seed": seed, "dev": None} | {differs: seed}
        write_results(tmp_path / str(seed), {"copa": accuracy_task([1, 0])}, config=config)
    if folded:
        _, by_name = rows(tmp_path)
        (row,) = by_name.values()
        assert row.cells["copa"].scores["acc"].runs == 2
    else:
        with pytest.raises(DHRDError, match="Two different models would share"):
            rows(tmp_path)


@pytest.mark.parametrize("asked, says", [("nothing", "is no row"), ("smollm2", "fits 2 rows")])
def test_an_unknown_or_ambiguous_baseline_lists_the_rows(tmp_path, asked, says):
    write_arm(tmp_path, DHRD, 0.8, [0])
    write_arm(tmp_path, POOLED, 0.7, [0])
    with pytest.raises(DHRDError, match=says) as error:
        rows(tmp_path, baseline=asked)
    assert DHRD in str(error.value) and POOLED in str(error.value)


def test_prompts_with_and_without_examples_are_no_seeds_even_under_one_name(tmp_path):
    for shots in (0, 5):
        made = accuracy_task([1, 0])
        made["config"]["num_fewshot"] = shots
        write_results(tmp_path / str(shots), {"copa": made}, config=HF)
    for argument in (tmp_path, f"name={tmp_path}"):
        with pytest.raises(DHRDError, match="with 5 examples in the prompt would share"):
            rows(argument)
