"""The flags of a training run, for every command that starts some."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from distill.config import DistillConfig
from distill.controls import CONTROLS
from distill.sampling import SAMPLINGS
from distill.schedules import ALPHA_SCHEDULES

# Where a field of the settings is called otherwise than its flag.
FIELD_OF_FLAG = {"task": "tasks", "tracker": "trackers"}


def add_flags(parser: argparse.ArgumentParser, *, leave_out: Collection[str] = ()) -> None:
    """A flag for every field of DistillConfig, in groups, with its default.

    Args:
        leave_out: flags that the command reads in a way of its own.
    """
    defaults = DistillConfig()
    group: argparse._ArgumentGroup

    def add(flag: str, help: str, **kwargs: Any) -> None:
        if flag in leave_out:
            return
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


def to_config(arguments: Mapping[str, Any]) -> DistillConfig:
    """Settings from the values of all flags that `add_flags` knows.

    Rationales in the default place are for runs that read any.

    Raises:
        DHRDError: values that do not go together.
    """
    values = {FIELD_OF_FLAG.get(name, name): value for name, value in arguments.items()}
    no_reasoning = values["alpha"] == 0 and values["kd_temperature"] is None
    if no_reasoning and values["rationales"] == DistillConfig.rationales:
        values["rationales"] = ()
    return DistillConfig(**values)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(name) for name in _names(text))
