"""`dhrd-bench`: queries per second of the pooled head, and of the ways it replaces."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dhrd_plugin import __version__
from dhrd_plugin.bench.config import ENGINES, BenchConfig
from dhrd_plugin.errors import EXIT_INTERRUPTED, DHRDError
from dhrd_plugin.quiet import quiet_libraries
from dhrd_plugin.report.benches import KINDS

DESCRIPTION = """\
Measure, on the same documents and backbone, the pooled head of a student, a plain
AutoModelForSequenceClassification, log-likelihood scoring and chain-of-thought decoding: queries
per second, each at its best batch size, latency, tokens, peak memory and cost. Each side runs in a
process of its own, one after the other; nothing else should run on the machine."""


def build_parser() -> argparse.ArgumentParser:
    defaults = BenchConfig()
    parser = argparse.ArgumentParser(
        prog="dhrd-bench",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dhrd {__version__}")

    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--student",
        metavar="DIR",
        help="what `dhrd-distill` wrote (default: $DHRD_STUDENT, else ./dhrd-student)",
    )
    group.add_argument("--task", metavar="T", help="a task it has a head for (default: its only)")
    group.add_argument("--limit", type=int, metavar="N", help="the first N documents only")
    group.add_argument(
        "--include-path", metavar="DIR", help="folder with the YAML files of your own tasks"
    )
    group.add_argument(
        "--sides",
        nargs="+",
        choices=KINDS,
        default=defaults.sides,
        metavar="SIDE",
        help=f"some of {', '.join(KINDS)}, in this order (default: all)",
    )
    group.add_argument(
        "--output",
        type=Path,
        default=defaults.output,
        metavar="PATH",
        help="a .json file, or a folder for bench_<date>.json (default: here)",
    )

    group = parser.add_argument_group("how")
    group.add_argument(
        "--batch-sizes",
        type=int,
        nargs="+",
        default=defaults.batch_sizes,
        metavar="N",
        help="rows per forward to choose from, tried upwards until one is slower or does not fit "
        f"(default: {' '.join(map(str, defaults.batch_sizes))})",
    )
    group.add_argument(
        "--repeats",
        type=int,
        default=defaults.repeats,
        metavar="N",
        help="timed runs over all documents (default: %(default)s)",
    )
    group.add_argument("--device", help="cuda, cpu, … (default: what there is)")
    group.add_argument(
        "--price-per-hour", type=float, metavar="USD", help="of the machine, for the cost"
    )

    group = parser.add_argument_group("chain of thought")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default=defaults.engine,
        help="hf: the student's reasoning head under transformers; vllm: its merged weights under "
        "vLLM; openai: a server of chat completions (default: %(default)s)",
    )
    group.add_argument("--base-url", metavar="URL", help="of the server, up to /v1")
    group.add_argument("--model", metavar="NAME", help="as the server calls the backbone")
    group.add_argument(
        "--cot-max-new-tokens",
        type=int,
        default=defaults.cot_max_new_tokens,
        metavar="N",
        help="tokens per chain of thought at most (default: %(default)s)",
    )
    group.add_argument(
        "--cot-limit",
        type=int,
        metavar="N",
        help="the first N of the documents only (default: as many as the largest batch size)",
    )
    group.add_argument(
        "--cot-repeats",
        type=int,
        default=defaults.cot_repeats,
        metavar="N",
        help="timed runs over these (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, show; returns the exit code."""
    arguments = vars(build_parser().parse_args(argv))
    for name in ("sides", "batch_sizes"):
        arguments[name] = tuple(dict.fromkeys(arguments[name]))
    quiet_libraries()
    try:
        return _bench(BenchConfig(**arguments))
    except DHRDError as error:
        print(f"dhrd-bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _bench(config: BenchConfig) -> int:
    from rich.console import Console

    from dhrd_plugin.bench.checks import check_reachable, chosen, output_file
    from dhrd_plugin.bench.display import BenchDisplay
    from dhrd_plugin.report.benches import load_benches
    from dhrd_plugin.report.throughput import ratios, rich_ratios, rich_throughput

    student, task = chosen(config)
    if config.base_url is not None:
        check_reachable(config.base_url)
    date = time.time()
    path = output_file(config.output, date)
    with BenchDisplay(Console(stderr=True)) as display:
        from dhrd_plugin.bench.run import run

        code = run(config, student, task, path=path, date=date, show=display.show)
    benches = load_benches([path])
    console = Console(highlight=False)
    console.print(rich_throughput(benches))
    if ratios(benches[0]):
        console.print(rich_ratios(benches[0]), "")
    console.print(f"Written to {path}: dhrd-report reads and joins it.", soft_wrap=True)
    return code
