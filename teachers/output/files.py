"""The files of an output of `dhrd-teach`: their names, the lock, and what is done to all of them.

Beside `F.jsonl` (the records) lie `F.rejected.jsonl` (rejected attempts, with the reason),
`F.jsonl.meta.json` (what the records were made from) and `F.jsonl.lock`; while a run goes on, also
`F.annotations.jsonl` (answers of the second pass that are not in their records yet) and, of every
further process, the three JSONL files under `F.rank1` and so on.
"""

from __future__ import annotations

import fcntl
import os
import re
from itertools import count
from pathlib import Path
from typing import IO

from dhrd_plugin.errors import DHRDError
from teachers.output.jsonl import cut_torn_line
from teachers.output.merging import absorb, merge_answers
from teachers.output.processes import Processes


def check_name(path: Path) -> None:
    """Refuse names that would share files with others: r.v1 and r.v2 an r.rejected.jsonl.

    Raises:
        DHRDError: a folder, or a name that does not end in .jsonl.
    """
    if path.suffix != ".jsonl":
        raise DHRDError(f"--output {path}: need a file whose name ends in .jsonl.")


class OutputFiles:
    """Names of and steps on the files of one output.

    Attributes:
        records, rejected, answers: the JSONL files.
        meta: the sidecar.
    """

    def __init__(self, path: Path) -> None:
        """Of a symbolic link, the files lie beside what it points to, for whoever names them."""
        path = Path(os.path.realpath(path)) if path.is_symlink() else path
        self.records = path
        self.rejected = path.with_name(f"{path.stem}.rejected.jsonl")
        self.answers = path.with_name(f"{path.stem}.annotations.jsonl")
        self.meta = path.with_name(f"{path.name}.meta.json")

    def part(self, rank: int) -> OutputFiles:
        """The files that process `rank` writes; the main process (0) writes these themselves."""
        path = self.records
        return OutputFiles(path.with_name(f"{path.stem}.rank{rank}{path.suffix}")) if rank else self

    def parts(self) -> dict[Path, Path]:
        """The parts that are there, of this run or of a killed one: where each belongs."""
        name = re.compile(rf"({re.escape(self.records.stem)})\.rank\d+(\..+)")
        found = {}
        for path in sorted(self.records.parent.iterdir()):
            match = name.fullmatch(path.name)
            whole = path.with_name(match[1] + match[2]) if match else None
            if whole in (self.records, self.rejected, self.answers):
                found[path] = whole
        return found

    def unmerged(self) -> list[Path]:
        """Answers and parts that are not in the records and rejected attempts yet."""
        return [path for path in (self.answers, *self.parts()) if path.exists()]

    def make_good(self, *, soft_labels: bool = False) -> bool:
        """Mend torn lines, take in parts and answers; whether there were any.

        Args:
            soft_labels: see `merging.merge_answers`.
        """
        parts = self.parts()
        for path in (self.records, self.rejected, *parts.values()):
            path.open("a").close()  # now it is there
        for path in (self.rejected, self.records, self.answers):
            cut_torn_line(path, self.rejected)
        for part, whole in parts.items():
            absorb(part, whole, self.rejected)
        answered = self.answers.exists()
        if answered or soft_labels:
            merge_answers(self.records, self.answers, soft_labels=soft_labels)
        return bool(parts) or answered or soft_labels

    def move_aside(self) -> None:
        """Rename what is there to `F.1.jsonl` and so on, with the first number that is free."""
        stem = self.records.stem
        # What could be mistaken for something of the new file comes first.
        usual = (self.rejected, self.records, self.meta)
        there = [path for path in (*self.unmerged(), *usual) if path.exists()]
        for number in count(1):
            renamed = [p.with_name(f"{stem}.{number}{p.name.removeprefix(stem)}") for p in there]
            if not any(path.exists() for path in renamed):
                break
        for old, new in zip(there, renamed, strict=True):
            old.rename(new)

    def open_lock(self) -> IO[str]:
        """The file to `lock`; it stays when the run has ended."""
        return self.records.with_name(f"{self.records.name}.lock").open("a")

    def lock(self, file: IO[str]) -> None:
        """Hold the lock for this run alone, until the file is closed or the process killed.

        Raises:
            DHRDError: another run holds it.
        """
        self._flock(file, fcntl.LOCK_EX)

    def lock_together(self, file: IO[str], processes: Processes) -> None:
        """Have all processes hold the lock: no other run begins before the last has ended."""
        if processes.world == 1:
            return
        if processes.is_main:
            self._flock(file, fcntl.LOCK_SH)
        processes.wait()
        if not processes.is_main:
            self._flock(file, fcntl.LOCK_SH)

    def _flock(self, file: IO[str], kind: int) -> None:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DHRDError(
                f"{self.records} is being written by another dhrd-teach. Wait for it to end, or "
                "name another --output."
            ) from None
