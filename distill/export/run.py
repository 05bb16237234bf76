"""One export: refuse, load, write under another name, read back, compare, rename."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from distill.export.card import write_card
from distill.export.classifier import chosen_task, load_classifier
from distill.export.formats import load_format
from distill.export.parity import (
    Comparison,
    choice_log_probs,
    compare,
    first_rows,
    require_equal,
)


def export(
    student: Path,
    to: str,
    *,
    output: Path,
    task: str | None = None,
    calibrated: bool = False,
    dtype: str = "float32",
    tolerance: float = 1e-3,
    include_path: str | None = None,
) -> Comparison:
    """Write `student`'s head for `task` into the new folder `output`, equal to it or not at all.

    Args:
        to: one of `distill.export.formats.FORMATS`.
        calibrated: fold the temperature fitted in training into the head.
        dtype: precision of the weights and of computing with them.
        tolerance: largest difference in a probability that is still equal.

    Raises:
        DHRDError: a student that does not fit the format, an occupied output, a task that cannot be
            loaded, or an exported model that answers otherwise than the student.
    """
    config = read_student_config(student)
    task, head = chosen_task(config, task, student)
    _refuse_occupied(output)
    if config.quantized:
        raise DHRDError(
            f"{student} was trained on a backbone in 4 bits, into which its adapter cannot be "
            "merged exactly. Train it without --qlora to export it."
        )
    format = load_format(to)
    format.check(config, head, dtype)
    rows = first_rows(task, head, include_path)
    classifier, log_probs = load_classifier(student, task, rows, dtype=dtype, calibrated=calibrated)
    answered = [format.CUTS_LONG_INPUTS or _fits(row, classifier.tokenizer) for row in rows]
    rows, log_probs = list(compress(rows, answered)), list(compress(log_probs, answered))
    if not rows:
        raise DHRDError(
            f"Task {task}: its first {len(answered)} inputs are longer than the "
            f"{config.max_length} tokens that the student reads, and --to {to} cannot cut them. "
            "Use --to seqcls or onnx."
        )
    usage = format.usage(classifier)
    with _whole_or_not_at_all(output) as folder:
        with _writable(output):
            format.write(folder, classifier)
        del classifier  # the exported model is loaded next
        logits = format.logits(folder, [text for row in rows for text in row.inputs])
        comparison = compare(rows, log_probs, list(choice_log_probs(rows, logits)))
        require_equal(comparison, tolerance, dtype)
        write_card(
            folder,
            config,
            task=task,
            dtype=dtype,
            calibrated=calibrated,
            comparison=comparison,
            usage=usage,
        )
    return replace(comparison, too_long=answered.count(False))


def _refuse_occupied(output: Path) -> None:
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise DHRDError(
            f"--output {output}: there is something already. Name a new or an empty folder."
        )


def _fits(row: Decision, tokenizer: Any) -> bool:
    lengths = [len(tokenizer(text).input_ids) for text in row.inputs]
    return max(lengths) <= tokenizer.model_max_length


@contextmanager
def _whole_or_not_at_all(output: Path) -> Iterator[Path]:
    """A folder beside `output` that gets its name at the end, or goes with what is in it."""
    output = output.resolve()
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
    try:
        with _writable(output):
            staging.mkdir(parents=True)
        yield staging
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _writable(output: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DHRDError(
            f"Cannot write {output}: {str(error).splitlines()[0]}\nNothing was kept.",
            exit_code=EXIT_FAILED,
        ) from error
