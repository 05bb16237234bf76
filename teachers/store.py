"""The output of `dhrd-teach` on disk: append-only, resumable, one writer at a time.

Beside `F.jsonl` lie `F.rejected.jsonl` (every rejected attempt, with its reason),
`F.jsonl.meta.json` (what each split was made from) and `F.jsonl.lock`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

import jsonlines

from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, DHRDError
from teachers.records import decision_id, read_lines


class RecordStore:
    """Open rationale files for one writer.

    Opening repairs a line torn by a power cut (it is moved to the rejected file) and reads what is
    there. Use as a context manager.

    Attributes:
        path, rejected_path: the two JSONL files.
        kept: ids of the rows that have a record.
        rejected: the rationales of each row's rejected attempts (failed requests are none).
    """

    def __init__(self, path: str | Path, *, new: bool = False) -> None:
        """Open `path` for appending; `new` keeps what is there under another name first.

        Raises:
            DHRDError: a folder that cannot be written, another writer, or unreadable lines.
        """
        self.path = Path(path)
        self.rejected_path = self.path.with_name(f"{self.path.stem}.rejected.jsonl")
        self.meta_path = self.path.with_name(f"{self.path.name}.meta.json")
        self.kept: set[str] = set()
        self.rejected: dict[str, list[str]] = defaultdict(list)
        with ExitStack() as stack:
            with _explained(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock(stack)
                if new:
                    self._move_aside()
                self._kept_file = stack.enter_context(self.path.open("a", encoding="utf-8"))
                self._rejected_file = stack.enter_context(
                    self.rejected_path.open("a", encoding="utf-8")
                )
                self._repair()
            self._read()
            self._stack = stack.pop_all()

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def claim(self, split_id: str, made_from: Mapping[str, Any]) -> None:
        """Note what `split_id` ("task/split") is made from, or compare with what was noted.

        Raises:
            DHRDError: rows of this split are there that were made from something else.
        """
        known = self._meta.get(split_id)
        begun = {key.rpartition("/")[0] for key in (*self.kept, *self.rejected)}
        if split_id in begun and known != made_from:
            if known is None:
                raise DHRDError(
                    f"{self.path} has rows of {split_id}, but {self.meta_path.name} does not say "
                    "how they were made. Name another --output, or start afresh with --new."
                )
            changes = "\n".join(f"  {line}" for line in _differences(known, made_from))
            raise DHRDError(
                f"{self.path} was begun with other settings for {split_id}:\n{changes}\n"
                "Use the old settings, name another --output, or start afresh with --new (the old "
                "file is kept under another name)."
            )
        self._meta[split_id] = dict(made_from)
        text = json.dumps(self._meta, indent=2, ensure_ascii=False) + "\n"
        with _explained(self.meta_path):
            staging = self.meta_path.with_name(f"{self.meta_path.name}.tmp")
            staging.write_text(text, encoding="utf-8")
            staging.replace(self.meta_path)  # whole or not at all

    def keep(self, record: Mapping[str, Any]) -> None:
        """Append a record; on return it is on disk."""
        with _explained(self.path, exit_code=EXIT_FAILED):
            _append(self._kept_file, record)
        self.kept.add(record["id"])

    def reject(self, attempt: Mapping[str, Any]) -> None:
        """Append a rejected attempt; on return it is on disk."""
        with _explained(self.rejected_path, exit_code=EXIT_FAILED):
            _append(self._rejected_file, attempt)
        self._count(attempt)

    def _count(self, attempt: Mapping[str, Any]) -> None:
        if "id" in attempt and attempt.get("reason") != "failed":
            self.rejected[attempt["id"]].append(attempt.get("rationale", ""))

    def _read(self) -> None:
        for number, record in read_lines(self.path):
            self.kept.add(decision_id(record, f"{self.path}:{number}"))
        for _, attempt in read_lines(self.rejected_path):
            self._count(attempt)
        try:
            self._meta = json.loads(self.meta_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._meta = {}
        except ValueError as error:
            raise DHRDError(
                f"{self.meta_path} is not valid JSON ({error}). It says how {self.path.name} was "
                "made: restore it, or start afresh with --new."
            ) from None

    def _repair(self) -> None:
        """Move a torn last line of either file to the end of the rejected file."""
        start, text = _torn_line(self.rejected_path)
        if text:
            os.truncate(self.rejected_path, start)
            _append(self._rejected_file, {"reason": "torn line", "text": text})
        start, text = _torn_line(self.path)
        if text:  # noted before it is cut off, so that no second power cut can lose it
            _append(self._rejected_file, {"reason": "torn line", "text": text})
            os.truncate(self.path, start)

    def _lock(self, stack: ExitStack) -> None:
        """Hold `F.jsonl.lock` until closed (or killed); the empty file itself stays."""
        lock = stack.enter_context(self.path.with_name(f"{self.path.name}.lock").open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DHRDError(
                f"{self.path} is being written by another dhrd-teach. Wait for it to end, or name "
                "another --output."
            ) from None

    def _move_aside(self) -> None:
        """Rename what is there to `F.1.jsonl` and so on, with the first number that is free."""
        stem = self.path.stem
        there = [p for p in (self.path, self.rejected_path, self.meta_path) if p.exists()]
        for number in count(1):
            renamed = [p.with_name(f"{stem}.{number}{p.name.removeprefix(stem)}") for p in there]
            if not any(p.exists() for p in renamed):
                break
        for old, new in zip(there, renamed, strict=True):
            old.rename(new)


def _append(file: IO[str], line: Mapping[str, Any]) -> None:
    jsonlines.Writer(file).write(line)
    file.flush()
    os.fsync(file.fileno())


def _torn_line(path: Path) -> tuple[int, str]:
    """(start in bytes, text) of a last line that is not whole; the text is "" if there is none.

    A last line that only lacks its line end gets it.
    """
    with path.open("rb+") as file:
        last = b""
        for line in file:
            last = line
        if not last or last.endswith(b"\n"):
            return 0, ""
        try:
            json.loads(last)
        except ValueError:
            return file.tell() - len(last), last.decode("utf-8", errors="backslashreplace")
        file.write(b"\n")
        return 0, ""


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`field: was X, now Y` for every field that differs, nested ones with dots."""
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key}: was {was!r}, now {now!r}"


@contextmanager
def _explained(path: Path, exit_code: int = EXIT_BAD_INPUT) -> Iterator[None]:
    """Turn an operating system's error into a message naming the file."""
    try:
        yield
    except OSError as error:
        raise DHRDError(
            f"Cannot write {error.filename or path}: {error.strerror or error}. Free the disk or "
            "name another --output; everything written so far is kept.",
            exit_code=exit_code,
        ) from None
