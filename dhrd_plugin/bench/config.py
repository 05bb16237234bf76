"""All settings of a run of `dhrd-bench`, checked where they meet."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.benches import KINDS, Kind

Engine = Literal["hf", "vllm", "openai"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
# What the harness's own model classes import, and where it comes from.
NEEDED = {
    "hf": ((), ""),
    "vllm": (("vllm",), "pip install 'lm-eval[vllm]'"),
    "openai": (("aiohttp", "requests", "tenacity"), "pip install 'lm-eval[api]'"),
}


@dataclass(frozen=True)
class BenchConfig:
    """Settings of one run.

    Attributes:
        student: its folder; None for $DHRD_STUDENT, else ./dhrd-student.
        task: harness task that it has a head for; None for its only one.
        limit: the first documents only; None for all that the harness scores.
        include_path: folder of the user's own task YAML files.
        output: a .json file, or a folder for `bench_<date>.json`.
        sides: what is measured, in this order.
        batch_sizes: rows per forward to choose from, for each side.
        repeats: timed runs over all documents.
        device: "cuda", "cpu", …; None for what there is.
        price_per_hour: US dollars for the machine, None for no cost.
        engine: what decodes the chain of thought.
        base_url, model: of the server with engine "openai": its address up to /v1, its model.
        cot_max_new_tokens: tokens per chain of thought at most.
        cot_limit: the first documents only; None for as many as the largest batch size.
        cot_repeats: timed runs over these.
    """

    student: str | None = None
    task: str | None = None
    limit: int | None = None
    include_path: str | None = None
    output: Path = Path()
    sides: tuple[Kind, ...] = KINDS
    batch_sizes: tuple[int, ...] = (1, 4, 16, 64)
    repeats: int = 5
    device: str | None = None
    price_per_hour: float | None = None
    engine: Engine = "hf"
    base_url: str | None = None
    model: str | None = None
    cot_max_new_tokens: int = 500
    cot_limit: int | None = None
    cot_repeats: int = 3

    def __post_init__(self) -> None:
        counts = ("limit", "repeats", "cot_max_new_tokens", "cot_limit", "cot_repeats")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DHRDError(f"{_flag(name)} {value}: need a whole number of at least 1.")
        if min(self.batch_sizes, default=0) < 1:
            given = " ".join(map(str, self.batch_sizes))
            raise DHRDError(f"--batch-sizes {given}: need whole numbers of at least 1.")
        if self.price_per_hour is not None and not self.price_per_hour >= 0:
            raise DHRDError(f"--price-per-hour {self.price_per_hour}: need US dollars, at least 0.")
        self._check_engine()

    def _check_engine(self) -> None:
        served = {"base_url": self.base_url, "model": self.model}
        if self.engine == "openai":
            for name, value in served.items():
                if not value:
                    raise DHRDError(
                        f"--engine openai needs {_flag(name)}: the server of the backbone, as in "
                        "--base-url http://localhost:8000/v1 --model NAME."
                    )
        elif any(served.values()):
            raise DHRDError("--base-url and --model are for --engine openai only.")
        if "cot" not in self.sides and self.engine != "hf":
            raise DHRDError(f"--engine {self.engine} runs the side cot, which --sides leaves out.")
        packages, command = NEEDED[self.engine]
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise DHRDError(f"--engine {self.engine} needs {', '.join(missing)}: {command}")

    def documents(self, kind: Kind, available: int) -> int:
        """How many documents that side answers."""
        if kind != "cot":
            return available
        return min(self.cot_limit or max(self.batch_sizes), available)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
