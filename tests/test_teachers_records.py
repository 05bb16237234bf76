"""Reading and making rationale records."""

from __future__ import annotations

import json

import pytest
from made_decisions import GOOD, label_decision

from dhrd_plugin.errors import DHRDError
from teachers.budget import Usage
from teachers.records import REJECTED_SCHEMA, load_rationales, make_record, read_lines

ROWS = {decision.id: decision for decision in map(label_decision, range(3))}
BARE = {"task": "made", "split": "train", "index": 1, "rationale": GOOD}


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def full_record(**changes):
    record = make_record(
        ROWS["made/train/1"],
        rationale=GOOD,
        origin="hinted",
        attempts=2,
        checks={"answer": "True"},
        teacher={"adapter": "hf"},
        usage=Usage(prompt_tokens=5, completion_tokens=7),
    )
    return {**record, **changes}


def test_record_has_the_documented_fields_in_order():
    record = full_record()
    assert list(record) == [
        *("schema", "id", "input_sha", "task", "split", "index", "label", "label_text"),
        *("rationale", "origin", "attempts", "checks", "label_probs", "judge", "teacher"),
        *("usage", "created"),
    ]
    assert list(record["checks"]) == [
        *("answer", "answer_matches", "leaked_words", "words", "sufficiency", "leakage")
    ]
    assert record["checks"]["leakage"] is None
    assert record["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "cost": None,
        "estimated": False,
    }
    assert record["schema"] == "dhrd.rationale/1"
    assert record["id"] == "made/train/1"
    assert (record["label"], record["label_text"]) == (0, "True")
    assert record["input_sha"] == ROWS["made/train/1"].input_sha


def test_full_and_bare_lines_are_found_and_the_last_one_wins(tmp_path):
    path = write(tmp_path / "r.jsonl", BARE, full_record(rationale="Later."), {**BARE, "task": "x"})
    assert load_rationales([path], ROWS)["made/train/1"]["rationale"] == "Later."
    assert len(load_rationales([path], ROWS)) == 1


def test_lines_without_split_need_a_default(tmp_path):
    line = {key: value for key, value in BARE.items() if key != "split"}
    path = write(tmp_path / "r.jsonl", line)
    assert list(load_rationales([path], ROWS, default_split="train")) == ["made/train/1"]
    with pytest.raises(DHRDError, match=r"r\.jsonl:1: field 'split' is None, need str"):
        load_rationales([path], ROWS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**BARE, "index": 3}, r"r\.jsonl:2: there is no row made/train/3"),
        ({**BARE, "index": True}, r"r\.jsonl:2: field 'index' is True, need int"),
        ({**BARE, "origin": "robot"}, r"r\.jsonl:2: origin 'robot', need one of hinted, blind"),
        ({**BARE, "schema": REJECTED_SCHEMA}, r"r\.jsonl:2: schema 'dhrd.rejected/1'"),
        (full_record(input_sha="0" * 16), r"r\.jsonl:2: row made/train/1 has changed"),
        ({**BARE, "rationale": "\ud83d"}, r"r\.jsonl:2: holds half a Unicode character"),
        ([1], r"r\.jsonl:2: got list, need a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path / "r.jsonl", BARE, line)
    with pytest.raises(DHRDError, match=message):
        load_rationales([path], ROWS)


def test_torn_line_is_named_and_the_repair_told(tmp_path):
    path = write(tmp_path / "r.jsonl", BARE)
    path.write_text(path.read_text() + '{"task": "ma', encoding="utf-8")
    with pytest.raises(DHRDError, match=r"r\.jsonl:2: not valid JSON.*repairs it"):
        list(read_lines(path))


@pytest.mark.parametrize("line", ['{"index": ' + "9" * 5000 + "}", "[" * 10**5])
def test_a_line_that_json_gives_up_on_is_named(tmp_path, line):
    path = tmp_path / "r.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(DHRDError, match=r"r\.jsonl:1: not valid JSON"):
        list(read_lines(path))


def test_lines_are_read_one_by_one(tmp_path):
    path = write(tmp_path / "r.jsonl", BARE)
    path.write_text(path.read_text() + "no JSON\n")
    lines = read_lines(path)
    assert next(lines) == (1, BARE)
    with pytest.raises(DHRDError, match=r"r\.jsonl:2: not valid JSON \(Expecting value\)\.$"):
        next(lines)


def test_escaped_pairs_and_raw_separators_are_text(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00", "b": "\u2028 \x85"}\n', encoding="utf-8")
    assert [record for _, record in read_lines(path)] == [{"a": "😀", "b": "\u2028 \x85"}]


def test_other_encodings_are_named_with_the_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(json.dumps(BARE).encode() + b"\n" + '{"a": "Grüße"}'.encode("latin-1"))
    with pytest.raises(DHRDError, match=r"r\.jsonl:2: not UTF-8 text"):
        list(read_lines(path))


def test_byte_order_mark_and_blank_lines_are_no_data(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("﻿" + json.dumps(BARE) + "\n\n" + json.dumps(BARE) + "\n", encoding="utf-8")
    assert [number for number, _ in read_lines(path)] == [1, 3]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DHRDError, match=r"Cannot read rationales from .*none\.jsonl"):
        list(read_lines(tmp_path / "none.jsonl"))
