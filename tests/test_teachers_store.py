"""The store: repairs, refusing what does not belong, files that other tools can read."""

from __future__ import annotations

import json

import pytest
from made_decisions import (
    GOOD,
    ScriptedTeacher,
    candidate_decision,
    label_decision,
    one_split,
    reply,
)

from dhrd_plugin.errors import DHRDError
from teachers.budget import Usage
from teachers.generate import made_from, teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts
from teachers.records import make_record

ROWS = [label_decision(i) for i in range(4)]
PROMPTS = load_prompts()
HINTED = [PROMPTS.hinted]


def run(path, script=lambda r: reply(), rows=ROWS, params=None, new=False, max_attempts=3):
    """The first pass over `rows`; the teacher."""
    teacher = ScriptedTeacher(script, params)
    with RecordStore(path, new=new) as store:
        store.claim("made/train", made_from(one_split(ROWS), teacher, "hinted", HINTED))
        list(teach(rows, teacher, store, prompts=HINTED, max_attempts=max_attempts))
    return teacher


def asked(teacher):
    return [(index, attempt) for index, attempt, _ in teacher.asked]


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "r.jsonl"


@pytest.fixture
def rejected(tmp_path):
    return tmp_path / "r.rejected.jsonl"


@pytest.fixture
def sidecar(tmp_path):
    return tmp_path / "r.jsonl.meta.json"


@pytest.mark.parametrize("cut", [1, 40, -2])
def test_torn_line_is_moved_to_the_rejected_file_and_written_anew(output, rejected, cut):
    run(output, lambda r: reply("Grüße. " + GOOD))
    whole = output.read_bytes().splitlines(keepends=True)
    torn = whole[-1][:cut]
    output.write_bytes(b"".join(whole[:-1]) + torn)
    assert asked(run(output)) == [(3, 1)]
    assert [r["index"] for r in lines(output)] == [0, 1, 2, 3]
    assert lines(rejected) == [{"reason": "torn line", "text": torn.decode()}]


def test_line_torn_inside_a_character_is_kept_readable(output, rejected):
    output.write_bytes('{"rationale": "Grü'.encode()[:-1])
    run(output)
    assert lines(rejected)[0]["text"] == '{"rationale": "Gr\\xc3'
    assert len(lines(output)) == 4


def test_torn_rejected_line_is_repaired_too(output, rejected):
    run(output, lambda r: reply(answer="False"), max_attempts=1)
    rejected.write_bytes(rejected.read_bytes()[:-10])
    assert asked(run(output, max_attempts=1)) == [(3, 1)]
    assert lines(rejected)[-1]["reason"] == "torn line"
    assert len(lines(rejected)) == 4


def test_last_line_without_its_end_is_whole(output, rejected):
    run(output)
    output.write_bytes(output.read_bytes().rstrip(b"\n"))
    assert asked(run(output, rows=[*ROWS, label_decision(4)])) == [(4, 1)]
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
    run(output, params={"seed": 1})
    before = output.read_bytes()
    with pytest.raises(DHRDError) as refusal:
        run(output, params={"seed": 2})
    assert "made/train:\n  teacher.params.seed: was 1, now 2\n" in str(refusal.value)
    assert "--new" in str(refusal.value)
    assert output.read_bytes() == before


def test_changed_mode_or_wording_is_refused_with_the_difference(output):
    teacher = run(output)
    ladder = made_from(one_split(ROWS), teacher, "ladder", [PROMPTS.blind, PROMPTS.hinted])
    with RecordStore(output) as store, pytest.raises(DHRDError) as refusal:
        store.claim("made/train", ladder)
    assert "  mode: was 'hinted', now 'ladder'\n" in str(refusal.value)
    assert f"  prompts.blind: was not noted, now '{PROMPTS.blind.sha}'\n" in str(refusal.value)


def test_an_older_sidecar_is_refused_with_what_it_lacks(output, sidecar):
    run(output)
    meta = json.loads(sidecar.read_text())
    del meta["made/train"]["mode"], meta["made/train"]["prompts"]
    meta["made/train"]["teacher"]["prompt_sha"] = "0" * 16
    sidecar.write_text(json.dumps(meta))
    with pytest.raises(DHRDError) as refusal:
        run(output)
    assert "  mode: was not noted, now 'hinted'\n" in str(refusal.value)


def test_an_older_sidecar_with_the_same_settings_is_taken(output, sidecar):
    run(output, rows=ROWS[:2])
    meta = json.loads(sidecar.read_text())
    meta["made/train"]["teacher"]["prompt_sha"] = None  # as of a teacher that is not asked
    sidecar.write_text(json.dumps(meta))
    assert asked(run(output)) == [(2, 1), (3, 1)]
    assert "prompt_sha" not in sidecar.read_text()


def test_older_records_are_read(output):
    run(output)
    old = lines(output)[0]
    del old["judge"], old["checks"]["leakage"]
    old["usage"] = {"prompt_tokens": 5, "completion_tokens": 7}
    output.write_text("".join(json.dumps(r) + "\n" for r in [old, *lines(output)[1:]]))
    with RecordStore(output) as store:
        assert store.kept == {f"made/train/{i}" for i in range(4)}
        assert store.spent == Usage(5, 7)


def test_changed_data_is_refused_but_not_before_a_row_was_made(output):
    teacher = ScriptedTeacher()
    changed = one_split([label_decision(0, gold=1), *ROWS[1:]])
    with RecordStore(output) as store:
        store.claim("made/train", made_from(changed, teacher, "hinted", HINTED))
    run(output)
    with RecordStore(output) as store, pytest.raises(DHRDError, match="data_sha: was"):
        store.claim("made/train", made_from(changed, teacher, "hinted", HINTED))


