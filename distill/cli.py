"""`dhrd-distill`: train a dual-head student."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from dhrd_plugin import __version__
from dhrd_plugin.errors import EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.quiet import quiet_libraries
from distill.config import DistillConfig
from distill.flags import add_flags, to_config


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-distill",
        description="Train a dual-head student: L = beta * L_cls + alpha * L_reason, plus "
        "gamma * T^2 * KL with soft targets. Run again with the same --output, it continues where "
        "it stopped.",
        usage="%(prog)s [--task T[,T…]] [--rationales F[,F…]] [--output DIR] [options]\n"
        "       %(prog)s sweep --alpha X,X[,…] [options]    search for the best settings\n"
        "       %(prog)s export DIR --to FORMAT [options]   a student for other programs",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dhrd {__version__}")
    add_flags(parser)
    group = parser.add_argument_group("several students")
    group.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="a student per seed, N from --seed on"
    )
    group.add_argument(
        "--per-task", action="store_true", help="a student per task instead of a joint one"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, show; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["sweep"]:
        from distill.sweep.cli import main as sweep

        return sweep(argv[1:])
    if argv[:1] == ["export"]:
        from distill.export.cli import main as export

        return export(argv[1:])
    arguments = vars(build_parser().parse_args(argv))
    seeds, per_task = arguments.pop("seeds"), arguments.pop("per_task")
    quiet_libraries()
    try:
        return _run(to_config(arguments), seeds=seeds, per_task=per_task)
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
