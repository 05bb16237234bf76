"""A whole run of both passes with a scripted teacher, which keeps a ledger of what it is paid for.

Run as a script, it is one process of a run:
`python scripted_run.py OUTPUT LEDGER ROWS PAUSE "ROW ATTEMPT-OR-VIEW TO FAIL AT"`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import islice
from pathlib import Path

from made_decisions import GOOD, ScriptedTeacher, label_decision, one_split, prediction, reply

from teachers.annotate import annotate
from teachers.budget import Usage
from teachers.generate import made_from, teach
from teachers.output.processes import Processes
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

ROWS = [label_decision(i) for i in range(300)]
PROMPTS = load_prompts()
LADDER = [PROMPTS.blind, PROMPTS.hinted]
IN_FLIGHT = 4
COST = Usage(10, 1, cost=0.25)  # of every request; sums are exact


class PaidTeacher(ScriptedTeacher):
    """Answers four requests at a time, and writes each into the ledger when it is paid for.

    Blind, it is wrong about every third row.
    """

    def __init__(self, ledger: Path, pause: float, fail_at: str = ""):
        super().__init__()
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._pause = pause
        self._fail_at = fail_at

    def explain(self, requests):
        while batch := list(islice(requests, IN_FLIGHT)):
            for request in batch:
                self._pay(request.decision.id, str(request.attempt))
            for request in batch:
                wrong = request.prompt.origin == "blind" and request.decision.index % 3 == 0
                answer = "False" if wrong else "True"
                yield request, reply(GOOD, answer, usage=COST)

    def predict(self, questions):
        while batch := list(islice(questions, IN_FLIGHT)):
            for question in batch:
                self._pay(question.decision.id, question.prompt.view)
            for question in batch:
                yield question, prediction(0.5, 0.25, 0.25, usage=COST)

    def _pay(self, row: str, what: str) -> None:
        time.sleep(self._pause)
        if f"{row} {what}" == self._fail_at:
            raise RuntimeError("the model broke down")
        os.write(self._ledger, f"{row} {what}\n".encode())


def run(output: Path, ledger: Path, rows=ROWS, pause: float = 0.0, fail_at: str = "") -> None:
    """Teach and annotate, as one of the processes of the environment."""
    processes = Processes.of_environment()
    teacher = PaidTeacher(ledger, pause, fail_at)
    with RecordStore(output, processes=processes) as store:
        store.claim("made/train", made_from(one_split(ROWS), teacher, "ladder", LADDER))
        own = processes.share(rows)
        for _ in teach(own, teacher, store, prompts=LADDER, max_attempts=1):
            pass
        for _ in annotate(
            own,
            teacher,
            store,
            prompts=PROMPTS.judge,
            prompts_sha=PROMPTS.judge_sha,
            soft_labels=True,
            verify=True,
            votes=1,
        ):
            pass


def paid(ledger: Path) -> list[tuple[str, str]]:
    """(row, attempt or view) of everything in a ledger."""
    return [tuple(line.split()) for line in ledger.read_text().splitlines()]


def stored(output: Path) -> list[tuple[str, str]]:
    """The same of everything on disk, torn last lines left out."""
    found = []
    for path in output.parent.glob(f"{output.stem}*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found += _stored(json.loads(line))
    return found


def _stored(line: dict) -> list[tuple[str, str]]:
    if "view" in line:  # an answer that is not merged yet
        return [(line["id"], line["view"])]
    if "id" not in line:  # a torn line
        return []
    views = (line["judge"] or {}).get("views", {})
    answered = [(line["id"], view) for view, answer in views.items() if answer]
    return [(line["id"], str(line["attempts"])), *answered]


if __name__ == "__main__":
    output, ledger, n_rows, pause, fail_at = sys.argv[1:]
    ledger += os.environ.get("RANK", "")  # each process is paid on its own account
    run(Path(output), Path(ledger), ROWS[: int(n_rows)], float(pause), fail_at)
