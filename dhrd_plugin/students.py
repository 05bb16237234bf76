"""Which students `--model dhrd` answers from: one, or a folder of them over one backbone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dhrd_plugin.checkpoint import CONFIG_FILE, StudentConfig, TaskHead, read_student_config
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.evaluated import pooled_twin

DEFAULT_STUDENT = "dhrd-student"  # where `dhrd-distill` writes by default


@dataclass(frozen=True)
class Student:
    folder: Path
    config: StudentConfig


@dataclass(frozen=True)
class Students:
    """Students that share one backbone, no two with a head for the same task."""

    members: tuple[Student, ...]

    @cached_property
    def heads(self) -> dict[str, TaskHead]:
        return {task: head for s in self.members for task, head in s.config.tasks.items()}

    @property
    def where(self) -> str:
        """The tasks at hand, for messages."""
        return ", ".join(f"{', '.join(s.config.tasks)} (in {s.folder})" for s in self.members)

    def owner(self, task: str) -> int:
        """Index of the student with a head for `task`."""
        return next(i for i, s in enumerate(self.members) if task in s.config.tasks)

    def speaker(self, task: str) -> int:
        """Index of the student whose reasoning head answers `task` in words.

        One student answers any such task. Of several, it is the one with a head for the task whose
        questions are asked: `copa_cot` is answered by the student of `copa`.

        Raises:
            DHRDError: several students, and none of that task.
        """
        if len(self.members) == 1:
            return 0
        twin, _ = pooled_twin(task)
        if twin not in self.heads:
            raise DHRDError(
                f"Task {task} is answered in words, and no student here is trained on {twin}. "
                f"There are: {self.where}. Name one of these folders with pretrained=FOLDER."
            )
        return self.owner(twin)


def find_students(pretrained: str | None) -> Students:
    """The student in the folder `pretrained` (else $DHRD_STUDENT, else ./dhrd-student), or those in
    the folders inside it, as `dhrd-distill --per-task` writes them.

    Raises:
        DHRDError: none there, or students that cannot answer together.
    """
    folder = _folder(pretrained)
    inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}"))
    if (folder / CONFIG_FILE).is_file() or not inside:
        _refuse_deeper_students(folder)
        return Students((Student(folder, read_student_config(folder)),))
    members = tuple(Student(path, read_student_config(path)) for path in inside)
    _check_one_trunk(folder, members)
    _check_tasks_differ(folder, members)
    return Students(members)


def _folder(pretrained: str | None) -> Path:
    named = pretrained or os.environ.get("DHRD_STUDENT")
    folder = Path(named or DEFAULT_STUDENT).expanduser()
    if named is None and not folder.is_dir():
        raise DHRDError(
            f"No student named: there is no ./{DEFAULT_STUDENT}, $DHRD_STUDENT is not set and "
            "--model_args has no pretrained=FOLDER. Make one with\n"
            "  dhrd-teach --teacher hf:smollm2 && dhrd-distill\n"
            "or name a folder that `dhrd-distill --output FOLDER` wrote."
        )
    return folder


def _refuse_deeper_students(folder: Path) -> None:
    """Name what `dhrd-distill --per-task --seeds N` wrote: FOLDER/task/seed-0."""
    deeper = sorted(str(path.parent) for path in folder.glob(f"*/*/{CONFIG_FILE}"))
    if deeper and not (folder / CONFIG_FILE).is_file():
        raise DHRDError(
            f"{folder} holds students two folders down: {', '.join(deeper)}. Name one of them, or "
            "make a folder with one student per task (links will do)."
        )


def _check_one_trunk(folder: Path, members: Sequence[Student]) -> None:
    """Adapters are exchanged on one backbone, which is loaded once."""
    whole = [s.folder.name for s in members if not s.config.adapter]
    if whole and len(members) > 1:
        raise DHRDError(
            f"{folder}: {', '.join(whole)} trained with --full, whose weights are a backbone of "
            "their own. Several students are scored together only as adapters on one backbone: "
            f"score these alone, with pretrained={folder / whole[0]}."
        )
    for what in ("base_model", "dtype", "quantized"):
        values = {s.folder.name: getattr(s.config, what) for s in members}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{name}: {value}" for name, value in values.items())
            raise DHRDError(
                f"{folder}: its students differ in {what} ({listed}), so that they cannot share "
                "one backbone. Score them one by one, with pretrained=FOLDER of a single student."
            )


def _check_tasks_differ(folder: Path, members: Sequence[Student]) -> None:
    owner: dict[str, Student] = {}
    for student in members:
        for task in student.config.tasks:
            other = owner.setdefault(task, student)
            if other is not student:
                raise DHRDError(
                    f"{folder}: both {other.folder.name} and {student.folder.name} have a head for "
                    f"task {task}. Name one of them, as pretrained={other.folder}, or make a "
                    "folder with one student per task (links will do)."
                )
