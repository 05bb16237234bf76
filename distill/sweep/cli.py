"""`dhrd-distill sweep`: search for the settings whose students do best on the dev rows."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhrd_plugin.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.quiet import quiet_libraries
from distill.config import DistillConfig
from distill.flags import add_flags, to_config
from distill.sweep.search import SAMPLERS, TPE_TRIALS, most_combinations
from distill.sweep.space import SWEPT, Range, Space, corners, parse_values, searched, text_of

if TYPE_CHECKING:
    from rich.console import Console

    from dhrd_plugin.checkpoint import StudentConfig
    from distill.sweep.trials import Sweep


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-distill sweep",
        usage="%(prog)s [--alpha VALUES] [--beta VALUES] [--lr VALUES] [--kd-temperature VALUES]\n"
        "       [--output DIR] [options]",
        description="Train students with several values of alpha, beta, the temperature of soft "
        "targets or the learning rate, and judge them on the dev rows. VALUES are a list (0,0.1,1) "
        "or, for --sampler tpe, a range: 1e-4:2e-3 is searched on a logarithmic scale, 0:1 on a "
        "linear one.",
        epilog="The flags of all other groups are those of dhrd-distill, the same for every "
        "student. A trial is a combination of values; what counts is the dev score that chose its "
        "checkpoint (the mean over seeds) and, if that is equal, -log p. Trials lie in "
        "DIR/trial-0, …, their results in DIR/sweep.json. Run again with the same --output, a "
        "sweep continues where it stopped; with more --trials, it goes on.",
        allow_abbrev=False,
    )
    group = parser.add_argument_group("search")
    for name, meaning in (
        ("alpha", "weights of the reasoning loss"),
        ("beta", "weights of the classification loss"),
        ("kd-temperature", "temperatures of soft targets"),
        ("lr", "peak learning rates"),
    ):
        group.add_argument(f"--{name}", type=parse_values, metavar="VALUES", help=meaning)
    group.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default="grid",
        help="every combination of lists, or Optuna's TPE (default: %(default)s)",
    )
    group.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help=f"combinations at most (default: all of a grid, {TPE_TRIALS} with tpe)",
    )
    group.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="students per combination (default: 1)"
    )
    group.add_argument(
        "--output",
        type=Path,
        default=Path("dhrd-sweep"),
        metavar="DIR",
        help="folder of the trials (default: %(default)s)",
    )
    group.add_argument(
        "--train-best",
        action="store_true",
        help="train the best trial's combination once more, in DIR/best-TRIAL, with the next seed, "
        "whose dev score took no part in the choice",
    )
    own = {f"--{name.replace('_', '-')}" for name in SWEPT} | {"--output"}
    add_flags(parser, leave_out=own)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, search, show; returns the exit code."""
    arguments = vars(build_parser().parse_args(argv))
    space = {name: values for name in SWEPT if (values := arguments.pop(name)) is not None}
    own = {name: arguments.pop(name) for name in ("sampler", "trials", "seeds", "train_best")}
    quiet_libraries()
    try:
        _check(space, sampler=own["sampler"], trials=own["trials"], seeds=own["seeds"])
        return _run(_settings(arguments, space), space, **own)
    except DHRDError as error:
        print(f"dhrd-distill sweep: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "dhrd-distill sweep: interrupted; the same command continues from the last checkpoint.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED


def _check(space: Space, *, sampler: str, trials: int | None, seeds: int) -> None:
    if not searched(space):
        raise DHRDError(
            "There is nothing to search: every setting has one value. Give several, such as "
            "--alpha 0,0.1,1 --lr 5e-4,1e-3."
        )
    for name, values in space.items():
        if sampler == "grid" and isinstance(values, Range):
            raise DHRDError(
                f"--{name.replace('_', '-')} {values} is a range, which --sampler grid cannot go "
                f"through. List values ({values.low:g},…,{values.high:g}), or give --sampler tpe."
            )
    for flag, number in (("--trials", trials), ("--seeds", seeds)):
        if number is not None and number < 1:
            raise DHRDError(f"{flag} {number}: need a whole number of at least 1.")


def _settings(arguments: dict[str, Any], space: Space) -> DistillConfig:
    """The settings of a student with the largest values, once those of all others are checked."""
    largest = {n: v.high if isinstance(v, Range) else max(v) for n, v in space.items()}
    defaults = {name: getattr(DistillConfig, name) for name in SWEPT}
    config = to_config(arguments | defaults | largest)
    for params in corners(space):
        replace(config, **params)
    return config


def _run(
    config: DistillConfig,
    space: Space,
    *,
    sampler: str,
    trials: int | None,
    seeds: int,
    train_best: bool,
) -> int:
    from accelerate.utils.memory import clear_device_cache
    from rich.console import Console

    from distill.display import TrainingDisplay
    from distill.sweep.display import failures, outcome, results_table, worth
    from distill.sweep.study import run_sweep
    from distill.train import train

    is_first = os.environ.get("RANK", "0") == "0"  # of several processes (`accelerate launch`)
    console = Console(stderr=True, quiet=not is_first, highlight=False, markup=False)

    def train_one(run: DistillConfig) -> StudentConfig:
        clear_device_cache(garbage_collection=True)  # of what the last student, or failure, left
        params = {name: getattr(run, name) for name in space}
        console.print(f"{run.output}: {text_of(params)} --seed {run.seed}", soft_wrap=True)
        with TrainingDisplay(run.output, console) as display:
            return train(run, report=display.update)

    combinations = most_combinations(space, sampler=sampler, trials=trials)
    console.print(
        f"At most {combinations * seeds:,} students in all: combinations {combinations:,}, "
        f"seeds {seeds}.",
        soft_wrap=True,
    )
    sweep = run_sweep(
        config,
        space,
        seeds=seeds,
        sampler=sampler,
        trials=trials,
        train=train_one,
        report=lambda sweep, trial: console.print(outcome(sweep, trial), soft_wrap=True),
    )
    console.print(results_table(sweep, space))
    for line in failures(sweep):
        console.print(line, soft_wrap=True)
    best = sweep.best
    if best is None:
        raise DHRDError("Every trial failed: there is no best one.", exit_code=EXIT_FAILED)
    console.print(worth(sweep, best), soft_wrap=True)
    if is_first:
        _draw(sweep, space, console)
    if train_best:
        unseen = config.seed + seeds
        # Another folder than that of an earlier best one: more trials may have found a better.
        folder = config.output / f"best-{best.number}"
        run = replace(config, **best.params, seed=unseen, output=folder)
        dev = train_one(run).training["dev"]
        console.print(
            f"{run.output}: dev score {dev['score']:.3f} of a seed that the sweep has not seen, "
            f"against {best.score:.3f} in the sweep.",
            soft_wrap=True,
        )
    return EXIT_OK


def _draw(sweep: Sweep, space: Space, console: Console) -> None:
    """The heat map, where alpha and beta have lists of values; a sweep needs no matplotlib."""
    from distill.sweep.heat_map import draw

    try:
        for path in draw(sweep, space):
            console.print(f"Heat map: {path}", soft_wrap=True)
    except DHRDError as error:
        console.print(f"No heat map: {error}", soft_wrap=True)
