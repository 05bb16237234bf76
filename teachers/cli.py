"""`dhrd-teach`: write label-consistent rationales for the rows of harness tasks."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from dhrd_plugin.decisions import TaskDecisions, load_decisions
from dhrd_plugin.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.harness import load_task
from dhrd_plugin.quiet import quiet_libraries
from teachers.base import find_factory, make_teacher
from teachers.checks import REASONS
from teachers.generate import Outcome, made_from, teach
from teachers.prompts import HINTED, INVERTED_TASKS
from teachers.store import RecordStore

DEFAULT_MAX_ATTEMPTS = 3


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-teach",
        usage="%(prog)s --teacher KIND:NAME [--task T[,T…]] [--output F.jsonl] [options]",
        description="Have a teacher explain the gold answer of every row, and keep the rationales "
        "that agree with it and do not give it away. Run the same command again to resume.",
    )
    parser.add_argument(
        "--task", default="scenes", metavar="T[,T…]", help="harness tasks (default: %(default)s)"
    )
    parser.add_argument(
        "--split", default="train", help="train, validation or test (default: %(default)s)"
    )
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="KIND:NAME",
        help="hf:MODEL (a local model: folder, hub id or smollm2), openai:MODEL (a server), or "
        "file:PATH (rationales you have, one JSON object per line with task, index, rationale)",
    )
    parser.add_argument("--base-url", metavar="URL", help="server for openai: (up to /v1)")
    parser.add_argument(
        "--output",
        default="./rationales.jsonl",
        metavar="F.jsonl",
        help="where records are appended (default: %(default)s); rejected attempts go to "
        "F.rejected.jsonl",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="only the first N rows of each split"
    )
    parser.add_argument(
        "--max-attempts",
        type=positive,
        metavar="N",
        help=f"rationales to try per row (default: {DEFAULT_MAX_ATTEMPTS}); not for file:",
    )
    parser.add_argument(
        "--concurrency",
        type=positive,
        metavar="N",
        help="requests in flight (openai:) or rows per batch (hf:) (default: 8)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="sampling seed (hf: default 0; openai: sent to the server when given)",
    )
    parser.add_argument(
        "--include-path", metavar="DIR", help="folder with the YAML files of your own tasks"
    )
    parser.add_argument(
        "--new",
        action="store_true",
        help="start a new output file; the old one is kept under another name",
    )
    return parser


def positive(text: str) -> int:
    """argparse type: a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    quiet_libraries()
    try:
        return run(args)
    except DHRDError as error:
        print(f"dhrd-teach: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        same = "The same command without --new" if args.new else "The same command"
        print(
            f"dhrd-teach: interrupted; {args.output} keeps what was written. {same} resumes.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED


def run(args: argparse.Namespace) -> int:
    find_factory(args.teacher)  # a misspelt teacher is reported before any task is loaded
    names = list(dict.fromkeys(name.strip() for name in args.task.split(",") if name.strip()))
    if not names:
        raise DHRDError("--task is empty: name one or more harness tasks, separated by commas.")
    splits = [load_decisions(load_task(name, args.include_path), args.split) for name in names]
    teacher = make_teacher(
        args.teacher,
        splits,
        base_url=args.base_url,
        concurrency=args.concurrency,
        seed=args.seed,
    )
    if not teacher.asks and args.max_attempts is not None:
        raise DHRDError(
            f"--max-attempts: of no use with the teacher {args.teacher!r}, which has one rationale "
            "per row. Leave it out."
        )
    if teacher.asks:
        warn_of_inverted_gold(splits)
    rows = [decision for split in splits for decision in split.decisions[: args.limit]]
    with RecordStore(args.output, new=args.new) as store:
        for split in splits:
            store.claim(f"{split.task}/{split.split}", made_from(split, teacher, HINTED))
        before = sum(row.id in store.kept for row in rows)
        outcomes = teach(
            rows,
            teacher,
            store,
            prompt=HINTED,
            max_attempts=args.max_attempts or DEFAULT_MAX_ATTEMPTS,
        )
        tried, reasons = follow(outcomes, done=before, total=len(rows))
        kept = sum(row.id in store.kept for row in rows)
        print(f"{args.teacher}: {kept} of {len(rows)} rows have a rationale ({kept - before} new)")
        for reason, count in reasons.most_common():
            print(f"  rejected {count} × {REASONS[reason]}")
        if passed_over := len(rows) - before - tried:
            why = (
                "had used up their attempts before (--max-attempts gives more)"
                if teacher.asks
                else "have no line in the file"
            )
            print(f"  {passed_over} rows {why}")
        print(f"records:  {store.path}")
        print(f"rejected: {store.rejected_path}")
    return EXIT_OK if kept else EXIT_FAILED


def warn_of_inverted_gold(splits: Iterable[TaskDecisions]) -> None:
    for split in splits:
        if split.choices is not None and INVERTED_TASKS.get(split.task) == split.choices:
            print(
                f"dhrd-teach: warning: the harness's {split.task!r} rewards the opposite of what "
                "it asks (gold is 'no' for a right answer), and the teacher will argue for that. "
                "Use a corrected copy of the task.",
                file=sys.stderr,
            )


def follow(outcomes: Iterable[Outcome], *, done: int, total: int) -> tuple[int, Counter[str]]:
    """Run through the outcomes under a progress bar, which is shown on a terminal only.

    Returns:
        how many rows were tried, and how many attempts were rejected for each reason.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    reasons: Counter[str] = Counter()
    kept = tried = 0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("teaching", total=total, completed=done, status="")
        for outcome in outcomes:
            kept += outcome.reason is None
            tried += outcome.final
            if outcome.reason is not None:
                reasons[outcome.reason] += 1
            rate = progress.tasks[bar].speed or 0.0
            status = f"{kept} kept, {reasons.total()} attempts rejected, {rate:.1f} rows/s"
            progress.update(bar, advance=int(outcome.final), status=status)
    return tried, reasons
