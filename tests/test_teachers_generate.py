"""The first pass: modes, retries, resuming, stopping, and what it leaves on disk."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from made_decisions import GOOD, LEAKING, ScriptedTeacher, label_decision, one_split, reply

from teachers.budget import Usage
from teachers.generate import made_from, teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

ROWS = [label_decision(i) for i in range(4)]
PROMPTS = load_prompts()
MODES = {
    "hinted": [PROMPTS.hinted],
    "blind": [PROMPTS.blind],
    "ladder": [PROMPTS.blind, PROMPTS.hinted],
}


def run(path, script, rows=ROWS, mode="hinted", max_attempts=3, **options):
    """One run of the pass as the command does it; (teacher, outcomes)."""
    teacher = ScriptedTeacher(script)
    prompts = MODES[mode]
    with RecordStore(path) as store:
        store.claim("made/train", made_from(one_split(ROWS), teacher, mode, prompts))
        outcomes = list(
            teach(rows, teacher, store, prompts=prompts, max_attempts=max_attempts, **options)
        )
    return teacher, outcomes


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "r.jsonl"


@pytest.fixture
def rejected(tmp_path):
    return tmp_path / "r.rejected.jsonl"


def test_bad_attempts_are_logged_and_tried_again(output, rejected):
    def script(request):
        if request.decision.index == 0:
            return reply()
        if request.decision.index == 1:
            return reply(LEAKING) if request.attempt == 1 else reply()
        if request.decision.index == 2:
            return reply(answer="False")
        return reply(problem="odd") if request.attempt < 3 else reply()

    _, outcomes = run(output, script)
    assert [(r["index"], r["attempts"]) for r in lines(output)] == [(0, 1), (1, 2), (3, 3)]
    kept = lines(output)[1]
    assert kept["rationale"] == GOOD
    assert kept["origin"] == "hinted"
    assert kept["checks"]["answer_matches"] is True
    assert kept["teacher"] == {
        "adapter": "scripted",
        "model": "script",
        "params": {},
        "prompt_sha": PROMPTS.hinted.sha,
    }
    log = [(r["index"], r["attempts"], r["reason"]) for r in lines(rejected)]
    assert sorted(log) == [
        (1, 1, "leak"),
        *[(2, attempt, "answer") for attempt in (1, 2, 3)],
        *[(3, attempt, "form") for attempt in (1, 2)],
    ]
    leak = next(r for r in lines(rejected) if r["reason"] == "leak")
    assert leak["detail"] == "contains true"
    assert leak["text"] == f"{LEAKING} / True"
    assert leak["schema"] == "dhrd.rejected/1"
    assert sum(outcome.final for outcome in outcomes) == 4
    assert sum(outcome.reason is None for outcome in outcomes) == 3


def test_blind_keeps_what_finds_the_gold_answer(output, rejected):
    def script(request):
        right = request.decision.index != 2 and request.attempt > request.decision.index
        return reply(answer="True" if right else "False")

    teacher, _ = run(output, script, mode="blind", max_attempts=2)
    assert [(r["index"], r["attempts"], r["origin"]) for r in lines(output)] == [
        (0, 1, "blind"),
        (1, 2, "blind"),
    ]
    assert lines(output)[0]["teacher"]["prompt_sha"] == PROMPTS.blind.sha
    assert {origin for _, _, origin in teacher.asked} == {"blind"}
    assert {r["reason"] for r in lines(rejected)} == {"answer"}


def test_ladder_shows_the_gold_answer_where_blind_attempts_are_used_up(output):
    def script(request):
        right = request.decision.index == 0 or request.prompt.origin == "hinted"
        return reply(answer="True" if right else "False")

    teacher, outcomes = run(output, script, rows=ROWS[:2], mode="ladder", max_attempts=2)
    assert [(r["index"], r["attempts"], r["origin"]) for r in lines(output)] == [
        (0, 1, "blind"),
        (1, 3, "hinted"),
    ]
    assert [asked for asked in teacher.asked if asked[0] == 1] == [
        (1, 1, "blind"),
        (1, 2, "blind"),
        (1, 3, "hinted"),
    ]
    assert [(o.reason, o.final) for o in outcomes if o.decision.index == 1] == [
        ("answer", False),
        ("answer", False),
        (None, True),
    ]


def test_a_resumed_ladder_goes_on_where_each_row_stood(output):
    def interrupted(request):
        if request.attempt == 3:
            raise KeyboardInterrupt
        return reply(answer="False")

    with pytest.raises(KeyboardInterrupt):
        run(output, interrupted, rows=ROWS[:1], mode="ladder", max_attempts=2)
    teacher, _ = run(output, lambda r: reply(), mode="ladder", max_attempts=2)
    assert teacher.asked == [(0, 3, "hinted"), *[(i, 1, "blind") for i in (1, 2, 3)]]


def test_kept_rows_and_used_up_rows_are_not_asked_again(output):
    run(output, lambda r: reply(answer="False" if r.decision.index == 2 else "True"))
    teacher, outcomes = run(output, lambda r: reply())
    assert teacher.asked == [] and outcomes == []
    teacher, _ = run(output, lambda r: reply(), max_attempts=5)
    assert teacher.asked == [(2, 4, "hinted")]
    assert lines(output)[-1]["attempts"] == 4


def test_failed_request_is_no_attempt_and_does_not_stop_the_others(output, rejected):
    _, outcomes = run(output, lambda r: reply(failure="503") if r.decision.index == 1 else reply())
    assert [r["index"] for r in lines(output)] == [0, 2, 3]
    assert [(r["index"], r["reason"], r["detail"]) for r in lines(rejected)] == [
        (1, "failed", "503")
    ]
    assert [o.final for o in outcomes] == [True] * 4
    teacher, _ = run(output, lambda r: reply())
    assert teacher.asked == [(1, 1, "hinted")]
    assert lines(output)[-1]["index"] == 1


def test_interrupted_run_keeps_what_it_had_and_goes_on(output):
    def script(request):
        if request.decision.index == 2:
            raise KeyboardInterrupt
        return reply()

    with pytest.raises(KeyboardInterrupt):
        run(output, script)
    assert [r["index"] for r in lines(output)] == [0, 1]
    teacher, _ = run(output, lambda r: reply())
    assert [index for index, _, _ in teacher.asked] == [2, 3]
    assert [r["index"] for r in lines(output)] == [0, 1, 2, 3]


def test_stop_asks_nothing_more_but_stores_what_is_in_flight(output, rejected):
    answered = []

    class TwoAtOnce(ScriptedTeacher):
        def explain(self, requests):
            while pair := list(islice(requests, 2)):
                for request in pair:
                    answered.append(request.decision.index)
                    yield request, reply(answer="False" if request.decision.index else "True")

    teacher = TwoAtOnce()
    with RecordStore(output) as store:
        outcomes = teach(
            ROWS,
            teacher,
            store,
            prompts=MODES["hinted"],
            max_attempts=3,
            stop=lambda: len(answered) > 0,
        )
        assert [outcome.decision.index for outcome in outcomes] == [0, 1]
    assert [r["index"] for r in lines(output)] == [0]
    assert [r["index"] for r in lines(rejected)] == [1]


def test_record_is_in_the_file_before_its_outcome_is_reported(output):
    with RecordStore(output) as store:
        teacher = ScriptedTeacher(lambda r: reply())
        outcomes = teach(ROWS, teacher, store, prompts=MODES["hinted"], max_attempts=1)
        for count, _ in enumerate(outcomes, start=1):
            assert len(lines(output)) == count


def test_all_that_came_is_on_disk_before_the_next_request(output, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(len(lines(output))))
    seen = []

    class FourAtOnce(ScriptedTeacher):
        def explain(self, requests):
            for request in requests:
                seen.append((len(lines(output)), synced[-1] if synced else 0))
                yield request, reply()

    with RecordStore(output) as store:
        list(teach(ROWS, FourAtOnce(), store, prompts=MODES["hinted"], max_attempts=1))
    assert seen == [(n, n) for n in range(4)]
    assert synced[-1] == 4


def test_usage_of_every_attempt_is_stored_and_counted(output, rejected):
    def script(request):
        cost = Usage(10, request.attempt, cost=0.5, estimated=request.decision.index == 1)
        if request.decision.index == 2:
            return reply(failure="cut off", usage=cost)
        return reply(LEAKING if request.attempt == 1 else GOOD, usage=cost)

    _, outcomes = run(output, script, rows=ROWS[:3])
    spent = Usage(50, 7, cost=2.5, estimated=True)
    assert sum((outcome.usage for outcome in outcomes), Usage()) == spent
    assert lines(output)[0]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cost": 0.5,
        "estimated": False,
    }
    assert len(lines(rejected)) == 3
    with RecordStore(output) as store:
        assert store.spent == spent


def test_store_tells_what_has_no_price(output):
    def script(request):
        cost = None if request.decision.index < 2 else 0.5
        return reply(answer="False" if request.decision.index else "True", usage=Usage(10, 5, cost))

    run(output, script, max_attempts=1)
    with RecordStore(output) as store:
        assert store.spent == Usage(40, 20, cost=1.0)
        assert store.unpriced == Usage(20, 10)
