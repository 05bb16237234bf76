"""JSON-lines files on disk: appended to, mended after a power cut, or replaced whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import jsonlines

from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, DHRDError

SYNC_INTERVAL = 1.0  # seconds after which a new line takes those before it to the disk


class Appender:
    """Appends lines to a file, which comes to be with the first.

    A written line survives the end of this process; one that was synced survives a power cut, too.
    Lines that come together may share a sync: it is what takes the time (milliseconds).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: jsonlines.Writer | None = None
        self._unsynced = False
        self._synced_at = time.monotonic()

    def write(self, line: Mapping[str, Any]) -> None:
        with explained(self.path, exit_code=EXIT_FAILED):
            if self._lines is None:
                self._file = self.path.open("a", encoding="utf-8")
                self._lines = jsonlines.Writer(self._file, flush=True)
            self._lines.write(line)
            self._unsynced = True
            if time.monotonic() - self._synced_at > SYNC_INTERVAL:
                self.sync()

    def sync(self) -> None:
        """Force what was written onto the disk."""
        if self._unsynced:
            with explained(self.path, exit_code=EXIT_FAILED):
                os.fsync(self._file.fileno())
            self._unsynced = False
            self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync and let go of the file; the next line opens it again."""
        if self._lines is not None:
            self.sync()
            with explained(self.path, exit_code=EXIT_FAILED):  # a full disk shows here once more
                self._file.close()
            self._lines = None


def replace_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file anew, see `replaced`; `lines` may be read from the file itself."""
    with replaced(path) as file:
        jsonlines.Writer(file).write_all(lines)


@contextmanager
def replaced(path: Path, exit_code: int = EXIT_FAILED) -> Iterator[TextIO]:
    """A file to be written in full, which takes the place of `path` when the context ends.

    Killed at any moment, `path` is there as it was, or as it is to be. Of a symbolic link, what it
    points to is replaced.

    Raises:
        DHRDError: it cannot be written, or is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise DHRDError(f"Cannot write {path}: no regular file.", exit_code=exit_code)
    staging = target.with_name(f"{target.name}.tmp")
    with explained(path, exit_code=exit_code):
        try:
            with staging.open("w", encoding="utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, staging)
            staging.replace(target)
        except BaseException:
            staging.unlink(missing_ok=True)  # a full disk has no room for it
            raise


def cut_torn_line(path: Path, log: Path) -> None:
    """Move a last line that is not whole to the end of `log`, which may be the same file.

    A last line that only lacks its line end gets it. No file, no torn line.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        last = b""
        for line in file:
            last = line
        if not last or last.endswith(b"\n"):
            return
        try:
            json.loads(last)
        except ValueError:
            start = file.tell() - len(last)
        else:
            file.write(b"\n")
            return
    torn = {"reason": "torn line", "text": last.decode("utf-8", errors="backslashreplace")}
    if path == log:
        os.truncate(path, start)
    note = Appender(log)
    note.write(torn)
    note.close()
    if path != log:  # noted before it is cut off, so that no second power cut can lose it
        os.truncate(path, start)


@contextmanager
def explained(path: Path, exit_code: int = EXIT_BAD_INPUT) -> Iterator[None]:
    """Turn an operating system's error into a message naming the file."""
    try:
        yield
    except OSError as error:
        raise DHRDError(
            f"Cannot write {error.filename or path}: {error.strerror or error}. Free the disk or "
            "name another --output; everything written so far is kept.",
            exit_code=exit_code,
        ) from None
