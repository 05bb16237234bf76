"""Read the `train_log.jsonl` of training runs: a line per optimizer step."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.inputs import find_files, split_argument


@dataclass(frozen=True)
class TrainLog:
    """One training run.

    Attributes:
        name: of its setting; the seeds of one setting share it.
        steps: numbers of the optimizer steps.
        losses: by term ("loss_cls", "loss_reason", …) a value in nats per step, 0 where it is not
            logged.
        dev: (step, score on the dev rows), where they were looked at.
    """

    name: str
    path: Path
    steps: Sequence[int]
    losses: Mapping[str, Sequence[float]]
    dev: Sequence[tuple[int, float]]


def load_train_logs(arguments: Sequence[str]) -> list[TrainLog]:
    """The logs in files or folders, each given as `PATH` or `NAME=PATH`, in that order.

    All logs of one NAME are its seeds. Without one, a log is named after its folder, and after the
    one above that for `seed-0`, … as `dhrd-distill --seeds` calls them.

    Raises:
        DHRDError: a path that is not there or holds no log, or files that cannot be read.
    """
    logs: dict[Path, TrainLog] = {}
    for argument in arguments:
        name, path = split_argument(argument, "a train_log.jsonl or a student's folder")
        for file in find_files(
            path, "train_log.jsonl", "Give the folder that `dhrd-distill --output` wrote to."
        ):
            logs.setdefault(file.resolve(), _load(file, name or _setting(file)))
    return list(logs.values())


def _setting(file: Path) -> str:
    folder = file.resolve().parent
    return folder.parent.name if re.fullmatch(r"seed-\d+", folder.name) else folder.name


def _load(path: Path, name: str) -> TrainLog:
    steps: list[int] = []
    losses: list[dict[str, float]] = []
    dev: list[tuple[int, float]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DHRDError(f"{path}: cannot be read ({error}).") from None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            steps.append(int(entry["step"]))
            losses.append({k: float(v) for k, v in entry.items() if k.startswith("loss_")})
            if "dev" in entry:
                dev.append((steps[-1], float(entry["dev"]["score"])))
        except (ValueError, KeyError, TypeError) as error:
            raise DHRDError(
                f"{path}:{number}: not a step as dhrd-distill logs it ({type(error).__name__}: "
                f"{error}). Run the `dhrd-distill` command that wrote it again."
            ) from None
    if not steps:
        raise DHRDError(f"{path} is empty: no step has been trained yet.")
    terms = dict.fromkeys(term for step in losses for term in step)
    by_term = {term: [step.get(term, 0.0) for step in losses] for term in terms}
    return TrainLog(name, path, steps, by_term, dev)
