"""The formats to export to: what each of their modules offers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from dhrd_plugin.checkpoint import StudentConfig, TaskHead
    from distill.export.classifier import TaskClassifier

FORMATS = {
    "seqcls": "distill.export.seqcls",
    "onnx": "distill.export.onnx_graph",
    "decision": "distill.export.decision",
}


class Format(Protocol):
    """A module that writes one format and reads it back through the door that its users take.

    Attributes:
        CUTS_LONG_INPUTS: whether the written model itself cuts inputs to the student's length.
    """

    CUTS_LONG_INPUTS: bool

    @staticmethod
    def check(student: StudentConfig, head: TaskHead, dtype: str) -> None:
        """Refuse what cannot be written, before any weights are loaded."""

    @staticmethod
    def write(folder: Path, classifier: TaskClassifier) -> None:
        """Fill `folder`, which is there and empty."""

    @staticmethod
    def logits(folder: Path, texts: Sequence[str]) -> list[list[float]]:
        """Every output for each text, up to a constant per text, as read from `folder`."""

    @staticmethod
    def usage(classifier: TaskClassifier) -> str:
        """How to ask the written model, in Markdown."""


def load_format(name: str) -> Format:
    return cast(Format, importlib.import_module(FORMATS[name]))
