"""Several processes write one output: shares, parts, and what is left of them when they die."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from itertools import chain

import pytest
from conftest import REPO
from made_decisions import ScriptedTeacher, label_decision, reply
from scripted_run import COST, ROWS, paid, run, stored

from dhrd_plugin.errors import DHRDError
from teachers.budget import Usage
from teachers.generate import teach
from teachers.output import jsonl, merging
from teachers.output.processes import Processes
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

N_ROWS = 40
PROMPTS = [load_prompts().hinted]


class Killed(BaseException):
    """What kill -9 leaves is what is on disk when nothing more is run."""


class NeverWaits(Processes):
    """One of two processes, both of which are this one."""

    def wait(self):
        pass


FIRST, SECOND = NeverWaits(0, 2), NeverWaits(1, 2)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def explain(store, indices, answer="True"):
    rows = [label_decision(i) for i in indices]
    teacher = ScriptedTeacher(lambda r: reply(answer=answer))
    merge, store.merge = store.merge, lambda: None  # before the merge, a process is killed
    list(teach(rows, teacher, store, prompts=PROMPTS, max_attempts=1))
    store.merge = merge


@pytest.fixture
def output(tmp_path):
    return tmp_path / "r.jsonl"


@pytest.fixture
def torn_apart(output):
    """An output of two processes that were killed: rows 0 and 2 in the file, 1, 3 and 5 in a part,
    4, 6 and 7 rejected."""
    with RecordStore(output, processes=FIRST) as store:
        explain(store, [0, 2])
        explain(store, [4, 6], answer="False")
    with RecordStore(output, processes=SECOND) as store:
        explain(store, [1, 3, 5])
        explain(store, [7], answer="False")
    return output


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_row_is_one_process_s():
    shares = [Processes(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(row for share in shares for row in share) == list(range(10))
    assert Processes().share(range(10)) == range(10)


def test_the_environment_tells_which_process_this_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Processes.of_environment() == Processes(0, 1)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(DHRDError, match="RANK=1 and WORLD_SIZE=1"):
        Processes.of_environment()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Processes.of_environment() == Processes(1, 2)
    assert not Processes.of_environment().is_main


def test_parts_of_killed_processes_are_merged_by_the_next_run(torn_apart, tmp_path):
    assert "r.rank1.jsonl" in names(tmp_path)
    with RecordStore(torn_apart) as store:
        assert store.kept == {f"made/train/{i}" for i in (0, 1, 2, 3, 5)}
        assert [store.attempts(f"made/train/{i}", "hinted") for i in range(8)] == [
            *(0, 0, 0, 0),
            *(1, 0, 1, 1),
        ]
    assert [record["index"] for record in lines(torn_apart)] == [0, 2, 1, 3, 5]
    assert names(tmp_path) == ["r.jsonl", "r.jsonl.lock", "r.rejected.jsonl"]


@pytest.mark.parametrize("files_done", [0, 1])
@pytest.mark.parametrize("moment", ["half written", "before deleting"])
def test_a_merge_of_parts_killed_at_any_moment_is_done_again(
    torn_apart, tmp_path, monkeypatch, files_done, moment
):
    absorb, done = merging.absorb, []

    def absorb_and_die(part, whole, log):
        if len(done) == files_done:
            written = part.read_bytes()
            if moment == "half written":
                written = written[: len(written) // 2]
            with whole.open("ab") as file:
                file.write(written)
            raise Killed
        done.append(part)
        absorb(part, whole, log)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("teachers.output.files.absorb", absorb_and_die)
        RecordStore(torn_apart)
    with RecordStore(torn_apart) as store:
        assert len(store.kept) == 5
    assert sorted(record["index"] for record in lines(torn_apart)) == [0, 1, 2, 3, 5]
    log = Counter(line["reason"] for line in lines(tmp_path / "r.rejected.jsonl"))
    assert log == {"answer": 3} | ({"torn line": 1} if moment == "half written" else {})
    assert names(tmp_path) == ["r.jsonl", "r.jsonl.lock", "r.rejected.jsonl"]


def test_a_torn_part_is_mended(torn_apart, tmp_path):
    part = tmp_path / "r.rank1.jsonl"
    part.write_bytes(part.read_bytes()[:-20])
    with RecordStore(torn_apart) as store:
        assert store.kept == {f"made/train/{i}" for i in (0, 1, 2, 3)}
    assert lines(tmp_path / "r.rejected.jsonl")[-2]["reason"] == "torn line"


def test_files_of_similar_names_are_no_parts(output, tmp_path):
    others = ("r.rank1.txt", "r.rank.jsonl", "r.rankings.jsonl", "rr.rank1.jsonl", "r.rank1.json")
    for name in others:
        (tmp_path / name).write_text("mine")
    with RecordStore(output) as store:
        assert store.kept == set()
    assert {(tmp_path / name).read_text() for name in others} == {"mine"}


def test_only_the_main_process_writes_the_sidecar_and_both_refuse(output, tmp_path):
    RecordStore(output, processes=FIRST).__exit__()
    with RecordStore(output, processes=SECOND) as store:
        store.claim("made/train", {"mode": "blind"})
    assert not (tmp_path / "r.jsonl.meta.json").exists()
    with RecordStore(output, processes=FIRST) as store:
        store.claim("made/train", {"mode": "blind"})
        explain(store, [0])
    for process in (FIRST, SECOND):
        with (
            RecordStore(output, processes=process) as store,
            pytest.raises(DHRDError, match="mode: was 'blind', now 'hinted'"),
        ):
            store.claim("made/train", {"mode": "hinted"})


def test_no_run_starts_before_the_last_process_has_ended(output):
    with RecordStore(output, processes=FIRST):
        second = RecordStore(output, processes=SECOND)
    with pytest.raises(DHRDError, match="being written by another"):
        RecordStore(output)
    second.__exit__()
    RecordStore(output).__exit__()


def test_lines_that_come_together_share_a_sync_but_not_for_long(output, monkeypatch):
    synced, now = [], [0.0]
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(now[0]))
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    appender = jsonl.Appender(output)
    for now[0] in (0.0, 0.1, 0.2):
        appender.write({})
    assert synced == []
    appender.sync()
    appender.sync()
    assert synced == [0.2]
    for now[0] in (0.3, 1.3):  # as a slow local model gives them
        appender.write({})
    assert synced == [0.2, 1.3]


class TwoProcesses:
    """Starts `scripted_run.py` as two real processes, by their environment or by a launcher."""

    def __init__(self, folder):
        self.output, self.folder = folder / "r.jsonl", folder
        self.ledgers = [folder / "ledger0", folder / "ledger1"]
        self.running = []

    def start(self, *launcher, pause=0.0, fail_at=""):
        script = [REPO / "tests" / "scripted_run.py", self.output, self.folder / "ledger"]
        command = [sys.executable, *launcher, *script, str(N_ROWS), str(pause), fail_at]
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = str(probe.getsockname()[1])
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        ranks = [{}] if launcher else [common | {"RANK": rank} for rank in ("0", "1")]
        self.running = [
            subprocess.Popen(
                list(map(str, command)),
                env=os.environ | {"PYTHONPATH": str(REPO)} | rank,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in ranks
        ]

    def paid(self):
        return [paid(ledger) if ledger.exists() else [] for ledger in self.ledgers]

    def wait_until_paid(self, count):
        while min(map(len, self.paid())) < count:
            assert all(process.poll() is None for process in self.running)
            time.sleep(0.01)

    def ended(self):
        """Exit codes and all that was said."""
        said = [process.communicate(timeout=120)[0] for process in self.running]
        return [process.returncode for process in self.running], "".join(said)

    def check_complete(self, lost=0):
        everything = stored(self.output)
        assert len(everything) == len(set(everything)) == N_ROWS + 14 + 3 * N_ROWS
        assert sum(map(len, self.paid())) == len(everything) + lost
        assert not list(self.folder.glob("*rank*")) + list(self.folder.glob("*annotations*"))
        with RecordStore(self.output) as store:
            assert store.spent == sum([COST] * len(everything), Usage())


@pytest.fixture
def two(tmp_path):
    processes = TwoProcesses(tmp_path)
    yield processes
    for process in processes.running:
        process.kill()


def test_two_processes_killed_and_started_again(two):
    two.start(pause=0.005)
    two.wait_until_paid(12)
    for process in two.running:
        process.kill()
    two.ended()
    known, before = set(stored(two.output)), two.paid()
    assert any(two.folder.glob("r.rank1*"))
    lost = len(set(before[0] + before[1]) - known)

    two.start()
    assert two.ended()[0] == [0, 0]
    for rank, ledger in enumerate(two.paid()):
        assert known.isdisjoint(ledger[len(before[rank]) :]), "paid again for what was stored"
        assert {int(row.rpartition("/")[2]) % 2 for row, _ in ledger} == {rank}
    two.check_complete(lost)


def test_a_process_whose_companion_dies_does_not_wait_for_it(two):
    two.start(pause=0.005)
    two.wait_until_paid(8)
    two.running[1].kill()
    codes, said = two.ended()
    assert codes == [1, -9]
    assert "Another process of this run has ended" in said


def test_a_launcher_ends_all_when_one_breaks_down_and_one_process_can_go_on(two):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    two.start(*torchrun, pause=0.005, fail_at="made/train/21 both")
    codes, said = two.ended()
    assert codes == [1]
    assert "the model broke down" in said
    known, before = set(stored(two.output)), set(chain(*two.paid()))
    two.ledgers.append(two.folder / "ledger2")
    run(two.output, two.ledgers[2], ROWS[:N_ROWS])
    assert known.isdisjoint(paid(two.ledgers[2]))
    two.check_complete(lost=len(before - known))