def test_rows_without_a_sidecar_are_refused(output, sidecar):
    run(output)
    sidecar.unlink()
    with pytest.raises(DHRDError, match=r"does not say with which settings"):
        run(output)


def test_a_broken_sidecar_is_named(output, sidecar):
    run(output)
    sidecar.write_text("{")
    with pytest.raises(DHRDError, match=r"r\.jsonl\.meta\.json is not valid JSON"):
        run(output)


def test_new_starts_afresh_and_loses_nothing(output, rejected, tmp_path):
    def script(request):
        return reply(answer="False" if request.decision.index == 2 else "True")

    run(output, script, params={"seed": 1})
    first = output.read_bytes(), rejected.read_bytes()
    for seed in (2, 3):
        run(output, params={"seed": seed}, new=True)
    assert (tmp_path / "r.1.jsonl").read_bytes() == first[0]
    assert (tmp_path / "r.1.rejected.jsonl").read_bytes() == first[1]
    meta = json.loads((tmp_path / "r.2.jsonl.meta.json").read_text())
    assert meta["made/train"]["teacher"]["params"] == {"seed": 2}
    assert len(lines(output)) == 4


def test_new_takes_unmerged_parts_and_answers_along(output, tmp_path):
    for name in ("r.annotations.jsonl", "r.rank1.jsonl", "r.rank1.rejected.jsonl"):
        (tmp_path / name).write_text('{"id": "of the old"}\n')
    with RecordStore(output, new=True) as store:
        assert store.kept == set()
    assert sorted(path.name for path in tmp_path.glob("r.1*")) == [
        *("r.1.annotations.jsonl", "r.1.rank1.jsonl", "r.1.rank1.rejected.jsonl"),
    ]


def test_one_file_holds_several_tasks(output):
    run(output)
    others = [candidate_decision(0), candidate_decision(1)]
    teacher = ScriptedTeacher(lambda r: reply(answer="(B)"), params={"seed": 9})
    with RecordStore(output) as store:
        made = made_from(one_split(others), teacher, "hinted", HINTED)
        store.claim("made_copa/train", made)
        list(teach(others, teacher, store, prompts=HINTED, max_attempts=1))
    assert [r["task"] for r in lines(output)] == ["made"] * 4 + ["made_copa"] * 2
    assert lines(output)[-1]["label_text"] == "the grass was cut."
    assert run(output).asked == []


def sparse(index):
    """A record of an import: hardly anything is known of it."""
    return make_record(
        label_decision(index),
        rationale=GOOD * 20,
        origin="human",
        attempts=1,
        checks={"leaked_words": [], "words": 240},
        teacher={"adapter": "file", "model": "f.jsonl", "params": {}, "prompt_sha": None},
        usage=Usage(),
    )


def full(index):
    """A verified record of another task, with a distribution and a price."""
    record = make_record(
        candidate_decision(index),
        rationale=GOOD,
        origin="blind",
        attempts=1,
        checks={"answer": "B", "answer_matches": True, "leaked_words": [], "words": 12},
        teacher={
            "adapter": "openai",
            "model": "m",
            "params": {"temperature": 0.5},
            "prompt_sha": "0" * 16,
        },
        usage=Usage(5, 7, cost=0.25),
        label_probs=(0, 1),
    )
    record["checks"] |= {"sufficiency": 0.75, "leakage": 0.5}
    record["judge"] = {
        "adapter": "hf",
        "model": "m",
        "params": {"dtype": "auto"},
        "prompt_sha": "0" * 16,
        "views": {
            "input": {"probs": [0.0, 1.0], "method": "scored"},
            "rationale": None,
            "both": {"probs": [0.25, 0.75], "method": "votes:4"},
        },
        "usage": vars(Usage(1, 2, cost=0.125)),
    }
    return record


def load(path, tmp_path):
    from datasets import load_dataset

    cache = str(tmp_path / "cache")
    return load_dataset("json", data_files=str(path), split="train", cache_dir=cache)


def test_datasets_reads_a_file_whose_first_megabytes_hardly_show_a_type(output, tmp_path):
    n = 7000  # more than the 10 MiB that `datasets` looks at
    with RecordStore(output) as store:
        for index in range(n):
            store.keep(sparse(index))
        for index in range(3):
            store.keep(full(index))
    assert output.stat().st_size > 11 * 2**20
    rows = load(output, tmp_path)
    assert len(rows) == n + 3
    by_id = {row["id"]: row for row in (*rows.select(range(9)), *rows.select(range(n, n + 3)))}
    assert by_id["made/train/0"]["label_probs"] is None
    assert by_id["made/train/0"]["judge"] is None
    for index in range(3):
        row = by_id[f"made_copa/train/{index}"]
        assert row["label_probs"] == [0.0, 1.0]
        assert row["judge"]["views"]["both"] == {"probs": [0.25, 0.75], "method": "votes:4"}
        assert row["checks"]["sufficiency"] == 0.75
        assert row["usage"]["cost"] == 0.25


def test_a_killed_run_shows_its_types_when_it_is_resumed(output):
    records = [*(sparse(index) for index in range(150)), full(0), full(1)]
    output.write_text("".join(json.dumps(record) + "\n" for record in records))
    with RecordStore(output) as store:
        assert len(store.kept) == 152
    ids = [record["id"] for record in lines(output)]
    assert ids[:2] == ["made_copa/train/0", "made/train/0"]
    assert sorted(ids) == sorted(record["id"] for record in records)
    before = output.stat().st_mtime_ns
    RecordStore(output).__exit__()
    assert output.stat().st_mtime_ns == before  # once is enough
