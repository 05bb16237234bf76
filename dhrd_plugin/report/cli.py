"""`dhrd-report`: a table from the harness's own result files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dhrd_plugin.errors import EXIT_INTERRUPTED, EXIT_OK, DHRDError

DESCRIPTION = """\
A row per model or setting (several seeds are folded), a column per task, the SuperGLUE average, and
the difference to a baseline, from what `lm_eval ... --output_path DIR --log_samples` wrote."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="results file, or folder to search for results_*.json; NAME=PATH names the row, and "
        "paths of one NAME are folded as seeds",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="row to compare the others with: its name, or a part that no other row has",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write it as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dhrd-report` and return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        report(args.results, baseline=args.baseline, markdown=args.markdown, json=args.json)
    except DHRDError as error:
        print(f"dhrd-report: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK


def report(
    results: Sequence[str], *, baseline: str | None, markdown: Path | None, json: Path | None
) -> None:
    from rich.console import Console

    from dhrd_plugin.report import table as rendering
    from dhrd_plugin.report.results import drop_superseded, load_runs
    from dhrd_plugin.report.summary import summarise

    runs = load_runs(results)
    kept = drop_superseded(runs)
    replaced = sum(len(run.scores) for run in runs) - sum(len(run.scores) for run in kept)
    if replaced:
        print(
            f"note: {replaced} result(s) left out: the same model was evaluated on the same task "
            "again later, and the newest counts.",
            file=sys.stderr,
        )
    summary = summarise(kept, baseline)
    console = Console(highlight=False)
    console.print(rendering.rich_report(summary, console))
    if markdown is not None:
        _write(markdown, rendering.markdown(summary))
    if json is not None:
        _write(json, rendering.as_json(summary))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DHRDError(f"Cannot write {path}: {error.strerror or error}.") from None
