"""`dhrd-teach`: write label-consistent rationales for the rows of harness tasks, and audit them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dhrd_plugin import __version__
from dhrd_plugin.errors import EXIT_INTERRUPTED, DHRDError
from dhrd_plugin.quiet import quiet_libraries
from teachers.config import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MODE,
    DEFAULT_VOTES,
    DTYPES,
    MODES,
    QUANTIZATIONS,
    TeachConfig,
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-teach",
        usage="%(prog)s --teacher KIND:NAME [--task T[,T…]] [--output F.jsonl] [options]\n"
        "       %(prog)s audit F.jsonl [options]",
        description="Have a teacher explain the gold answer of every row, and keep the rationales "
        "that agree with it and do not give it away. Run the same command again to resume.",
        epilog="Options of one kind of teacher (openai:, hf:) are refused by the others.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dhrd {__version__}")

    group = parser.add_argument_group("what to explain")
    group.add_argument(
        "--task",
        dest="tasks",
        type=_names,
        default=TeachConfig.tasks,
        metavar="T[,T…]",
        help="harness tasks (default: scenes)",
    )
    group.add_argument(
        "--split",
        default=TeachConfig.split,
        help="train, validation or test (default: %(default)s)",
    )
    group.add_argument("--limit", type=int, metavar="N", help="only the first N rows of each split")
    group.add_argument(
        "--include-path", metavar="DIR", help="folder with the YAML files of your own tasks"
    )
    group.add_argument(
        "--output",
        type=Path,
        default=TeachConfig.output,
        metavar="F.jsonl",
        help="where records are appended (default: %(default)s); rejected attempts go to "
        "F.rejected.jsonl",
    )
    group.add_argument(
        "--new",
        action="store_true",
        help="start a new output file; the old one is kept under another name",
    )

    group = parser.add_argument_group("teacher")
    group.add_argument(
        "--teacher",
        required=True,
        metavar="KIND:NAME",
        help="hf:MODEL (a local model: folder, hub id or smollm2), openai:MODEL (a server), or "
        "file:PATH (rationales you have, one JSON object per line with task, index, rationale)",
    )
    group.add_argument(
        "--mode",
        choices=MODES,
        help="hinted: the gold answer is shown (paper); blind: it is not, and a rationale is kept "
        f"if it ends at it; ladder: blind first, hinted for the rest (default: {DEFAULT_MODE})",
    )
    group.add_argument(
        "--max-attempts",
        type=int,
        metavar="N",
        help=f"rationales to try per row and prompt (default: {DEFAULT_MAX_ATTEMPTS})",
    )
    group.add_argument(
        "--prompts", type=Path, metavar="F.toml", help="your wording instead of ours"
    )
    group.add_argument(
        "--examples",
        type=Path,
        metavar="F.jsonl",
        help="rationales shown as worked examples before every question",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of sampling (openai: sent if given)")
    group.add_argument("--temperature", type=float, metavar="X", help="of sampling")
    group.add_argument("--top-p", type=float, metavar="X", help="of sampling")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens per reply at most")

    group = parser.add_argument_group("second pass, over the kept rationales")
    group.add_argument(
        "--soft-labels",
        action="store_true",
        help="store a distribution over the choices, given the row alone, as label_probs",
    )
    group.add_argument(
        "--verify",
        action="store_true",
        help="have the label predicted from row and rationale (sufficiency), and from the "
        "rationale alone (leakage)",
    )
    group.add_argument(
        "--judge", metavar="KIND:NAME", help="who is asked for these (default: the teacher)"
    )
    group.add_argument(
        "--votes",
        type=int,
        metavar="N",
        help="samples per distribution where a server gives no probabilities "
        f"(default: {DEFAULT_VOTES})",
    )

    group = parser.add_argument_group("server (openai:)")
    group.add_argument("--base-url", metavar="URL", help="up to /v1")
    group.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="requests in flight at most (default: 8); fewer while the server says 429",
    )
    group.add_argument("--rpm", type=float, metavar="N", help="requests per minute at most")
    group.add_argument("--tpm", type=float, metavar="N", help="tokens per minute at most")
    group.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="seconds until a request counts as lost (default: 120)",
    )
    group.add_argument(
        "--max-retries",
        type=int,
        metavar="N",
        help="further sends after passing errors (default: 5)",
    )
    for which, tokens in (("in", "prompt"), ("out", "completion")):
        group.add_argument(
            f"--price-{which}",
            type=float,
            metavar="X",
            help=f"US dollars per million {tokens} tokens, of teacher and judge alike",
        )
    group.add_argument(
        "--max-cost",
        type=float,
        metavar="X",
        help="US dollars that the output file may cost in all, earlier runs included",
    )
    group.add_argument("--max-tokens", type=int, metavar="N", help="tokens that it may cost in all")

    group = parser.add_argument_group("local model (hf:)")
    group.add_argument(
        "--batch-tokens", type=int, metavar="N", help="padded tokens per batch, new ones too"
    )
    group.add_argument("--device-map", metavar="X", help="for from_pretrained (default: auto)")
    group.add_argument("--dtype", choices=DTYPES, help="(default: auto)")
    group.add_argument(
        "--quantize", choices=QUANTIZATIONS, help="hold the weights so (needs bitsandbytes)"
    )

    group = parser.add_argument_group("looking on")
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be asked, with tokens, cost and a prompt; nothing is sent",
    )
    group.add_argument(
        "--log-json", action="store_true", help="progress as JSON lines on stderr, for machines"
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    """argparse type: names separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["audit"]:
        from teachers.audit.cli import main as audit

        return audit(argv[1:])
    args = build_parser().parse_args(argv)
    quiet_libraries()
    try:
        from teachers.run import run

        return run(TeachConfig(**vars(args)))
    except DHRDError as error:
        print(f"dhrd-teach: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(_how_to_resume(args), file=sys.stderr)
        return EXIT_INTERRUPTED


def _how_to_resume(args: argparse.Namespace) -> str:
    same = "The same command without --new" if args.new else "The same command"
    return f"dhrd-teach: interrupted; {args.output} keeps what was written. {same} resumes."
