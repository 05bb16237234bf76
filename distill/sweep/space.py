"""What is searched: values of settings, given as a list or as a range."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

SWEPT = ("alpha", "beta", "kd_temperature", "lr")  # settings that can be searched

Params = dict[str, Any]  # a number for each of some of them


@dataclass(frozen=True)
class Range:
    """All values from `low` to `high`; their logarithms are equally likely unless `low` is 0."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g}"

    @property
    def log(self) -> bool:
        return self.low > 0


Space = Mapping[str, tuple[float, ...] | Range]


def parse_values(text: str) -> tuple[float, ...] | Range:
    """`0,0.1,1` is a list, `1e-4:2e-3` a range.

    Raises:
        argparse.ArgumentTypeError: neither, a value twice, or a range without length.
    """
    numbers = [_number(part, text) for part in text.replace(":", ",").split(",")]
    if ":" not in text:
        if len(set(numbers)) < len(numbers):
            raise argparse.ArgumentTypeError(f"{text}: a value is named twice.")
        return tuple(numbers)
    if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1]:
        raise argparse.ArgumentTypeError(f"{text}: a range is LOW:HIGH, with 0 ≤ LOW < HIGH.")
    return Range(*numbers)


def _number(part: str, text: str) -> float:
    try:
        number = float(part)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(
            f"{text}: {part.strip()!r} is no number. Give values like 0.1,0.3,1, or a range like "
            "1e-4:2e-3."
        )
    return number


def describe(space: Space) -> dict[str, str]:
    """Each setting's values as they are typed."""
    return {
        name: str(values) if isinstance(values, Range) else ",".join(f"{v:g}" for v in values)
        for name, values in space.items()
    }


def searched(space: Space) -> list[str]:
    """The settings with more than one value."""
    return [name for name, values in space.items() if isinstance(values, Range) or len(values) > 1]


def corners(space: Space) -> Iterator[Params]:
    """All combinations of listed values and ends of ranges."""
    ends = [(v.low, v.high) if isinstance(v, Range) else v for v in space.values()]
    return (dict(zip(space, combination, strict=True)) for combination in product(*ends))


def text_of(params: Params) -> str:
    """As flags: `--alpha 0.1 --lr 0.001`."""
    return " ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in params.items())
