"""`dhrd-report`: tables, pictures and a page from the harness's own result files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhrd_plugin.errors import EXIT_INTERRUPTED, EXIT_OK, DHRDError

DESCRIPTION = """\
A row per model or setting (several seeds are folded), a column per task, the SuperGLUE average, and
the difference to a baseline, from what `lm_eval ... --output_path DIR --log_samples` wrote.
`dhrd-report diff A B` shows the documents on which two models disagree (see its own --help)."""


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
    group = parser.add_argument_group("what else to show")
    many: Any = {"nargs": "+", "action": "extend", "default": []}
    group.add_argument(
        "--bench",
        **many,
        metavar="PATH",
        help="throughput: what dhrd-bench wrote, or folders to search for bench_*.json",
    )
    group.add_argument(
        "--train-log",
        **many,
        metavar="PATH",
        help="training curves (in pictures only): a train_log.jsonl, or folders to search for it; "
        "NAME=PATH names it",
    )
    group.add_argument(
        "--audit",
        **many,
        metavar="FILE",
        help="histogram of rationales (in pictures only): what `dhrd-teach audit --json` wrote",
    )
    group = parser.add_argument_group("also write the report to a file")
    group.add_argument("--markdown", type=Path, metavar="FILE", help="as tables for GitHub")
    group.add_argument("--latex", type=Path, metavar="FILE", help="as a booktabs tabular")
    group.add_argument(
        "--csv", type=Path, metavar="FILE", help="as CSV, a line per row, task and metric"
    )
    group.add_argument("--json", type=Path, metavar="FILE", help="as JSON, with all there is")
    group.add_argument(
        "--html", type=Path, metavar="FILE", help="as one page that opens from disk, with pictures"
    )
    group.add_argument("--plots", type=Path, metavar="DIR", help="pictures, each as SVG and PNG")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dhrd-report` and return its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["diff"]:
        from dhrd_plugin.report.diff.cli import main as diff_main

        return diff_main(arguments[1:])
    try:
        report(**vars(build_parser().parse_args(arguments)))
    except DHRDError as error:
        print(f"dhrd-report: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK


def report(
    results: Sequence[str],
    *,
    baseline: str | None,
    bench: Sequence[str],
    train_log: Sequence[str],
    audit: Sequence[str],
    markdown: Path | None,
    latex: Path | None,
    csv: Path | None,
    json: Path | None,
    html: Path | None,
    plots: Path | None,
) -> None:
    from rich.console import Console

    from dhrd_plugin.report import exports
    from dhrd_plugin.report.audits import load_audits
    from dhrd_plugin.report.benches import load_benches
    from dhrd_plugin.report.results import drop_superseded, load_runs
    from dhrd_plugin.report.summary import summarise
    from dhrd_plugin.report.terminal import rich_report
    from dhrd_plugin.report.throughput import rich_throughput, throughput_markdown
    from dhrd_plugin.report.train_logs import load_train_logs

    if (train_log or audit) and html is None and plots is None:
        raise DHRDError("--train-log and --audit are drawn: add --plots DIR or --html FILE.")
    loaded = load_runs(results)
    runs = drop_superseded(loaded)
    replaced = sum(len(run.scores) for run in loaded) - sum(len(run.scores) for run in runs)
    if replaced:
        print(
            f"note: {replaced} result(s) left out: the same model was evaluated on the same task "
            "again later, and the newest counts.",
            file=sys.stderr,
        )
    benches, logs, audits = load_benches(bench), load_train_logs(train_log), load_audits(audit)
    summary = summarise(runs, baseline)
    figures = {}
    if html is not None or plots is not None:
        from dhrd_plugin.report.html import html_report
        from dhrd_plugin.report.plots import draw, left_out, save

        figures = draw(summary, runs, benches, logs, audits)
    # Files first: a reader of the terminal's table may close the pipe (`| head`).
    if markdown is not None:
        parts = [exports.markdown(summary), *([throughput_markdown(benches)] if benches else [])]
        _write(markdown, "\n".join(parts))
    if latex is not None:
        _write(latex, exports.latex(summary))
    if csv is not None:
        _write(csv, exports.tidy_csv(summary))
    if json is not None:
        _write(json, exports.as_json(summary, benches))
    if html is not None:
        _write(html, html_report(summary, runs=runs, benches=benches, figures=figures))
    if plots is not None:
        save(figures, plots)
        for needs in left_out(figures):
            print(f"note: not drawn: {needs}", file=sys.stderr)
    console = Console(highlight=False)
    console.print(rich_report(summary, console))
    if benches:
        console.print("", rich_throughput(benches), sep="\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DHRDError(f"Cannot write {path}: {error.strerror or error}.") from None
