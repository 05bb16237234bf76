"""The loop and its store: retries, resuming, repairs, and refusing what does not belong."""

from __future__ import annotations

import json

import pytest
from made_decisions import (
    GOOD,
    LEAKING,
    ScriptedTeacher,
    candidate_decision,
    label_decision,
    one_split,
    reply,
)

from dhrd_plugin.errors import DHRDError
from teachers.generate import made_from, teach
from teachers.prompts import HINTED
from teachers.store import RecordStore

ROWS = [label_decision(i) for i in range(4)]


def run(path, script, rows=ROWS, max_attempts=3, new=False, params=None):
    """One run of the loop as the command does it; (teacher, outcomes)."""
    teacher = ScriptedTeacher(script, params)
    with RecordStore(path, new=new) as store:
        store.claim("made/train", made_from(one_split(ROWS), teacher, HINTED))
        outcomes = list(teach(rows, teacher, store, prompt=HINTED, max_attempts=max_attempts))
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
        "prompt_sha": HINTED.sha,
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


def test_kept_rows_and_used_up_rows_are_not_asked_again(output):
    run(output, lambda r: reply(answer="False" if r.decision.index == 2 else "True"))
    teacher, outcomes = run(output, lambda r: reply())
    assert teacher.asked == [] and outcomes == []
    teacher, _ = run(output, lambda r: reply(), max_attempts=5)
    assert teacher.asked == [(2, 4)]
    assert lines(output)[-1]["attempts"] == 4


def test_failed_request_is_no_attempt_and_does_not_stop_the_others(output, rejected):
    _, outcomes = run(output, lambda r: reply(failure="503") if r.decision.index == 1 else reply())
    assert [r["index"] for r in lines(output)] == [0, 2, 3]
    assert [(r["index"], r["reason"], r["detail"]) for r in lines(rejected)] == [
        (1, "failed", "503")
    ]
    assert [o.final for o in outcomes] == [True] * 4
    teacher, _ = run(output, lambda r: reply())
    assert teacher.asked == [(1, 1)]
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
    assert [index for index, _ in teacher.asked] == [2, 3]
    assert [r["index"] for r in lines(output)] == [0, 1, 2, 3]


def test_record_is_on_disk_before_its_outcome_is_reported(output):
    with RecordStore(output) as store:
        teacher = ScriptedTeacher(lambda r: reply())
        for count, _ in enumerate(teach(ROWS, teacher, store, prompt=HINTED, max_attempts=1), 1):
            assert len(lines(output)) == count


@pytest.mark.parametrize("cut", [1, 40, -2])
def test_torn_line_is_moved_to_the_rejected_file_and_written_anew(output, rejected, cut):
    run(output, lambda r: reply("Grüße. " + GOOD))
    whole = output.read_bytes().splitlines(keepends=True)
    torn = whole[-1][:cut]
    output.write_bytes(b"".join(whole[:-1]) + torn)
    teacher, _ = run(output, lambda r: reply())
    assert teacher.asked == [(3, 1)]
    assert [r["index"] for r in lines(output)] == [0, 1, 2, 3]
    assert lines(rejected) == [{"reason": "torn line", "text": torn.decode()}]


def test_line_torn_inside_a_character_is_kept_readable(output, rejected):
    output.write_bytes('{"rationale": "Grü'.encode()[:-1])
    run(output, lambda r: reply())
    assert lines(rejected)[0]["text"] == '{"rationale": "Gr\\xc3'
    assert len(lines(output)) == 4


def test_torn_rejected_line_is_repaired_too(output, rejected):
    run(output, lambda r: reply(answer="False"), max_attempts=1)
    rejected.write_bytes(rejected.read_bytes()[:-10])
    teacher, _ = run(output, lambda r: reply(), max_attempts=1)
    assert teacher.asked == [(3, 1)]
    assert lines(rejected)[-1]["reason"] == "torn line"
    assert len(lines(rejected)) == 4


def test_last_line_without_its_end_is_whole(output, rejected):
    run(output, lambda r: reply())
    output.write_bytes(output.read_bytes().rstrip(b"\n"))
    teacher, _ = run(output, lambda r: reply(), rows=[*ROWS, label_decision(4)])
    assert teacher.asked == [(4, 1)]
    assert [r["index"] for r in lines(output)] == [0, 1, 2, 3, 4]
    assert lines(rejected) == []


def test_two_writers_are_refused(output):
    with (
        RecordStore(output),
        pytest.raises(DHRDError, match=r"r\.jsonl is being written by another"),
    ):
        RecordStore(output)
    RecordStore(output).__exit__()


def test_changed_teacher_is_refused_with_the_difference(output):
    run(output, lambda r: reply(), params={"seed": 1})
    before = output.read_bytes()
    with pytest.raises(DHRDError) as refusal:
        run(output, lambda r: reply(), params={"seed": 2})
    assert "made/train:\n  teacher.params.seed: was 1, now 2\n" in str(refusal.value)
    assert "--new" in str(refusal.value)
    assert output.read_bytes() == before


def test_changed_data_is_refused_but_not_before_a_row_was_made(output):
    teacher = ScriptedTeacher(lambda r: reply())
    changed = one_split([label_decision(0, gold=1), *ROWS[1:]])
    with RecordStore(output) as store:
        store.claim("made/train", made_from(changed, teacher, HINTED))
    run(output, lambda r: reply())
    with RecordStore(output) as store, pytest.raises(DHRDError, match="data_sha: was"):
        store.claim("made/train", made_from(changed, teacher, HINTED))


def test_rows_without_a_sidecar_are_refused(output):
    run(output, lambda r: reply())
    output.with_name("r.jsonl.meta.json").unlink()
    with pytest.raises(DHRDError, match=r"does not say how they were made"):
        run(output, lambda r: reply())


def test_new_starts_afresh_and_loses_nothing(output, rejected, tmp_path):
    def script(request):
        return reply(answer="False" if request.decision.index == 2 else "True")

    run(output, script, params={"seed": 1})
    first = output.read_bytes(), rejected.read_bytes()
    for seed in (2, 3):
        run(output, lambda r: reply(), params={"seed": seed}, new=True)
    assert (tmp_path / "r.1.jsonl").read_bytes() == first[0]
    assert (tmp_path / "r.1.rejected.jsonl").read_bytes() == first[1]
    meta = json.loads((tmp_path / "r.2.jsonl.meta.json").read_text())
    assert meta["made/train"]["teacher"]["params"] == {"seed": 2}
    assert len(lines(output)) == 4


def test_one_file_holds_several_tasks(output):
    run(output, lambda r: reply())
    others = [candidate_decision(0), candidate_decision(1)]
    teacher = ScriptedTeacher(lambda r: reply(answer="(B)"), params={"seed": 9})
    with RecordStore(output) as store:
        store.claim("made_copa/train", made_from(one_split(others), teacher, HINTED))
        list(teach(others, teacher, store, prompt=HINTED, max_attempts=1))
    assert [r["task"] for r in lines(output)] == ["made"] * 4 + ["made_copa"] * 2
    assert lines(output)[-1]["label_text"] == "the grass was cut."
    teacher, _ = run(output, lambda r: reply())
    assert teacher.asked == []


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DHRDError, match=r"Cannot write .*file"):
        RecordStore(tmp_path / "file" / "r.jsonl")
