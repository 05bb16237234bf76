"""The teacher `file:PATH`."""

from __future__ import annotations

import json

import pytest
from conftest import SHARED_DATA, needs_shared_data
from made_decisions import GOOD, LEAKING, candidate_decision, label_decision, one_split

from dhrd_plugin.errors import DHRDError
from teachers.base import Request, make_teacher
from teachers.generate import teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

ROWS = [label_decision(i) for i in range(4)]
HINTED = load_prompts().hinted


def bare(index, rationale=GOOD, **changes):
    return {"task": "made", "split": "train", "index": index, "rationale": rationale, **changes}


@pytest.fixture
def source(tmp_path):
    """Writes the lines of a file to import; its path."""

    def write(*lines):
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return path

    return write


def explain(path, rows=ROWS):
    teacher = make_teacher(f"file:{path}", [one_split(ROWS)])
    return list(teacher.explain(Request(row, 1, HINTED) for row in rows))


def test_rows_are_looked_up_and_rows_without_a_line_passed_over(source):
    path = source(bare(2), bare(0, "By a blind teacher. ", origin="blind"), bare(9, task="other"))
    replies = {request.decision.index: reply for request, reply in explain(path)}
    assert sorted(replies) == [0, 2]
    assert (replies[2].rationale, replies[2].origin, replies[2].answer) == (GOOD, "human", None)
    assert (replies[0].rationale, replies[0].origin) == ("By a blind teacher.", "blind")


def test_soft_labels_go_into_the_record(source, tmp_path):
    path = source(bare(0, label_probs=[1, 0, 0]), bare(1))
    teacher = make_teacher(f"file:{path}", [one_split(ROWS)])
    output = tmp_path / "r.jsonl"
    with RecordStore(output) as store:
        list(teach(ROWS, teacher, store, prompts=[HINTED], max_attempts=1))
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["label_probs"] for record in records] == [[1.0, 0.0, 0.0], None]
    assert all(isinstance(p, float) for p in records[0]["label_probs"])  # one type in the file


def test_missing_split_means_the_one_asked_for(source):
    line = bare(1)
    del line["split"]
    assert [request.decision.index for request, _ in explain(source(line))] == [1]


def test_full_record_must_fit_the_row(source):
    assert len(explain(source(bare(1, input_sha=ROWS[1].input_sha)))) == 1
    with pytest.raises(DHRDError, match=r"mine\.jsonl:2: row made/train/1 has changed"):
        explain(source(bare(0), bare(1, input_sha=ROWS[0].input_sha)))


def test_index_outside_the_split_is_named(source):
    with pytest.raises(DHRDError, match=r"mine\.jsonl:1: there is no row made/train/4"):
        explain(source(bare(4)))


def test_file_without_the_asked_task_is_an_error(source):
    path = source(bare(0))
    with pytest.raises(DHRDError, match=r"mine\.jsonl has no rationale for made_copa/train"):
        make_teacher(f"file:{path}", [one_split(ROWS), one_split([candidate_decision()])])


def test_unverifiable_lines_are_told_once(source, caplog):
    explain(source(bare(0), bare(1)))
    assert len(caplog.records) == 1 and "without input_sha" in caplog.text
    caplog.clear()
    explain(source(bare(0, input_sha=ROWS[0].input_sha)))
    assert caplog.records == []


def import_file(path, output):
    teacher = make_teacher(f"file:{path}", [one_split(ROWS)])
    with RecordStore(output) as store:
        return list(teach(ROWS, teacher, store, prompts=[HINTED], max_attempts=3))


def test_leaks_are_rejected_once_and_a_mended_line_is_taken(source, tmp_path):
    output = tmp_path / "out.jsonl"
    path = source(bare(0), bare(1, LEAKING), bare(2, "  "), bare(3, "One sentence will do."))
    reasons = [outcome.reason for outcome in import_file(path, output)]
    assert reasons == [None, "leak", "form", None]
    log = output.with_name("out.rejected.jsonl")
    assert len(log.read_text().splitlines()) == 2
    assert [o.reason for o in import_file(path, output)] == ["leak", "form"]
    assert len(log.read_text().splitlines()) == 2
    source(bare(0), bare(1), bare(2, "  "))
    assert [o.reason for o in import_file(path, output)] == [None, "form"]
    record = json.loads(output.read_text().splitlines()[-1])
    assert (record["index"], record["attempts"], record["origin"]) == (1, 1, "human")
    assert record["checks"]["answer_matches"] is None
    assert record["teacher"]["prompt_sha"] is None


def test_a_file_is_no_judge(source):
    teacher = make_teacher(f"file:{source(bare(0))}", [one_split(ROWS)])
    with pytest.raises(DHRDError, match=r"mine\.jsonl cannot be asked .* Name a --judge"):
        teacher.predict(iter([]))


@needs_shared_data
def test_real_rationales_of_cb_all_pass(tmp_path, monkeypatch, capsys):
    from teachers.cli import main

    monkeypatch.chdir(SHARED_DATA)  # so that aps/super_glue is the local folder
    output = tmp_path / "cb.jsonl"
    arguments = ["--task", "cb", "--teacher", "file:rationales/cb.jsonl", "--output", str(output)]
    assert main(arguments) == 0
    assert "250 of 250 rows have a rationale" in capsys.readouterr().out
    assert len(output.read_text(encoding="utf-8").splitlines()) == 250
