"""`dhrd-report diff A B`: the documents on which two models disagree."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dhrd_plugin.errors import EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.report.diff.documents import KINDS

DESCRIPTION = """\
The documents on which two models disagree: the question, the right answer, both models'
probabilities or decoded texts, and the teacher's rationale. First what B got right and A wrong,
then what B got wrong and A right, then where both are wrong in different ways. A and B are what
`lm_eval ... --output_path DIR --log_samples` wrote."""
RATIONALES = (
    "files of `dhrd-teach`; a rationale is shown beside the document it was written for. The "
    "harness scores the validation split (if a task names one, the test split), so let the teacher "
    "explain that: `dhrd-teach --task T --split validation`"
)
EPILOG = """\
example:
  dhrd-report diff results/pooled results/dhrd --html diff.html"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-report diff",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for side, role in (("A", "the model to compare with"), ("B", "the other model")):
        parser.add_argument(
            side.lower(),
            metavar=side,
            help=f"results of {role}: a file, or a folder that holds no other model's; "
            "NAME=PATH gives it a name",
        )
    parser.add_argument(
        "--task",
        type=_names,
        default=(),
        metavar="T[,T…]",
        help="these tasks only (default: all that both models were scored on)",
    )
    parser.add_argument("--rationales", type=_names, default=(), metavar="F[,F…]", help=RATIONALES)
    parser.add_argument(
        "--only", choices=[*KINDS, "all"], default="all", help="this kind of documents only"
    )
    parser.add_argument(
        "--limit", type=_count, metavar="N", help="documents of each kind and task at most"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write a page, to be opened from disk; the terminal then shows the counts only",
    )
    parser.add_argument(
        "--no-pager", dest="pager", action="store_false", help="print without a pager"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dhrd-report diff` and return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        diff(
            args.a,
            args.b,
            tasks=args.task,
            rationales=[Path(name) for name in args.rationales],
            kinds=tuple(KINDS) if args.only == "all" else (args.only,),
            limit=args.limit,
            html=args.html,
            pager=args.pager,
        )
    except DHRDError as error:
        print(f"dhrd-report diff: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK


def diff(
    a: str,
    b: str,
    *,
    tasks: Sequence[str],
    rationales: Sequence[Path],
    kinds: Sequence[str],
    limit: int | None,
    html: Path | None,
    pager: bool,
) -> None:
    from rich.console import Console

    from dhrd_plugin.report.diff.comparison import load_model
    from dhrd_plugin.report.diff.page import html_diff
    from dhrd_plugin.report.diff.terminal import render_documents, render_summary, show
    from dhrd_plugin.report.diff.view import make_view

    view = make_view(
        load_model(a),
        load_model(b),
        tasks=tasks,
        kinds=kinds,
        limit=limit,
        rationales=rationales,
    )
    console = Console(highlight=False)
    if html is None:
        parts = [*render_summary(view), *render_documents(view)]
        show(console, parts, pager=pager and console.is_terminal)
        return
    try:
        html.write_text(html_diff(view), encoding="utf-8")
    except OSError as error:
        raise DHRDError(f"Cannot write {html}: {error.strerror or error}.") from None
    show(console, render_summary(view), pager=False)
    print(f"The documents are in {html}.")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} documents: at least 1 is needed")
    return count
