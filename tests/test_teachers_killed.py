"""A run that is killed again and again: no row is lost, none is there twice, none is paid twice."""

from __future__ import annotations

import json
import multiprocessing
import random
import time

import scripted_run
from scripted_run import COST, IN_FLIGHT, ROWS, paid, run, stored

from teachers.budget import Usage
from teachers.output.store import RecordStore

KILLS = 50


def test_fifty_kills_of_a_run_of_three_hundred_rows(tmp_path):
    output, ledger = tmp_path / "r.jsonl", tmp_path / "ledger"
    moments = random.Random(3)
    context = multiprocessing.get_context("forkserver")  # forks from a process without torch
    context.set_forkserver_preload([scripted_run.__name__])
    ledger.touch()
    lost = 0
    for _ in range(KILLS):
        before, known = paid(ledger), set(stored(output))
        process = context.Process(target=run, args=(output, ledger, ROWS, 5e-4))
        process.start()
        wait_for(process, ledger, len(before) + moments.randrange(25))
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == -9, "it ended before it was killed"
        new = paid(ledger)[len(before) :]
        assert known.isdisjoint(new), "paid again for what was stored"
        missing = set(new) - set(stored(output))
        assert len(missing) <= IN_FLIGHT
        lost += len(missing)
    assert lost > 0  # some kills came between being paid and being stored

    run(output, ledger)
    assert not list(tmp_path.glob("*annotations*"))
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(record["index"] for record in records) == list(range(300))
    everything = stored(output)
    assert len(everything) == len(set(everything)) == 300 + 100 + 3 * 300
    assert len(paid(ledger)) == len(everything) + lost
    with RecordStore(output) as store:
        assert store.spent == sum([COST] * len(everything), Usage())


def wait_for(process, ledger, count):
    """Until so much has been paid for (or the run is over)."""
    while process.is_alive() and ledger.read_bytes().count(b"\n") < count:
        time.sleep(5e-4)
