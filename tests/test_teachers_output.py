"""Files of an output where the file system has its say: names, links, permissions, a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal

import pytest
from made_decisions import GOOD, label_decision

from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from teachers.budget import Usage
from teachers.output.jsonl import replace_lines
from teachers.output.store import RecordStore
from teachers.records import make_record

ANSWER = {
    "view": "input",
    "probs": [0.5, 0.25, 0.25],
    "method": "scored",
    "gold_prob": 0.5,
    "soft_label": True,
    "judge": {"adapter": "made"},
    "usage": vars(Usage(1)),
}


def record(index):
    return make_record(
        label_decision(index),
        rationale=GOOD * 4,
        origin="blind",
        attempts=1,
        checks={},
        teacher={},
        usage=Usage(),
    )


def run(path, n_rows=4):
    """Keep what is not kept yet of the first rows, with an answer for each."""
    with RecordStore(path) as store:
        new = [i for i in range(n_rows) if f"made/train/{i}" not in store.kept]
        for i in new:
            store.keep(record(i))
        for i in range(n_rows):
            store.answer(ANSWER | {"id": f"made/train/{i}"})
        store.merge()
    return new


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "r.jsonl"


@pytest.mark.parametrize("name", ["r", "r.v2", "r.json", ".jsonl"])
def test_names_whose_other_files_could_be_another_output_s_are_refused(tmp_path, name):
    with pytest.raises(DHRDError, match=r"need a file whose name ends in \.jsonl"):
        RecordStore(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DHRDError, match=r"Cannot write .*file"):
        RecordStore(tmp_path / "file" / "r.jsonl")


def test_a_link_is_another_name_of_the_same_output(output, tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    link = folder / "link.jsonl"
    link.symlink_to("../r.jsonl")
    assert run(output, 2) == [0, 1]
    assert run(link, 4) == [2, 3]
    assert link.is_symlink()
    assert list(folder.iterdir()) == [link]
    with RecordStore(link), pytest.raises(DHRDError, match="being written by another"):
        RecordStore(output)


def test_a_merge_keeps_who_may_read_the_file(output):
    run(output, 1)
    output.chmod(0o640)
    before = output.stat().st_ino
    run(output, 1)
    assert output.stat().st_ino != before
    assert output.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DHRDError, match="pipe: no regular file"):
        replace_lines(tmp_path / "pipe", [])
    assert (tmp_path / "pipe").is_fifo()


@pytest.fixture
def disk():
    """Has the operating system refuse to write a file beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", range(400, 4400, 400))
def test_a_full_disk_is_named_and_costs_at_most_what_did_not_fit(output, tmp_path, disk, size):
    disk(size)
    with pytest.raises(DHRDError, match=r"Cannot write .*File too large") as full:
        run(output)
    disk(None)
    assert full.value.exit_code == EXIT_FAILED
    assert not list(tmp_path.glob("*.tmp"))
    whole = output.read_bytes().count(b"\n")
    assert run(output) == list(range(whole, 4))
    assert [kept["index"] for kept in lines(output)] == [0, 1, 2, 3]
    assert all(kept["label_probs"] == ANSWER["probs"] for kept in lines(output))
