"""`dhrd-report diff`: which documents two models disagree on, and what that comes to."""

from __future__ import annotations

import doctest
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from result_files import (
    labels_task,
    sample,
    student,
    task_result,
    with_choices,
    with_text,
    write_results,
)
from scipy.stats import binomtest

from dhrd_plugin.decisions import build_decision
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report import visible
from dhrd_plugin.report.diff import documents
from dhrd_plugin.report.diff.comparison import Tally, TaskComparison, compare, load_model
from dhrd_plugin.report.diff.view import View, make_view

POOLED, DHRD = (student(setting, 0) for setting in ("pooled (α=0)", "DHRD (α=1 β=1)"))
CHOICES = ("True", "False", "Neither")
GOLDS = [0, 0, 1, 1, 2, 2, 2]
#             fixed              broken           both right       both wrong: twice the same
A = [[0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]]
A += [[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.9, 0.1, 0.0]]
B = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.1, 0.9, 0.0]]
B += [[0.3, 0.4, 0.3], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]]
A, B = ([[max(p, 1e-9) for p in row] for row in rows] for rows in (A, B))


def sides(folder: Path, a: Mapping[str, dict], b: Mapping[str, dict]) -> list:
    write_results(folder / "a", a, config=POOLED)
    write_results(folder / "b", b, config=DHRD)
    return [load_model(str(folder / side)) for side in "ab"]


def compared(folder: Path, a: dict, b: dict) -> TaskComparison:
    """Of one task, `cb`."""
    (found,) = compare(*sides(folder, {"cb": a}, {"cb": b}))
    return found


def cot_task(golds: Sequence[int], texts: Sequence[str], right: Sequence[int]) -> dict:
    """Decoded answers to the documents of `labels_task`."""
    lines = [
        with_text(
            sample(i, {"idx": i, "text": f"Text {i}?"}, gold, {"exact_match": float(r)}, "answer"),
            f"Think step by step. Text {i}?",
            f"Because.\nFinal Answer: {text}",
            text,
        )
        for i, (gold, text, r) in enumerate(zip(golds, texts, right, strict=True))
    ]
    return task_result(lines, {"exact_match,answer": sum(right) / len(right)})


def test_kinds_and_order(tmp_path):
    """B right and A wrong first, the surer wrong model earlier; the same mistake is no
    disagreement."""
    found = compared(tmp_path, labels_task(A, GOLDS), labels_task(B, GOLDS))
    shown = [(document.kind, document.doc_id) for document in found.disagreements]
    assert shown == [
        ("fixed", 1),
        ("fixed", 0),
        ("broken", 2),
        ("both-wrong", 6),
        ("both-wrong", 4),
    ]
    assert [d.confidence for d in found.disagreements] == pytest.approx([0.9, 0.7, 0.7, 0.9, 0.5])


def test_counts_and_their_test(tmp_path):
    found = compared(tmp_path, labels_task(A, GOLDS), labels_task(B, GOLDS))
    tally = found.tally
    assert tally == Tally(both_right=1, fixed=2, broken=1, both_wrong=3)
    assert tally.n == len(GOLDS)
    assert (tally.a_right, tally.b_right) == (2, 3)
    assert found.p_value == pytest.approx(binomtest(2, 3).pvalue)
    assert found.softmaxed == ()


def test_counts_by_right_answer(tmp_path):
    found = compared(tmp_path, labels_task(A, GOLDS), labels_task(B, GOLDS))
    true, false, neither = found.classes
    assert [group.label for group in found.classes] == list(CHOICES)
    assert (true.tally.n, true.tally.fixed, true.tally.b_right) == (2, 2, 2)
    assert (false.tally.broken, false.tally.both_right) == (1, 1)
    assert (neither.a_said, neither.b_said) == ({"True": 3}, {"True": 1, "False": 2})


def test_candidates_have_no_classes(tmp_path):
    lines = [
        with_choices(
            sample(i, {"idx": i}, 0, {"acc": 1.0}), [("Q", f" a{i}"), ("Q", f" b{i}")], [-1.0, -2.0]
        )
        for i in range(3)
    ]
    made = task_result(lines, {"acc,none": 1.0})
    assert compared(tmp_path, made, made).classes == []


