"""The second pass: soft labels and verification, resumed and merged without paying twice."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from made_decisions import (
    GOOD,
    ScriptedTeacher,
    candidate_decision,
    label_decision,
    prediction,
    reply,
)

from dhrd_plugin.errors import DHRDError
from teachers.annotate import annotate, count_questions, views_for
from teachers.base import Prediction
from teachers.budget import Usage
from teachers.generate import teach
from teachers.output import merging
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

ROWS = [label_decision(i) for i in range(3)]
PROMPTS = load_prompts()
ANSWERS = {"input": (0.5, 0.25, 0.25), "rationale": (0.25, 0.75, 0.0), "both": (0.75, 0.25, 0.0)}
COST = Usage(10, 1, cost=0.5)


class Killed(BaseException):
    """What kill -9 leaves is what is on disk when nothing more is run."""


def predict(question):
    return prediction(*ANSWERS[question.prompt.view], usage=COST)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def output(tmp_path):
    """A file with a record of each row."""
    path = tmp_path / "r.jsonl"
    with RecordStore(path) as store:
        teacher = ScriptedTeacher(lambda r: reply(f"Row {r.decision.index}. {GOOD}"))
        list(teach(ROWS, teacher, store, prompts=[PROMPTS.hinted], max_attempts=1))
    return path


def settings(soft_labels=False, verify=False, votes=5, **options):
    return {
        "prompts": PROMPTS.judge,
        "prompts_sha": PROMPTS.judge_sha,
        "soft_labels": soft_labels,
        "verify": verify,
        "votes": votes,
        **options,
    }


def run(path, script=predict, rows=ROWS, params=None, **options):
    """One pass as the command runs it; (judge, what became of the questions)."""
    judge = ScriptedTeacher(predict=script, params=params)
    with RecordStore(path) as store:
        annotated = list(annotate(rows, judge, store, **settings(**options)))
    return judge, annotated


def killed_after(path, count, **options):
    """A pass that is killed when `count` answers are stored."""
    judge = ScriptedTeacher(predict=predict)
    store = RecordStore(path)
    answers = annotate(ROWS, judge, store, **settings(**options))
    for _ in range(count):
        next(answers)
    store._stack.close()  # the lock, which the system takes back
    return judge


def test_soft_labels_ask_for_the_row_alone(output):
    judge, annotated = run(output, soft_labels=True)
    assert judge.questioned == [(0, "input"), (1, "input"), (2, "input")]
    for record in lines(output):
        assert record["label_probs"] == [0.5, 0.25, 0.25]
        assert record["judge"] == {
            "adapter": "scripted",
            "model": "script",
            "params": {},
            "prompt_sha": PROMPTS.judge_sha,
            "views": {
                "input": {"probs": [0.5, 0.25, 0.25], "method": "scored"},
                "rationale": None,
                "both": None,
            },
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 1,
                "cost": 0.5,
                "estimated": False,
            },
        }
        assert record["checks"]["sufficiency"] is None
    assert [(a.decision_id, a.view, a.reason, a.final) for a in annotated] == [
        (row.id, "input", None, True) for row in ROWS
    ]


def test_verification_asks_all_views_and_fills_the_checks(output):
    shown = {}

    def script(question):
        shown[question.decision.index, question.prompt.view] = (question.rationale, question.votes)
        return predict(question)

    run(output, script, verify=True, votes=7)
    assert shown[1, "input"] == ("", 7)
    assert shown[1, "rationale"] == shown[1, "both"] == (f"Row 1. {GOOD}", 7)
    for record in lines(output):
        assert record["checks"]["sufficiency"] == 0.75
        assert record["checks"]["leakage"] == 0.25
        assert record["label_probs"] is None  # not asked for
        assert record["judge"]["usage"]["prompt_tokens"] == 30
        assert all(record["judge"]["views"].values())


def test_every_gold_choice_counts(tmp_path):
    both_right = [replace(candidate_decision(0), gold=frozenset({0, 1}))]
    path = tmp_path / "r.jsonl"
    with RecordStore(path) as store:
        teacher = ScriptedTeacher(lambda r: reply(answer="A"))
        list(teach(both_right, teacher, store, prompts=[PROMPTS.hinted], max_attempts=1))
    run(path, lambda q: prediction(0.25, 0.5), rows=both_right, verify=True)
    assert lines(path)[0]["checks"]["sufficiency"] == 0.75


def test_only_what_is_missing_is_asked(output):
    run(output, soft_labels=True)
    judge, _ = run(output, verify=True)
    views = [view for index, view in judge.questioned if index == 0]
    assert views == ["rationale", "both"]
    judge, annotated = run(output, soft_labels=True, verify=True)
    assert judge.questioned == annotated == []
    assert lines(output)[0]["judge"]["usage"]["prompt_tokens"] == 30


def test_soft_labels_after_verification_are_taken_from_it(output):
    run(output, verify=True)
    judge, _ = run(output, soft_labels=True)
    assert judge.questioned == []
    assert [record["label_probs"] for record in lines(output)] == [[0.5, 0.25, 0.25]] * 3


def test_a_source_s_own_distribution_is_kept(output):
    records = lines(output)
    records[1]["label_probs"] = [0.0, 1.0, 0.0]
    output.write_text("".join(json.dumps(record) + "\n" for record in records))
    judge, _ = run(output, soft_labels=True)
    assert judge.questioned == [(0, "input"), (2, "input")]
    run(output, soft_labels=True, verify=True)
    assert lines(output)[1]["label_probs"] == [0.0, 1.0, 0.0]
    assert lines(output)[1]["judge"]["views"]["input"]["probs"] == [0.5, 0.25, 0.25]


def test_other_rows_and_rows_without_a_record_are_left_alone(output):
    judge, _ = run(output, rows=[ROWS[1], label_decision(9)], soft_labels=True)
    assert judge.questioned == [(1, "input")]
    assert [record["label_probs"] is None for record in lines(output)] == [True, False, True]


def test_a_failed_question_is_logged_and_asked_by_the_next_run(output, tmp_path):
    def script(question):
        if question.decision.index == 1 and question.prompt.view == "both":
            return Prediction(None, None, failure="503", usage=COST)
        return predict(question)

    _, annotated = run(output, script, verify=True)
    assert [(a.decision_id, a.view) for a in annotated if a.reason == "failed"] == [
        ("made/train/1", "both")
    ]
    assert len(annotated) == 9
    assert lines(output)[1]["checks"]["sufficiency"] is None
    assert lines(output)[1]["judge"]["views"]["both"] is None
    (line,) = lines(tmp_path / "r.rejected.jsonl")
    assert (line["id"], line["view"], line["reason"], line["detail"]) == (
        *("made/train/1", "both"),
        *("failed", "503"),
    )
    judge, _ = run(output, verify=True)
    assert judge.questioned == [(1, "both")]
    with RecordStore(output) as store:
        assert store.attempts("made/train/1", "hinted") == 0
        assert store.spent == Usage(100, 10, cost=5.0)


def test_a_judge_that_can_answer_nothing_is_not_asked_about_all_rows(tmp_path):
    rows = [label_decision(i) for i in range(40)]
    path = tmp_path / "many.jsonl"
    with RecordStore(path) as store:
        teacher = ScriptedTeacher(lambda r: reply())
        list(teach(rows, teacher, store, prompts=[PROMPTS.hinted], max_attempts=1))
    asked = []

    def mute(question):
        asked.append(question)
        return Prediction(None, None, failure="no choice in 'Well, …'", usage=COST)

    with pytest.raises(DHRDError, match=r"none of its first 16 questions; the last: no choice"):
        run(path, mute, rows=rows, soft_labels=True)
    assert len(asked) == 16

    def late(question):
        return mute(question) if len(asked) < 31 else predict(question)

    run(path, late, rows=rows[:15], soft_labels=True)  # fifteen failures are not enough to say so
    assert len(asked) == 31


def test_another_judge_is_refused_with_the_difference(output):
    run(output, soft_labels=True, params={"seed": 1})
    with pytest.raises(DHRDError) as refusal:
        run(output, verify=True, params={"seed": 2}, votes=9)
    assert "other settings for judge:\n  params.seed: was 1, now 2\n" in str(refusal.value)
    assert "  votes: was 5, now 9\n" in str(refusal.value)


def test_a_judge_may_be_changed_before_it_has_answered(output):
    run(output, lambda q: Prediction(None, None, failure="no"), soft_labels=True)
    run(output, soft_labels=True, params={"seed": 2})
    assert lines(output)[0]["judge"]["params"] == {"seed": 2}


def test_stop_asks_nothing_more(output):
    asked = []

    def script(question):
        asked.append(question)
        return predict(question)

    _, annotated = run(output, script, verify=True, stop=lambda: len(asked) == 2)
    assert len(annotated) == 2
    assert [view for view, answer in lines(output)[0]["judge"]["views"].items() if answer] == [
        "input",
        "rationale",
    ]


def test_a_judge_that_gives_up_leaves_its_answers_in_the_records(output):
    def script(question):
        if question.decision.index == 1:
            raise DHRDError("budget")
        return predict(question)

    with pytest.raises(DHRDError, match="budget"):
        run(output, script, soft_labels=True)
    assert [record["label_probs"] is None for record in lines(output)] == [False, True, True]


def test_all_that_came_is_on_disk_before_the_next_question(output, tmp_path, monkeypatch):
    journal, synced, seen = tmp_path / "r.annotations.jsonl", [0], []
    monkeypatch.setattr(
        "os.fsync",
        lambda fd: synced.append(len(lines(journal)) if journal.exists() else 0),
    )

    def script(question):
        seen.append(synced[-1])
        return predict(question)

    run(output, script, soft_labels=True)
    assert seen == [0, 1, 2]


def test_count_questions(output):
    run(output, rows=ROWS[:1], soft_labels=True)
    rows = [*ROWS[:2], label_decision(9)]
    with RecordStore(output) as store:
        for soft_labels, verify, expected in [(True, False, 1), (False, True, 5), (True, True, 5)]:
            wanted = {"soft_labels": soft_labels, "verify": verify}
            assert count_questions(rows, store, **wanted) == expected
    assert views_for(soft_labels=False, verify=False) == ()


@pytest.mark.parametrize("answered", range(1, 10))
def test_answers_of_a_killed_pass_are_merged_by_the_next_run(output, tmp_path, answered):
    before = killed_after(output, answered, soft_labels=True, verify=True)
    assert lines(output)[0]["judge"] is None
    assert len(lines(tmp_path / "r.annotations.jsonl")) == answered
    judge, _ = run(output, soft_labels=True, verify=True)
    assert sorted(before.questioned + judge.questioned) == sorted(
        (row.index, view) for row in ROWS for view in ANSWERS
    )
    assert not (tmp_path / "r.annotations.jsonl").exists()
    assert [record["judge"]["usage"]["prompt_tokens"] for record in lines(output)] == [30] * 3
    assert [record["label_probs"] for record in lines(output)] == [[0.5, 0.25, 0.25]] * 3


def test_a_torn_answer_is_asked_again(output, tmp_path):
    killed_after(output, 3, soft_labels=True)
    journal = tmp_path / "r.annotations.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    judge, _ = run(output, soft_labels=True)
    assert judge.questioned == [(2, "input")]
    assert lines(tmp_path / "r.rejected.jsonl")[0]["reason"] == "torn line"


@pytest.mark.parametrize("moment", ["half written", "before renaming", "after renaming"])
def test_a_merge_killed_at_any_moment_is_done_again(output, tmp_path, monkeypatch, moment):
    killed_after(output, 9, soft_labels=True, verify=True)
    add = merging._add_answers

    def add_and_die(record, answers):
        if record["index"] == 1:
            raise Killed
        add(record, answers)

    def rename_and_die(old, new):
        if moment == "after renaming":
            os.rename(old, new)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if moment == "half written":
            patch.setattr(merging, "_add_answers", add_and_die)
        else:
            patch.setattr("pathlib.Path.replace", rename_and_die)
        RecordStore(output)
    assert (lines(output)[0]["judge"] is not None) is (moment == "after renaming")
    assert (tmp_path / "r.annotations.jsonl").exists()
    judge, _ = run(output, soft_labels=True, verify=True)
    assert judge.questioned == []
    with RecordStore(output) as store:
        assert store.spent == Usage(90, 9, cost=4.5)  # nothing counted twice
    assert [record["checks"]["leakage"] for record in lines(output)] == [0.25] * 3
