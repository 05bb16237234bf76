"""Planted faults are found on their lines, and nothing else is; LAS against numbers by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from made_decisions import candidate_decision, label_decision, one_split
from scipy import stats as distributions

from dhrd_plugin.errors import DHRDError
from teachers.audit.figures import Rejected, figures
from teachers.audit.file import audit_file, dropped_lines
from teachers.audit.lines import KINDS
from teachers.audit.simulatability import leakage_adjusted_simulatability
from teachers.audit.wording import guessed_share
from teachers.budget import Usage
from teachers.checks import END_OF_REASONING
from teachers.records import make_record

SPLIT = one_split([label_decision(i, gold=i % 3) for i in range(40)])


def rationale(i: int) -> str:
    return f"Cloud{i} hangs{i} over{i} roof{i}. Drop{i} hits{i} pane{i}."


def record(i: int, **changes) -> dict:
    decision = SPLIT.decisions[i]
    made = make_record(
        decision,
        rationale=rationale(i),
        origin="hinted",
        attempts=1 + i % 2,
        checks={"answer": decision.label_text},
        teacher={},
        usage=Usage(10, 5, 0.5),
    )
    return made | changes


def judged(i: int, **gold_probs: float) -> dict:
    """A record whose judge gives these probabilities to the gold choice, by view."""
    views = {}
    for view, gold in gold_probs.items():
        probs = [(1 - gold) / 2] * 3
        probs[i % 3] = gold
        views[view] = {"probs": probs, "method": "scored"}
    return record(i, judge={"views": views, "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


def find_split(task, split):
    if (task, split) != ("made", "train"):
        raise DHRDError(f"Unknown task {task}/{split}")
    return SPLIT


def audit(lines):
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    return audit_file(raw, find_split, default_split="train")


def clean(n: int = 12) -> list[dict]:
    return [record(i) for i in range(n)]


def kinds(audit) -> list[tuple[int, str]]:
    return [(finding.line, finding.kind) for finding in audit.findings]


def test_clean_records_and_bare_lines_have_no_findings():
    bare = [{"task": "made", "index": i, "rationale": rationale(i)} for i in range(12, 20)]
    found = audit([*clean(), b"\n", *bare])
    assert found.findings == []
    assert found.lines == len(found.rows) == 20
    assert [row.origin for row in found.rows] == ["hinted"] * 12 + ["human"] * 8
    assert [row.has_input_sha for row in found.rows] == [True] * 12 + [False] * 8


@pytest.mark.parametrize(
    ("changes", "kind", "detail"),
    [
        ({"index": 400}, "row", "made/train/400, but made/train has 40 rows"),
        ({"index": -1}, "row", "40 rows"),
        ({"index": 5}, "row", "id 'made/train/4', but task, split and index say 'made/train/5'"),
        ({"task": "mad"}, "row", "Unknown task mad"),
        ({"split": "dev"}, "row", "Unknown task made/dev"),
        ({"input_sha": "0123456789abcdef"}, "changed", "0123456789abcdef"),
        ({"label": 0}, "label", "0, gold is 'False' (1)"),
        ({"label": True}, "label", "True, gold"),
        ({"label": [1]}, "label", "[1], gold"),
        ({"label_text": "True"}, "label", "'True', gold is 'False'"),
        ({"checks": {"answer": "True"}}, "answer", "answers 'True', gold is 'False'"),
        ({"checks": {"answer": 7}}, "answer", "answers 7"),
        ({"label_probs": [0.5, 0.4, 0.3]}, "probs", "together 1"),
        ({"label_probs": [0.5, 0.5]}, "probs", "each of the 3 choices"),
        ({"rationale": "  "}, "empty", "no text"),
        ({"rationale": f"{rationale(4)} {END_OF_REASONING}"}, "form", END_OF_REASONING),
        ({"rationale": f"{rationale(4)}\nAnswer: False"}, "form", "Answer: …"),
        ({"rationale": f"It is incorrect, cloud. {rationale(4)}"}, "leak", "contains incorrect"),
        ({"rationale": f"That contradicts it. {rationale(4)}"}, "leak", "contradicts"),
        ({"rationale": "Only one sentence."}, "length", "1 complete sentences"),
        ({"rationale": rationale(2)}, "duplicate", "line 3 (made/train/2)"),
        ({"rationale": None}, "field", "'rationale' is None, need str"),
        ({"index": "4"}, "field", "'index' is '4', need int"),
        ({"schema": "dhrd.rejected/1"}, "field", "schema 'dhrd.rejected/1'"),
        ({"origin": "dreamt"}, "field", "origin 'dreamt', need one of hinted"),
        ({"attempts": 0}, "field", "attempts 0"),
        ({"attempts": True}, "field", "attempts True"),
        ({"usage": {"cost": "free"}}, "field", "usage.cost is 'free'"),
        ({"usage": {"cost": float("nan")}}, "field", "usage.cost is nan"),
        ({"usage": {"prompt_tokens": None}}, "field", "usage.prompt_tokens is None"),
        ({"usage": {"completion_tokens": -1}}, "field", "usage.completion_tokens is -1"),
        ({"usage": {"estimated": "no"}}, "field", "usage.estimated is 'no'"),
        ({"checks": []}, "field", "checks is []"),
        (
            {"judge": {"views": {"both": {"probs": [2, 0, 0]}}}},
            "probs",
            "judge's both is [2, 0, 0]",
        ),
    ],
)
def test_planted_fault_is_found_on_its_line_alone(changes, kind, detail):
    lines = clean()
    lines[4] |= changes
    found = audit(lines)
    assert kinds(found) == [(5, kind)]
    assert detail in found.findings[0].detail
    assert len(found.rows) == 12 - KINDS[kind].unusable
    assert bool(found.errors) == KINDS[kind].error


def test_wrong_answer_line_left_in_the_text_contradicts_gold():
    lines = clean()
    lines[4]["rationale"] += " Answer: Neither"
    assert kinds(audit(lines)) == [(5, "answer"), (5, "form")]


@pytest.mark.parametrize(
    "torn",
    [
        b'{"task": "made", "ind',
        b"[1, 2]\n",
        b'{"task": "\\ud83d"}\n',
        b"\xff\xfe{}\n",
        b"[" * 10**5,
        b'{"index": ' + b"9" * 5000 + b"}",
    ],
)
def test_torn_line_is_named_and_the_rest_is_read(torn):
    found = audit([*clean(3), torn])
    assert kinds(found) == [(4, "json")]
    assert len(found.rows) == 3


def test_of_two_lines_for_a_row_the_last_usable_one_counts():
    found = audit([*clean(3), record(1, rationale=rationale(30)), record(1, label=0)])
    assert kinds(found) == [(2, "repeated"), (5, "label")]
    assert "made/train/1 has another rationale on line 4" in found.findings[0].detail
    assert [row.line for row in found.rows] == [1, 3, 4]


def test_template_copies_are_warnings():
    lines = [record(i) for i in range(40)]
    for i in range(0, 40, 5):
        quoted = f"Scene {i}. Question: It rains"
        lines[i]["rationale"] = f"The premise says {quoted}, so drop{i} follows. Yonder."
    found = audit(lines)
    assert kinds(found) == [(i + 1, "copy") for i in range(0, 40, 5)]
    assert found.errors == []
    assert found.templates == [("the premise says … so …", 8)]


def test_answer_lines_are_told_from_quotations_of_the_question():
    lines = clean(2)
    lines[0]["rationale"] = "It asks 'Answer:', and here9 it10 is11. Fine12 by13 me14."
    lines[1]["rationale"] += " Answer: False"
    assert kinds(audit(lines)) == [(2, "form")]


def test_names_of_candidates_are_leaks_and_their_words_are_not():
    split = one_split([candidate_decision(i) for i in range(3)])
    texts = ["The sun was rising. So it is.", "It must be option (B). So it is now.", "A. B."]
    lines = [
        json.dumps({"task": "made_copa", "index": i, "rationale": text}).encode()
        for i, text in enumerate(texts)
    ]
    found = audit_file(lines, lambda *_: split, default_split="train")
    assert kinds(found) == [(2, "leak")]


def test_any_gold_choice_may_be_the_label():
    both = replace(SPLIT.decisions[0], gold=frozenset({0, 2}))
    split = replace(SPLIT, decisions=[both])
    for label, right in ((0, True), (2, True), (1, False)):
        line = record(0, label=label, label_text=both.choices[label])
        found = audit_file([json.dumps(line).encode()], lambda *_: split, default_split="train")
        assert (found.findings == []) == right


def test_filter_drops_unusable_lines_and_more_by_choice():
    lines = [
        judged(0, both=0.9, rationale=0.2),
        judged(1, both=0.4, rationale=0.2),
        judged(2, both=0.9, rationale=0.8),
        record(3),
        record(4, label=0),
        judged(5, both=0.9, rationale=0.1) | {"rationale": f"It is not true. {rationale(5)}"},
        judged(6, both=0.9, rationale=0.1) | {"rationale": rationale(0)},
        b"{",
    ]
    found = audit(lines)
    assert sorted(dropped_lines(found)) == [5, 8]
    assert sorted(dropped_lines(found, min_sufficiency=0.5)) == [2, 4, 5, 8]
    assert sorted(dropped_lines(found, drop_leaking=True)) == [3, 5, 6, 8]
    assert sorted(dropped_lines(found, drop_copies=True)) == [5, 7, 8]
    reasons = dropped_lines(found, min_sufficiency=0.5, drop_leaking=True, drop_copies=True)
    assert reasons == {
        2: "sufficiency below 0.5",
        3: "the judge finds the answer from the rationale alone",
        4: "not verified",
        5: KINDS["label"].title,
        6: KINDS["leak"].title,
        7: KINDS["duplicate"].title,
        8: KINDS["json"].title,
    }


def test_min_sufficiency_needs_a_verified_file():
    with pytest.raises(DHRDError, match="--verify"):
        dropped_lines(audit(clean()), min_sufficiency=0.5)


def test_las_by_hand():
    # Leaking rows gain 0, 1, 0, 1 (mean 0.5); the others 1, -1, 0, 1, 0 (mean 0.2).
    rows = [
        *[(1, 1, 1), (0, 1, 1), (0, 1, 0), (0, 1, 1)],
        *[(0, 0, 1), (1, 0, 0), (1, 0, 1), (0, 0, 1), (0, 0, 0)],
    ]
    las = leakage_adjusted_simulatability(*zip(*rows, strict=True))
    assert (las.leaking.rows, las.leaking.gain) == (4, 0.5)
    assert (las.other.rows, las.other.gain) == (5, pytest.approx(0.2))
    assert las.value == pytest.approx(0.35)
    # Half the sum of two means: half the difference of one and the negative of the other.
    test = distributions.ttest_ind([0, 1, 0, 1], [-1, 1, 0, -1, 0], equal_var=False)
    low, high = test.confidence_interval()
    assert (las.low, las.high) == pytest.approx((low / 2, high / 2))


def test_las_without_leaking_rows_is_undefined():
    las = leakage_adjusted_simulatability([0, 1, 0], [0, 0, 0], [1, 1, 1])
    assert (las.value, las.low, las.high) == (None, None, None)
    assert (las.leaking.rows, las.leaking.gain) == (0, None)
    assert las.other.gain == pytest.approx(2 / 3)


@pytest.mark.parametrize("rows", [[(0, 1, 1), (0, 0, 1), (1, 0, 1)], [(0, 1, 1), (0, 0, 1)] * 2])
def test_las_of_rows_that_show_no_spread_has_no_interval(rows):
    las = leakage_adjusted_simulatability(*zip(*rows, strict=True))
    assert las.value is not None
    assert (las.low, las.high) == (None, None)


def test_figures_of_a_split():
    lines = [judged(i, input=0.2, rationale=0.8 * (i % 2), both=0.9) for i in range(6)]
    lines += [judged(6, both=0.1), *(record(i) for i in range(7, 12))]
    lines[1]["rationale"] = "It is true that one two three. So it goes."
    rejected = {"made/train": Rejected(usage=Usage(1, 1, 0.25)), "": Rejected()}
    rejected["made/train"].reasons.update({"leak": 3})
    rejected[""].reasons.update({"torn line": 1})
    (split,), total = figures(audit(lines), [SPLIT], rejected)
    assert (split.name, split.rows, split.in_split, split.leaking) == ("made/train", 12, 40, 1)
    assert [(label.name, label.rows, label.in_split) for label in split.labels] == [
        ("True", 4, 14),
        ("False", 4, 13),
        ("Neither", 4, 13),
    ]
    assert [label.leaking for label in split.labels] == [0, 1, 0]
    assert (split.words[0], split.words[3], split.words[-1]) == (7, 7, 10)
    assert split.word_counts == {7: 11, 10: 1}
    assert (split.sentences, split.attempts) == ({2: 12}, {1: 6, 2: 6})
    assert split.origins == {"hinted": 12}
    assert (split.usage, split.judge_usage.tokens) == (Usage(120, 60, 6.0), 70)
    assert (split.rejected, total.rejected) == ({"leak": 3}, {"leak": 3, "torn line": 1})
    assert split.rejected_usage.cost == 0.25
    verified = split.verified
    assert (verified.rows, verified.sufficient, verified.leaking) == (6, 1.0, 0.5)
    assert verified.sufficiency == pytest.approx(0.9)
    assert verified.leakage == pytest.approx(0.4)
    assert (verified.baseline, verified.baseline_right) == (pytest.approx(0.2), 0.0)
    assert verified.gold_probs["both"] == [0] * 9 + [6]
    assert verified.gold_probs["rationale"] == [3, 0, 0, 0, 0, 0, 0, 0, 3, 0]
    assert (verified.las.value, verified.las.leaking.rows) == (1.0, 3)


def test_wording_that_gives_the_answer_away_is_guessed():
    labels = [0] * 30 + [1] * 30
    telling = [f"{rationale(i)} {('So they match', 'They match so')[i // 30]}." for i in range(60)]
    assert guessed_share(telling, labels) > 0.8
    assert guessed_share([rationale(i) for i in range(60)], labels) < 0.7
    assert guessed_share(telling[11:], labels[11:]) is None
    assert guessed_share(telling, [0] * 60) is None