def test_several_tasks_are_corrected_together(tmp_path):
    one = {"cb": labels_task(A, GOLDS), "rte": labels_task(B, GOLDS)}
    other = {"cb": labels_task(B, GOLDS), "rte": labels_task(A, GOLDS)}
    for task in compare(*sides(tmp_path, one, other)):
        assert task.p_value == task.p_adjusted == 1.0  # 2 of 3 changes
    right, wrong = [[0.9, 0.05, 0.05]] * 8, [[0.05, 0.9, 0.05]] * 8
    one["cb"], other["cb"] = labels_task(wrong, [0] * 8), labels_task(right, [0] * 8)
    first, second = compare(*sides(tmp_path / "new", one, other))
    assert (first.p_value, first.p_adjusted) == pytest.approx((2 / 2**8, 4 / 2**8))
    assert (
        compare(*sides(tmp_path / "one", one, other), ["rte"])[0].column == second.column == "rte"
    )


def test_documents_of_one_question_are_not_counted_as_independent(tmp_path):
    """Eight answers changed, all to one question: that is one change."""
    probs = {"a": [0.1, 0.9], "b": [0.9, 0.1]}
    made = {}
    for side, row in probs.items():
        rows = [row] * 8 + [[0.9, 0.1]] * 8
        made[side] = labels_task(rows, [0] * 16, ("no", "yes"))
        for i, line in enumerate(made[side]["samples"]):
            line["doc"]["idx"] = {"paragraph": 0, "question": i // 8, "answer": i}
    found = compared(tmp_path, made["a"], made["b"])
    assert (found.tally.fixed, found.clustered) == (8, True)
    assert found.p_value is not None and found.p_value > 0.05 > binomtest(8, 8).pvalue


def test_a_pooled_head_and_decoding_answer_the_same_question(tmp_path):
    texts = ["**true**.", "False", "(A)", "B) False", "maybe", "Neither", "[invalid]"]
    right = [1, 0, 0, 1, 0, 1, 0]
    pooled, decoded = sides(
        tmp_path, {"cb": labels_task(A, GOLDS)}, {"cb_cot": cot_task(GOLDS, texts, right)}
    )
    assert decoded.name == "DHRD (α=1 β=1) · smollm2 (CoT)"
    (found,) = compare(pooled, decoded)
    assert (found.name, found.slug) == ("cb vs cb (CoT)", "cb-vs-cb-CoT")
    assert [document.b.said for document in found.documents] == [0, 1, 0, 1, None, 2, None]
    assert [d.kind for d in found.documents][:3] == ["fixed", "both-wrong", "broken"]
    document = found.documents[0]
    assert (document.question, document.gold_text) == ("Text 0?", "True")  # the pooled head's
    assert document.b.reasoning == "Because.\nFinal Answer: **true**."
    assert found.classes[2].b_said == {"Neither": 1, "none of them": 2}


def test_an_answer_that_fits_several_choices_names_none(tmp_path):
    made = labels_task([[0.6, 0.4]], [0], ("It rains.", "it rains"))
    models = sides(tmp_path, {"cb": made}, {"cb_cot": cot_task([0], ["It rains"], [0])})
    assert compare(*models)[0].documents[0].b.said is None


def test_two_ways_of_decoding(tmp_path):
    golds = ["True", "False", "True"]
    a = {"cb_cot": cot_task(golds, ["True", "Neither", "no idea"], [1, 0, 0])}
    b = {"cb_cot": cot_task(golds, ["False", "neither.", "False"], [0, 0, 0])}
    (found,) = compare(*sides(tmp_path, a, b))
    assert [(d.kind, d.doc_id) for d in found.disagreements] == [("broken", 0), ("both-wrong", 2)]
    assert found.disagreements[0].gold_text == "True"
    assert [(group.label, group.tally.n) for group in found.classes] == [("True", 2), ("False", 1)]


def test_what_both_did_in_one_way_is_compared_in_that_way(tmp_path):
    cot = cot_task(GOLDS, ["True"] * 7, [1, 1, 0, 0, 0, 0, 0])
    both = {"cb": labels_task(A, GOLDS), "cb_cot": cot}
    names = [task.name for task in compare(*sides(tmp_path / "1", both, both))]
    assert names == ["cb", "cb (CoT)"]
    names = [task.name for task in compare(*sides(tmp_path / "2", both, {"cb_cot": cot}))]
    assert names == ["cb (CoT)"]


def test_texts_without_choices_are_shown_with_the_shorter_prompt(tmp_path):
    """Few-shot examples in A's prompt are not the question."""
    a = labels_task(A, GOLDS, question="Example. Answer. Text {}?")
    for line, plain in zip(a["samples"], labels_task(A, GOLDS)["samples"], strict=True):
        line["doc"], line["doc_hash"] = plain["doc"], plain["doc_hash"]
    assert compared(tmp_path, a, labels_task(B, GOLDS)).documents[3].question == "Text 3?"


def test_of_very_many_choices_the_telling_ones_are_shown(tmp_path):
    choices = [f"c{i}" for i in range(40)]
    row = [0.001] * 40
    row[7], row[20] = 0.2, 0.4
    made = [labels_task([[*row[:i], p, *row[i + 1 :]]], [39], choices) for i, p in ((1, 9), (2, 9))]
    notable = compared(tmp_path, *made).documents[0].notable
    assert len(notable) == documents.MAX_SHOWN
    assert {1, 2, 7, 20, 39} <= set(notable) and notable == sorted(notable)


def test_a_folder_of_several_models_is_an_error_that_names_them(tmp_path):
    for folder, config in (("a", POOLED), ("b", DHRD)):
        write_results(tmp_path / folder, {"cb": labels_task(A, GOLDS)}, config=config)
    with pytest.raises(DHRDError, match="holds 2 results") as error:
        load_model(str(tmp_path))
    for side, name in (("a", "pooled (α=0)"), ("b", "DHRD (α=1 β=1)")):
        assert f"{tmp_path / side}/results_" in str(error.value) and name in str(error.value)
    assert load_model(f"mine\x1b={tmp_path / 'a'}").name == "mine␛"
    write_results(tmp_path / "c", {"rte": labels_task(A, GOLDS)}, config=DHRD)
    write_results(tmp_path / "c", {"cb": labels_task(A, GOLDS)}, config=POOLED, date=1)
    with pytest.raises(DHRDError, match="holds 2 results"):  # though of different tasks
        load_model(str(tmp_path / "c"))


def test_tasks_and_seeds_of_one_model_may_lie_in_several_files(tmp_path):
    write_results(tmp_path, {"cb": labels_task(A, GOLDS)}, config=POOLED, date=1)
    write_results(tmp_path, {"rte": labels_task(A, GOLDS)}, config=POOLED, date=2)
    newest = write_results(tmp_path, {"rte": labels_task(B, GOLDS)}, config=POOLED, date=3)
    scores = {score.task: path for score, path in load_model(str(tmp_path)).scores}
    assert scores.keys() == {"cb", "rte"} and scores["rte"] == newest
    write_results(
        tmp_path,
        {"rte": labels_task(A, GOLDS) | {"config": {"num_fewshot": 2}}},
        config=POOLED,
        date=4,
    )
    with pytest.raises(DHRDError, match="rte, 2 shots"):
        load_model(str(tmp_path))


def test_models_that_cannot_be_compared(tmp_path):
    a, b = sides(tmp_path / "1", {"cb": labels_task(A, GOLDS)}, {"rte": labels_task(B, GOLDS)})
    with pytest.raises(DHRDError, match=r"No task is in both(.|\n)*has: cb\n(.|\n)*has: rte"):
        compare(a, b)
    with pytest.raises(DHRDError, match="--task: rte is not in both"):
        compare(a, a, ["cb", "rte"])
    other = {"cb": labels_task(B, GOLDS, ("yes", "no", "maybe"))}
    a, b = sides(tmp_path / "2", {"cb": labels_task(A, GOLDS)}, other)
    with pytest.raises(DHRDError, match=r"document 0 offers \['yes', 'no', 'maybe'\]"):
        compare(a, b)
    other = {"cb": labels_task(B, GOLDS, question="Other {}?")}
    a, b = sides(tmp_path / "3", {"cb": labels_task(A, GOLDS)}, other)
    with pytest.raises(DHRDError, match="document 0 is not document 0"):
        compare(a, b)


def input_sha(question: str, choices: Sequence[str] = CHOICES, formulation="labels") -> str:
    pairs = [(question, f" {choice}") for choice in choices]
    return build_decision(pairs, formulation, task="cb", split="validation", index=0).input_sha


def with_rationales(folder: Path, lines: Sequence[dict]) -> View:
    file = folder / "r.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    models = sides(folder, {"cb": labels_task(A, GOLDS)}, {"cb": labels_task(B, GOLDS)})
    return make_view(*models, rationales=[file])


def bare(index: int, rationale: str = "since so", **more) -> dict:
    return {"task": "cb", "split": "validation", "index": index, "rationale": rationale, **more}


def test_only_rationales_for_this_very_question_and_answer_are_shown(tmp_path):
    view = with_rationales(
        tmp_path,
        [
            bare(0, "first"),
            bare(0, " of this text\x1b ", label=0, input_sha=input_sha("Text 0?"), origin="hinted")
            | {"schema": "dhrd.rationale/1", "teacher": {"adapter": "openai", "model": "big"}},
            bare(1, "of another text", input_sha=input_sha("Text 8?")),
            bare(2, "for another answer", label=0, input_sha=input_sha("Text 2?")),
            bare(4, "of a row"),
            bare(6, "of training", split="train"),
            bare(6, "of another task", task="rte"),
        ],
    )
    (section,) = view.sections
    assert {i: (r.text, r.source) for i, r in section.rationales.items()} == {
        0: ("of this text␛", "big, hinted"),
        4: ("of a row", ""),
    }
    notes = "\n".join(view.notes)
    assert section.stale == 2 and "2 rationales are not shown" in notes
    assert "known for 2 of 5 documents" in notes
    assert "which row they are of, not which version" in notes


def test_a_rationale_for_candidates_fits_a_single_document(tmp_path):
    """Under --limit 1 candidates look like labels."""
    shas = [input_sha("Text 0?", formulation=kind) for kind in ("labels", "candidates")]
    assert shas[0] != shas[1]
    for i, sha in enumerate(shas):
        folder = tmp_path / str(i)
        folder.mkdir()
        assert with_rationales(folder, [bare(0, input_sha=sha)]).sections[0].rationales


def test_rationales_of_another_split_are_explained(tmp_path):
    view = with_rationales(tmp_path, [bare(0, split="train"), bare(1, task="rte")])
    assert not view.sections[0].rationales
    assert any("are of cb/validation, and the files have cb/train." in note for note in view.notes)


def test_the_split_is_the_one_the_harness_scores(tmp_path):
    made = [labels_task(probs, GOLDS) for probs in (A, B)]
    for task in made:
        task["config"] |= {"validation_split": "dev", "test_split": "test"}
    assert compared(tmp_path, *made).split == "test"


@pytest.mark.parametrize(
    "line, says",
    [
        ('{"task": "cb", "split', r"r.jsonl:2: not valid JSON"),
        ("[1]", r"r.jsonl:2: field 'task' is None, need str"),
        (json.dumps(bare(0) | {"index": "0"}), r"r.jsonl:2: field 'index' is '0', need int"),
        (json.dumps(bare(0) | {"schema": "dhrd.rejected/1"}), r"r.jsonl:2: schema 'dhrd.rejected"),
    ],
)
def test_faulty_lines_of_rationales_are_named(tmp_path, line, says):
    models = sides(tmp_path, {"cb": labels_task(A, GOLDS)}, {"cb": labels_task(B, GOLDS)})
    file = tmp_path / "r.jsonl"
    file.write_text(f"{json.dumps(bare(0))}\n{line}\n")
    with pytest.raises(DHRDError, match=says):
        make_view(*models, rationales=[file])


def test_a_missing_file_of_rationales_is_named(tmp_path):
    models = sides(tmp_path, {"cb": labels_task(A, GOLDS)}, {"cb": labels_task(B, GOLDS)})
    with pytest.raises(DHRDError, match=r"absent.jsonl: cannot be read \(No such file"):
        make_view(*models, rationales=[tmp_path / "absent.jsonl"])


def test_kinds_and_limit_choose_what_is_shown(tmp_path):
    models = sides(tmp_path, {"cb": labels_task(A, GOLDS)}, {"cb": labels_task(B, GOLDS)})
    (section,) = make_view(*models, kinds=["broken", "fixed"], limit=1).sections
    assert [(d.kind, d.doc_id) for d in section.documents] == [("broken", 2), ("fixed", 1)]
    assert section.left_out == 3


def test_examples_in_docstrings_are_true():
    result = doctest.testmod(visible)
    assert result.attempted and not result.failed
