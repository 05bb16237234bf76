"""What the trials of a sweep came to, on disk as `sweep.json`."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.significance import smallest_difference
from distill.state import check_same_settings, writable
from distill.sweep.space import Params

SWEEP_FILE = "sweep.json"
SCHEMA = "dhrd.sweep/1"
NLL_WEIGHT = 1e-6  # scores that differ, differ by more


@dataclass(frozen=True)
class Trial:
    """One combination and its students, one for each seed.

    Attributes:
        number: its students lie in `trial-<number>`.
        params: the values of the searched settings.
        score, nll: means over the students of their best checkpoint's dev score and of its
            -log p(gold) in nats; None of a failed trial.
        half_width: of the score, ± a 95% t-interval over seeds; None for one seed.
        scores, nlls: of each student.
        tokens: trained on, over all students.
        wall_seconds: time in training.
        failure: why there is no result.
    """

    number: int
    params: Params
    score: float | None = None
    nll: float | None = None
    half_width: float | None = None
    scores: list[float] = field(default_factory=list)
    nlls: list[float] = field(default_factory=list)
    tokens: int = 0
    wall_seconds: float = 0.0
    failure: str | None = None

    @property
    def value(self) -> float:
        """What is maximised: the score, with the likelihood deciding between equal ones; NaN of a
        failed trial.
        """
        if self.score is None or self.nll is None:
            return math.nan
        return self.score - NLL_WEIGHT * self.nll / (1 + self.nll)


class Sweep:
    """The trials in `folder`, in the order in which they were made.

    Args:
        settings: what all trials have in common, and what is searched.
        independent_rows: dev rows of a seed, as `distill.sweep.study.independent_rows` counts them.
        write: whether this process keeps `sweep.json`; one of several does.

    Raises:
        DHRDError: the folder holds a sweep with other settings, or files of other origin.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        independent_rows: int,
        write: bool = True,
    ) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self.independent_rows = independent_rows
        self.smallest_difference = smallest_difference(independent_rows)
        self.trials: list[Trial] = []
        self._write = write
        self._path = folder / SWEEP_FILE
        self._staging = folder / f"{SWEEP_FILE}.partial"
        # Of several processes the writing one may be ahead: its file is none of other origin.
        ours = {self._path, self._staging}
        if self._path.is_file():
            saved, self.trials = _read(self._path)
            check_same_settings(folder, saved, settings)
        elif folder.is_dir() and set(folder.iterdir()) - ours:
            raise DHRDError(
                f"--output {folder}: the folder holds other files, and no sweep. Name a new or an "
                "empty folder."
            )
        else:
            self._save()

    def find(self, params: Params) -> Trial | None:
        """The trial of that combination."""
        return next((trial for trial in self.trials if trial.params == params), None)

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)
        self._save()

    @property
    def ranked(self) -> list[Trial]:
        """Best first, failed ones last."""
        return sorted(self.trials, key=lambda t: (t.failure is not None, -t.value))

    @property
    def best(self) -> Trial | None:
        """None while there is no result."""
        return next((trial for trial in self.ranked if trial.failure is None), None)

    def _save(self) -> None:
        """Whole or not at all."""
        if not self._write:
            return
        content = {
            "schema": SCHEMA,
            "settings": self.settings,
            "independent_dev_rows": self.independent_rows,
            "smallest_difference": self.smallest_difference,
            "best": self.best and self.best.number,
            "trials": [asdict(trial) for trial in self.trials],
        }
        with writable(self._path):
            with self._staging.open("w", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._staging.replace(self._path)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it for one sweep alone until that has ended or was killed.

    Raises:
        DHRDError: another sweep holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DHRDError(
            f"--output {folder}: cannot write there ({error.strerror}). Name another folder."
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DHRDError(
                f"--output {folder}: another sweep is at work there. Wait for it to end, or name "
                "another folder."
            ) from None
        except OSError:  # a file system that locks no folders, such as NFS
            pass
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> tuple[dict[str, Any], list[Trial]]:
    """(settings, trials)."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        schema = saved["schema"]
        if schema == SCHEMA:
            return dict(saved["settings"]), [Trial(**trial) for trial in saved["trials"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DHRDError(
            f"{path} cannot be read as the results of a sweep ({type(error).__name__}: {error}). "
            "Name another --output."
        ) from None
    raise DHRDError(f"{path}: schema is {schema!r}, this version reads {SCHEMA!r}.")
