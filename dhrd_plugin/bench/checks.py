"""What can be refused before anything heavy is loaded: the student, the task, server and output."""

from __future__ import annotations

import os
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from dhrd_plugin.bench.config import BenchConfig
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.students import Student, find_students

REACH_TIMEOUT = 10  # seconds


def chosen(config: BenchConfig) -> tuple[Student, str]:
    """The student to measure and its task, of several students the one with a head for it.

    Raises:
        DHRDError: no student, or no head for the task; several heads and no task named; a student
            that the engine cannot run.
    """
    students = find_students(config.student)
    task = config.task
    if task is None and len(students.heads) == 1:
        task = next(iter(students.heads))
    if task not in students.heads:
        which = "which task is measured?" if task is None else f"no head for task {task!r}."
        raise DHRDError(f"--task: {which} There are heads for {students.where}.")
    student = students.members[students.owner(task)]
    if config.engine == "vllm" and student.config.quantized:
        raise DHRDError(
            f"--engine vllm needs merged weights, and the adapter in {student.folder} is for a "
            "backbone in 4 bits, with which it cannot be merged. Use --engine hf."
        )
    return student, task


def check_reachable(base_url: str) -> None:
    """Whether anything answers there, be it with an error.

    Raises:
        DHRDError: nothing does.
    """
    url = f"{base_url.rstrip('/')}/models"
    try:
        urlopen(url, timeout=REACH_TIMEOUT).close()
    except HTTPError:
        return
    except (OSError, ValueError, HTTPException) as error:  # the last: not HTTP, no such port
        raise DHRDError(
            f"--base-url {base_url}: no server answers at {url} ({str(error).strip()}). Start it "
            "first; the address goes up to /v1, as in http://localhost:8000/v1."
        ) from None


def output_file(output: Path, date: float) -> Path:
    """Where the bench goes: `output` itself if it is a .json file, else `bench_<date>.json` in it.

    Raises:
        DHRDError: the folder cannot be made or written to.
    """
    stamp = datetime.fromtimestamp(date).strftime("%Y-%m-%dT%H-%M-%S.%f")
    path = output if output.suffix == ".json" else output / f"bench_{stamp}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DHRDError(f"--output {output}: cannot be made ({error.strerror}).") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise DHRDError(f"--output {output}: cannot be written. Name a folder or a .json file.")
    return path
