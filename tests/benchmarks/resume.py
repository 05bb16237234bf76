"""Seconds and memory from opening a large output of `dhrd-teach` to its first new request.

`make` writes a file of made records (about 1.3 kB each), with `--answers` also three answers for
each of a second pass that was killed before it could merge them. `measure` resumes it as the
command does: opens the store, claims the split, asks for the rows that are missing. Memory is the
peak above what the rows take, as Linux counts it.

    export PYTHONPATH=tests
    python tests/benchmarks/resume.py make F.jsonl [--rows N] [--answers]
    python tests/benchmarks/resume.py measure F.jsonl [--rows N]
"""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path

from made_decisions import ScriptedTeacher, label_decision, one_split, prediction, reply

from teachers.annotate import annotate
from teachers.generate import made_from, teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

MISSING = 100  # rows without a record
RATIONALE = "The streets shine and drops run down the window of the house. " * 12
PROMPTS = load_prompts()
HINTED = {"prompts": [PROMPTS.hinted], "max_attempts": 1}
VERIFY = {"prompts": PROMPTS.judge, "prompts_sha": PROMPTS.judge_sha, "verify": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("make", "measure"))
    parser.add_argument("path", type=Path, metavar="F.jsonl")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--answers", action="store_true")
    args = parser.parse_args()
    rows = [label_decision(i) for i in range(args.rows + MISSING)]
    if args.action == "make":
        make(args.path, rows, answers=args.answers)
    else:
        measure(args.path, rows)


def make(path, rows, *, answers: bool) -> None:
    teacher = ScriptedTeacher(
        lambda request: reply(RATIONALE), predict=lambda question: prediction(0.5, 0.25, 0.25)
    )
    with RecordStore(path, new=True) as store:
        store.sync = lambda: None  # it would take minutes
        store.claim("made/train", made_from(one_split(rows), teacher, "hinted", [PROMPTS.hinted]))
        for _ in teach(rows[:-MISSING], teacher, store, **HINTED):
            pass
        if answers:
            left = 3 * (len(rows) - MISSING)
            for _ in annotate(rows, teacher, store, soft_labels=True, votes=1, **VERIFY):
                left -= 1
                if left == 0:
                    os._exit(0)  # as kill -9 does
    print(f"{path}: {path.stat().st_size / 2**20:.0f} MiB")


def measure(path, rows) -> None:
    class Asked(ScriptedTeacher):
        def explain(self, requests):
            next(requests)
            memory = megabytes("VmHWM") - before
            print(f"first request after {time.perf_counter() - started:.2f} s, {memory:.0f} MiB")
            os._exit(0)  # the file stays as it is

    teacher = Asked()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = megabytes("VmRSS")
    started = time.perf_counter()
    with RecordStore(path) as store:
        store.claim("made/train", made_from(one_split(rows), teacher, "hinted", [PROMPTS.hinted]))
        next(teach(rows, teacher, store, **HINTED))


def megabytes(field: str) -> float:
    """A field of this process's status, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
