"""All settings of a run of `dhrd-teach`, checked where they meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dhrd_plugin.errors import DHRDError
from teachers.budget import Budget, Prices
from teachers.output.files import check_name
from teachers.prompts import Prompt, Prompts

MODES = {"hinted": ("hinted",), "blind": ("blind",), "ladder": ("blind", "hinted")}
DEFAULT_MODE = "hinted"  # the paper's
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_VOTES = 5

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("4bit", "8bit")

# Smallest and largest values of the numbers, where they are given.
_BOUNDS: dict[str, tuple[float, float]] = {
    "max_attempts": (1, math.inf),
    "limit": (1, math.inf),
    "votes": (1, math.inf),
    "concurrency": (1, math.inf),
    "temperature": (0, math.inf),
    "top_p": (0, 1),
    "max_new_tokens": (1, math.inf),
    "timeout": (0, math.inf),
    "max_retries": (0, math.inf),
    "rpm": (0, math.inf),
    "tpm": (0, math.inf),
    "price_in": (0, math.inf),
    "price_out": (0, math.inf),
    "max_cost": (0, math.inf),
    "max_tokens": (1, math.inf),
    "batch_tokens": (1, math.inf),
}
_ABOVE_ZERO = ("top_p", "timeout", "rpm", "tpm")

# Settings that are the adapters' business: a factory takes those it has a use for.
TEACHER_FLAGS = (
    "base_url",
    "concurrency",
    "seed",
    "temperature",
    "top_p",
    "max_new_tokens",
    "timeout",
    "max_retries",
    "rpm",
    "tpm",
    "batch_tokens",
    "device_map",
    "dtype",
    "quantize",
)


@dataclass(frozen=True)
class TeachConfig:
    """Settings of one run; None is "not given", and the adapter's own default holds.

    Attributes:
        teacher: who writes the rationales, as "prefix:model".
        tasks: harness task names.
        split: whose rows are explained.
        output: where records are appended.
        mode: "hinted" (gold shown), "blind" (not shown; kept if its answer is gold) or "ladder"
            (blind first, hinted for the rest); None for hinted.
        max_attempts: rationales to try per row and prompt; None for the default of 3.
        limit: only the first rows of each split.
        prompts: TOML file laid over our own wording.
        examples: rationales shown as worked examples, a JSONL file.
        soft_labels: store the judge's distribution over the choices, given the row alone.
        votes: samples per distribution where the judge gives no probabilities; None for 5.
        verify: ask the judge for the label from input and rationale, and from the rationale alone.
        judge: who is asked for soft labels and verification; None for the teacher.
        base_url: server, up to /v1.
        concurrency: requests in flight at most.
        seed: of sampling.
        temperature, top_p: of sampling.
        max_new_tokens: tokens per reply at most.
        timeout: seconds until a request counts as lost.
        max_retries: further sends of a request after passing errors.
        rpm, tpm: requests and tokens per minute at most.
        price_in, price_out: US dollars per million prompt and completion tokens.
        max_cost: US dollars that the output file may cost, earlier runs included.
        max_tokens: tokens that the output file may cost, earlier runs included.
        batch_tokens: padded tokens per batch of a local model, new ones included.
        device_map, dtype: handed to `from_pretrained`.
        quantize: precision that a local model's weights are held in.
        dry_run: only say what would be asked and what it would cost.
        log_json: progress as JSON lines on stderr.
        new: keep what is in `output` under another name and start afresh.
        include_path: folder of the user's own task YAML files.
    """

    teacher: str
    tasks: tuple[str, ...] = ("scenes",)
    split: str = "train"
    output: Path = Path("rationales.jsonl")
    mode: str | None = None
    max_attempts: int | None = None
    limit: int | None = None
    prompts: Path | None = None
    examples: Path | None = None
    soft_labels: bool = False
    votes: int | None = None
    verify: bool = False
    judge: str | None = None
    base_url: str | None = None
    concurrency: int | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    batch_tokens: int | None = None
    device_map: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    dry_run: bool = False
    log_json: bool = False
    new: bool = False
    include_path: str | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise DHRDError("--task is empty: name one or more harness tasks, separated by commas.")
        check_name(self.output)
        if self.judge is not None and not self.annotates:
            raise DHRDError("--judge: of no use without --soft-labels or --verify.")
        if self.votes is not None and not self.annotates:
            raise DHRDError("--votes: of no use without --soft-labels or --verify.")
        if (self.price_in is None) != (self.price_out is None):
            raise DHRDError(
                "--price-in and --price-out belong together: US dollars per million prompt and "
                "completion tokens."
            )
        if self.max_cost is not None and self.prices is None:
            raise DHRDError("--max-cost needs --price-in and --price-out, to know what it costs.")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None:
                continue
            flag, above = f"--{name.replace('_', '-')}", name in _ABOVE_ZERO
            if value == math.inf:
                raise DHRDError(f"{flag} inf: leave it out for no limit.")
            if not (least < value if above else least <= value) or not value <= most:
                needed = f"{'above' if above else 'from'} {least:g}"
                needed += f" and at most {most:g}" if most < math.inf else ""
                raise DHRDError(f"{flag} {value:g}: need a number {needed}.")

    @property
    def mode_name(self) -> str:
        """The mode, ours where none was given."""
        return self.mode or DEFAULT_MODE

    def asked(self, prompts: Prompts) -> list[Prompt]:
        """The mode's prompts, in the order in which they are tried on a row."""
        return [getattr(prompts, origin) for origin in MODES[self.mode_name]]

    @property
    def annotates(self) -> bool:
        """Whether there is a second pass."""
        return self.soft_labels or self.verify

    @property
    def prices(self) -> Prices | None:
        if self.price_in is None or self.price_out is None:
            return None
        return Prices(prompt=self.price_in, completion=self.price_out)

    @property
    def vote_count(self) -> int:
        """Samples per distribution, ours where it was not given."""
        return self.votes or DEFAULT_VOTES

    @property
    def limits(self) -> list[str]:
        """The given flags that limit what is sent, which one process alone can keep to."""
        names = ("concurrency", "rpm", "tpm", "max_cost", "max_tokens")
        given = [name for name in names if getattr(self, name) is not None]
        return [f"--{name.replace('_', '-')}" for name in given]

    def budget(self) -> Budget | None:
        """A fresh account with the limits; None without any."""
        if self.max_cost is None and self.max_tokens is None:
            return None
        return Budget(max_cost=self.max_cost, max_tokens=self.max_tokens)

    def teacher_flags(self) -> dict[str, Any]:
        """What is handed to the adapters, None for what was not given."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in TEACHER_FLAGS}
