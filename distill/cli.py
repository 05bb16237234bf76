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
from distill.controls import CONTROLS
from distill.sampling import SAMPLINGS
from distill.schedules import ALPHA_SCHEDULES

# Where a field of the settings is called otherwise than its flag.
FIELD_OF_FLAG = {"task": "tasks", "tracker": "trackers"}


def build_parser() -> argparse.ArgumentParser:
    defaults = DistillConfig()
    parser = argparse.ArgumentParser(
        prog="dhrd-distill",
        description="Train a dual-head student: L = beta * L_cls + alpha * L_reason, plus "
        "gamma * T^2 * KL with soft targets. Run again with the same --output, it continues where "
        "it stopped.",
        usage="%(prog)s [--task T[,T…]] [--rationales F[,F…]] [--output DIR] [options]",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dhrd {__version__}")
    group: argparse._ArgumentGroup

    def add(flag: str, help: str, **kwargs: Any) -> None:
        name = flag.lstrip("-").replace("-", "_")
        default = getattr(defaults, FIELD_OF_FLAG.get(name, name))
        if not (default is None or default is False or default == ()):
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            help += f" (default: {shown})"
        group.add_argument(flag, default=default, help=help, **kwargs)

    group = parser.add_argument_group("what to train")
    add("--task", type=_names, metavar="T[,T…]", help="harness tasks, a head each")
    add(
        "--rationales",
        type=_paths,
        metavar="F[,F…]",
        help="JSONL files of rationales; not needed with --alpha 0",
    )
    add("--backbone", metavar="MODEL", help="hub id, folder or smollm2")
    add("--output", type=Path, metavar="DIR", help="folder of the student")
    add("--seed", type=int, metavar="N", help="of heads, dropout, data order and dev rows")
    group.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="a student per seed, N from --seed on"
    )
    group.add_argument(
        "--per-task", action="store_true", help="a student per task instead of a joint one"
    )
    add("--resume", action="store_true", help="say that continuing is meant; otherwise implied")
    add("--include-path", metavar="DIR", help="folder of your own task YAML files")

    group = parser.add_argument_group("objective")
    add(
        "--alpha",
        type=float,
        metavar="X",
        help="weight of the reasoning loss; 0: pooled baseline; default: 0.1 below a billion "
        "parameters, else 1",
    )
    add("--beta", type=float, metavar="X", help="weight of the classification loss")
    add("--alpha-schedule", choices=ALPHA_SCHEDULES, help="how alpha goes to --alpha-end")
    add("--alpha-end", type=float, metavar="X", help="alpha at the end, if it is scheduled")
    add(
        "--lm-span",
        choices=["full", "rationale"],
        help="tokens that the reasoning head learns; full: the input's, too (paper)",
    )
    add("--control", choices=CONTROLS, help="train on rationales spoilt like this: do they matter?")
    add("--kd-temperature", type=float, metavar="T", help="learn soft targets, at this temperature")
    add(
        "--kd-weight",
        type=float,
        metavar="X",
        help="gamma, their weight on top of T^2; label targets are a mean over all rows",
    )
    add(
        "--kd-target",
        choices=["label", "token", "both"],
        help="label: the records' label_probs; token: --kd-teacher's next-token distributions; "
        "default: what there is",
    )
    add("--kd-teacher", metavar="MODEL", help="local model of the backbone's vocabulary")
    add(
        "--kd-divergence",
        choices=["forward", "reverse", "jsd"],
        help="between token distributions: KL either way, or Jensen-Shannon",
    )

    group = parser.add_argument_group("model")
    add("--head", choices=["mlp", "linear"], help="classification head")
    add("--full", action="store_true", help="train all weights instead of a LoRA adapter")
    add("--qlora", action="store_true", help="hold the backbone in 4 bits (bitsandbytes)")
    add("--lora-target", type=_names, metavar="NAME[,…]", help="modules that get an adapter")
    add("--lora-dropout", type=float, metavar="X", help="dropout on the adapters' inputs")
    add("--gradient-checkpointing", action="store_true", help="less memory, more time")
    add(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="computing precision; float16 needs a GPU",
    )
    add("--max-length", type=int, metavar="N", help="tokens per row; rationales are cut first")

    group = parser.add_argument_group("training")
    add("--epochs", type=int, metavar="N", help="passes over the training rows")
    add("--max-steps", type=int, metavar="N", help="optimizer steps at most")
    add("--batch-size", type=int, metavar="N", help="questions per forward and process")
    add("--grad-accum", type=int, metavar="N", help="forwards per optimizer step")
    add(
        "--task-sampling",
        choices=SAMPLINGS,
        help="how often each task's rows are drawn; proportional: every row once an epoch",
    )
    add(
        "--sampling-temperature",
        type=float,
        metavar="T",
        help="of --task-sampling temperature: by size^(1/T)",
    )
    add("--group-by-length", action="store_true", help="rows of like length in a step: faster")
    add(
        "--lr",
        type=float,
        metavar="X",
        help="peak learning rate; default: 1e-3 below a billion parameters, else 2e-4",
    )
    add("--warmup-steps", type=int, metavar="N", help="optimizer steps of linear warm-up")
    add("--weight-decay", type=float, metavar="X", help="AdamW's")
    add("--max-grad-norm", type=float, metavar="X", help="gradient norm clipped to")

    group = parser.add_argument_group("checkpoints and logs")
    add(
        "--dev-rows",
        type=int,
        metavar="N",
        help="training rows kept back per task to choose the checkpoint; default: a tenth, ≤ 200",
    )
    add("--eval-steps", type=int, metavar="N", help="steps between dev results; default: an epoch")
    add("--patience", type=int, metavar="N", help="stop after N dev results without a better one")
    add("--save-steps", type=int, metavar="N", help="steps between checkpoints; default: an epoch")
    add("--loss-trace", action="store_true", help="log each loss's gradient norm in the trunk")
    add(
        "--tracker",
        type=_names,
        metavar="NAME[,…]",
        help="also log to tensorboard, wandb, trackio …",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, show; returns the exit code."""
    arguments = vars(build_parser().parse_args(argv))
    for flag, field in FIELD_OF_FLAG.items():
        arguments[field] = arguments.pop(flag)
    seeds, per_task = arguments.pop("seeds"), arguments.pop("per_task")
    no_reasoning = arguments["alpha"] == 0 and arguments["kd_temperature"] is None
    if no_reasoning and arguments["rationales"] == DistillConfig.rationales:
        arguments["rationales"] = ()
    quiet_libraries()
    try:
        return _run(DistillConfig(**arguments), seeds=seeds, per_task=per_task)
    except DHRDError as error:
        print(f"dhrd-distill: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "dhrd-distill: interrupted; the same command continues from the last checkpoint.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED


def _run(config: DistillConfig, *, seeds: int, per_task: bool) -> int:
    from rich.console import Console

    from distill.display import TrainingDisplay, summary_table
    from distill.many import expand, summarise, write_summary

    is_first = os.environ.get("RANK", "0") == "0"  # of several processes (`accelerate launch`)
    console = Console(stderr=True, quiet=not is_first)
    runs = expand(config, seeds=seeds, per_task=per_task)
    students = []
    for run in runs:
        with TrainingDisplay(run.output, console) as display:
            from distill.train import train

            students.append((run, train(run, report=display.update)))
        display.summary(students[-1][1])
    if len(runs) > 1:
        summaries = summarise(students)
        console.print(summary_table(summaries))
        if is_first:
            write_summary(config.output, summaries)
    return EXIT_OK


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(name) for name in _names(text))
