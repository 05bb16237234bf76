"""Which files the arguments of `dhrd-report` name."""

from __future__ import annotations

import os
from pathlib import Path

from dhrd_plugin.errors import DHRDError


def split_argument(argument: str, wanted: str) -> tuple[str | None, Path]:
    """`PATH` or `NAME=PATH` as (name, path).

    Both names (`DHRD α=1`) and paths may hold "=": the first cut that leaves a path counts.

    Args:
        wanted: what to give, for the error.

    Raises:
        DHRDError: no such path.
    """
    if os.path.exists(argument):  # unlike Path.exists, also of names that no file can have
        return None, Path(argument)
    for cut, char in enumerate(argument):
        if char == "=" and cut and os.path.exists(argument[cut + 1 :]):
            return argument[:cut], Path(argument[cut + 1 :])
    raise DHRDError(f"{argument}: no such file or folder. Give {wanted}, as PATH or NAME=PATH.")


def find_files(path: Path, pattern: str, how: str) -> list[Path]:
    """`path` if it is a file, else what fits `pattern` in that folder or below.

    Args:
        how: the way to get such a file, for the error.

    Raises:
        DHRDError: none found.
    """
    if path.is_file():
        return [path]
    files = sorted(path.rglob(pattern))
    if not files:
        raise DHRDError(f"{path}: no {pattern} in a folder of that name or below. {how}")
    return files
