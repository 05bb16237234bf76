"""The output of `dhrd-teach`: append-only, resumable, one run at a time (files: `output.files`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dhrd_plugin.errors import DHRDError
from teachers.budget import Usage
from teachers.output.files import OutputFiles, check_name
from teachers.output.jsonl import Appender, explained, replaced
from teachers.output.merging import show_types_first, types_of
from teachers.output.processes import Processes
from teachers.records import decision_id, read_lines

HEAD = 100  # records at the front of the file that show the types of all


class RecordStore:
    """Open rationale files for one run.

    Opening makes good what a killed run left behind: a torn line is moved to the rejected file,
    parts and answers are merged. Use as a context manager.

    Attributes:
        path, rejected_path: the two JSONL files.
        kept: ids of the rows that have a record.
        spent: what all of it used, rejected attempts and failed requests included.
        unpriced: that part of it whose cost is not known.
    """

    def __init__(
        self, path: str | Path, *, new: bool = False, processes: Processes | None = None
    ) -> None:
        """Open `path` for appending; `new` keeps what is there under another name first.

        Args:
            processes: those of the run. Each of them opens the store, and writes files of its own
                until `merge`; without it, there is only this one.

        Raises:
            DHRDError: a name that is no `F.jsonl`, a folder that cannot be written, another writer,
                or unreadable lines.
        """
        self._files = files = OutputFiles(Path(path))
        self.path, self.rejected_path = files.records, files.rejected
        check_name(self.path)
        self._processes = processes or Processes()
        own = files.part(self._processes.rank)
        self._records = Appender(own.records)
        self._rejected = Appender(own.rejected)
        self._answers = Appender(own.answers)
        self._appenders = (self._records, self._rejected, self._answers)
        with ExitStack() as stack, explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(files.open_lock())
            if self._processes.is_main:
                files.lock(lock)
                if new:
                    files.move_aside()
                files.make_good()
            files.lock_together(lock, self._processes)
            self._read()
            self._processes.wait()  # nobody writes before everybody has read
            self._stack = stack.pop_all()

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._stack:
            self._close_appenders()
            if self._processes.world == 1:  # of several, some may be gone: the next run does it
                self._files.make_good()
                self._show_types_first()

    def claim(self, key: str, made_from: Mapping[str, Any]) -> None:
        """Note what the records of a split ("task/split"), or the answers of the "judge", are made
        from, or compare with what was noted.

        Raises:
            DHRDError: there are some that were made from something else.
        """
        known = self._meta.get(key)
        if key in self._begun and known is None:
            raise DHRDError(
                f"{self.path} was begun for {key}, but {self._files.meta.name} does not say "
                "with which settings. Name another --output, or start afresh with --new."
            )
        changes = [f"  {line}\n" for line in _differences(known or made_from, made_from)]
        if key in self._begun and changes:
            raise DHRDError(
                f"{self.path} was begun with other settings for {key}:\n{''.join(changes)}"
                "Use the old settings, name another --output, or start afresh with --new (the old "
                "file is kept under another name)."
            )
        self._meta[key] = dict(made_from)
        if self._processes.is_main:
            with replaced(self._files.meta) as file:
                file.write(json.dumps(self._meta, indent=2, ensure_ascii=False) + "\n")

    def keep(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        self._records.write(record)
        self._count_kept(record)

    def reject(self, attempt: Mapping[str, Any]) -> None:
        """Append a rejected attempt, or a request that failed."""
        self._rejected.write(attempt)
        self._count_rejected(attempt)

    def answer(self, answer: Mapping[str, Any]) -> None:
        """Append an answer of the second pass, for `merge` to put into its record."""
        self._answers.write(answer)
        self._spend(answer["usage"])

    def sync(self) -> None:
        """On return, all that was appended is on the disk."""
        for appender in self._appenders:
            appender.sync()

    def merge(self, *, soft_labels: bool = False) -> None:
        """Bring together what all processes have written, answers in their records.

        Every process must call it, at the same point; what they know is the same afterwards.

        Args:
            soft_labels: see `merging.merge_answers`.
        """
        self._close_appenders()
        self._processes.wait()
        changed = self._processes.is_main and self._files.make_good(soft_labels=soft_labels)
        self._processes.wait()
        if changed or not self._processes.is_main:
            self._read()
        self._show_types_first()

    def attempts(self, decision_id: str, origin: str) -> int:
        """How many attempts of a row with a prompt were rejected; failed requests are none."""
        return self._attempts[decision_id, origin]

    def was_rejected(self, decision_id: str, rationale: str) -> bool:
        """Whether this very rationale was rejected for the row before."""
        return (decision_id, hash(rationale)) in self._rejected_texts

    def records(self) -> Iterator[dict[str, Any]]:
        """The kept records, one by one from the disk."""
        return (record for _, record in read_lines(self.path))

    def _read(self) -> None:
        """Take in what is on disk; nothing else is known afterwards."""
        self.kept: set[str] = set()
        self.spent = self.unpriced = Usage()
        self._begun: set[str] = set()  # what there are records, attempts or answers of
        self._attempts: Counter[tuple[str, str]] = Counter()  # rejected ones by row and origin
        self._rejected_texts: set[tuple[str, int]] = set()  # (row, hash of the rationale)
        self._types: set[tuple[str, type]] = set()  # of what the records hold
        self._late: set[str] = set()  # records far down that are the first to show a type
        for number, record in read_lines(self.path):
            record["id"] = decision_id(record, f"{self.path}:{number}")
            self._count_kept(record)
        for _, attempt in read_lines(self.rejected_path):
            self._count_rejected(attempt)
        try:
            self._meta = json.loads(self._files.meta.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._meta = {}
        except ValueError as error:
            raise DHRDError(
                f"{self._files.meta} is not valid JSON ({error}). It says how {self.path.name} was "
                "made: restore it, or start afresh with --new."
            ) from None

    def _count_kept(self, record: Mapping[str, Any]) -> None:
        self.kept.add(record["id"])
        self._begun.add(record["id"].rpartition("/")[0])
        self._spend(record.get("usage"))
        if judge := record.get("judge"):
            self._begun.add("judge")
            self._spend(judge["usage"])
        unseen = types_of(record) - self._types
        self._types |= unseen
        if unseen and len(self.kept) > HEAD:
            self._late.add(record["id"])

    def _count_rejected(self, attempt: Mapping[str, Any]) -> None:
        self._spend(attempt.get("usage"))
        if "id" in attempt and attempt.get("reason") != "failed":
            self._begun.add(attempt["id"].rpartition("/")[0])
            self._attempts[attempt["id"], attempt.get("origin", "")] += 1
            self._rejected_texts.add((attempt["id"], hash(attempt.get("rationale", ""))))

    def _spend(self, stored: Mapping[str, Any] | None) -> None:
        usage = Usage.of(stored)
        self.spent += usage
        if usage.cost is None:
            self.unpriced += usage

    def _show_types_first(self) -> None:
        if self._late and self._processes.is_main:
            show_types_first(self.path, self._late)
            self._late.clear()

    def _close_appenders(self) -> None:
        for appender in self._appenders:
            appender.close()


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`field: was X, now Y` for every field that differs, nested ones with dots; one that is null
    may as well be missing (an older sidecar's)."""
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            noted = f"was {was!r}" if key in old else "was not noted"
            yield f"{prefix}{key}: {noted}, now {now!r}"
