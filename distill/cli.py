"""`dhrd-distill`: train a dual-head student."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhrd_plugin import __version__
from dhrd_plugin.errors import EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.quiet import quiet_libraries
from distill.config import DistillConfig


def build_parser() -> argparse.ArgumentParser:
    defaults = DistillConfig()
    parser = argparse.ArgumentParser(
        prog="dhrd-distill",
        description="Train a dual-head student: L = beta * L_cls + alpha * L_reason. "
        "Run again with the same --output, it continues where it stopped.",
        usage="%(prog)s [--task T[,T…]] [--rationales F[,F…]] [--output DIR] [options]",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dhrd {__version__}")

    def add(flag: str, **kwargs: Any) -> None:
        name = flag.lstrip("-").replace("-", "_")
        default = getattr(defaults, {"task": "tasks"}.get(name, name))
        parser.add_argument(flag, default=default, **kwargs)

    add("--task", type=_names, metavar="T[,T…]", help="harness tasks, a head each")
    add(
        "--rationales",
        type=_paths,
        metavar="F[,F…]",
        help="JSONL files of rationales; not needed with --alpha 0",
    )
    add("--backbone", metavar="MODEL", help="hub id, folder or smollm2")
    add("--output", type=Path, metavar="DIR", help="folder of the student")
    add("--alpha", type=float, metavar="X", help="weight of the reasoning loss; 0: pooled baseline")
    add("--beta", type=float, metavar="X", help="weight of the classification loss")
    add("--head", choices=["mlp", "linear"], help="classification head")
    add("--full", action="store_true", help="train all weights instead of a LoRA adapter")
    add("--lora-dropout", type=float, metavar="X", help="dropout on the adapters' inputs")
    add("--epochs", type=int, metavar="N", help="passes over the training rows")
    add("--max-steps", type=int, metavar="N", help="optimizer steps at most")
    add("--batch-size", type=int, metavar="N", help="questions per forward and process")
    add("--grad-accum", type=int, metavar="N", help="forwards per optimizer step")
    add(
        "--lr",
        type=float,
        metavar="X",
        help="peak learning rate; default: 1e-3 below a billion parameters, else 2e-4",
    )
    add("--warmup-steps", type=int, metavar="N", help="optimizer steps of linear warm-up")
    add("--weight-decay", type=float, metavar="X", help="AdamW's")
    add("--max-grad-norm", type=float, metavar="X", help="gradient norm clipped to")
    add("--dtype", choices=["auto", "float32", "bfloat16"], help="computing precision")
    add("--max-length", type=int, metavar="N", help="tokens per row; rationales are cut first")
    add(
        "--dev-rows",
        type=int,
        metavar="N",
        help="training rows kept back per task to choose the checkpoint; default: a tenth, ≤ 200",
    )
    add("--save-steps", type=int, metavar="N", help="steps between checkpoints; default: an epoch")
    add("--seed", type=int, metavar="N", help="of heads, dropout, data order and dev rows")
    add("--resume", action="store_true", help="say that continuing is meant; otherwise implied")
    add("--include-path", metavar="DIR", help="folder of your own task YAML files")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, show; returns the exit code."""
    arguments = vars(build_parser().parse_args(argv))
    arguments["tasks"] = arguments.pop("task")
    if arguments["alpha"] == 0 and arguments["rationales"] == DistillConfig.rationales:
        arguments["rationales"] = ()
    quiet_libraries()
    try:
        return _run(DistillConfig(**arguments))
    except DHRDError as error:
        print(f"dhrd-distill: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "dhrd-distill: interrupted; the same command continues from the last checkpoint.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED


def _run(config: DistillConfig) -> int:
    from rich.console import Console

    from distill.display import TrainingDisplay

    # Of several processes (`accelerate launch`) only the first one shows anything.
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
    with TrainingDisplay(config, console) as display:
        from distill.train import train

        student = train(config, report=display.update)
    display.summary(student)
    return EXIT_OK


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(name) for name in _names(text))
