"""`dhrd-teach audit`: what is wrong in a file of rationales, its figures, and a filtered copy."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.quiet import quiet_libraries
from teachers.output.jsonl import explained, replaced

if TYPE_CHECKING:
    from dhrd_plugin.decisions import TaskDecisions

DESCRIPTION = """\
Check a file of rationales against its tasks, and show how good they are. Every fault is reported
with its line. Exit code: 0 no errors (warnings are none), 1 errors, 2 wrong input."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-teach audit",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="records of dhrd-teach, or lines {task, split, index, rationale}",
    )
    parser.add_argument(
        "--split",
        default="train",
        help="split of lines that name none (default: %(default)s)",
    )
    parser.add_argument(
        "--include-path", metavar="DIR", help="folder with the YAML files of your own tasks"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write everything as JSON")
    parser.add_argument("--markdown", type=Path, metavar="F", help="also write it as Markdown")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILTERED.jsonl",
        help="also write the usable lines, as they are, to a file of their own",
    )
    parser.add_argument(
        "--min-sufficiency",
        type=probability,
        metavar="X",
        help="of these only rows whose gold answer the judge gives at least this probability, "
        "from row and rationale (needs dhrd-teach --verify)",
    )
    parser.add_argument(
        "--drop-leaking",
        action="store_true",
        help="of these no rows with answer words, or whose answer the judge predicts from the "
        "rationale alone",
    )
    parser.add_argument(
        "--drop-copies",
        action="store_true",
        help="of these no near-copies of a template, and of equal texts only the first",
    )
    return parser


def probability(text: str) -> float:
    """argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dhrd-teach audit` and return its exit code."""
    args = build_parser().parse_args(argv)
    quiet_libraries()
    try:
        return run(args)
    except DHRDError as error:
        print(f"dhrd-teach audit: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from teachers.audit import report as audit_report
    from teachers.audit.figures import figures, read_rejected
    from teachers.audit.file import audit_file, dropped_lines
    from teachers.output.files import OutputFiles

    check_output(args)
    splits = Splits(args.include_path)
    # The file stays open: the copy is made from the very lines that were checked, whatever a
    # running dhrd-teach appends or renames meanwhile.
    with opened(args.file) as file:
        audit = audit_file(file, splits, default_split=args.split)
        if not audit.lines:
            raise DHRDError(f"{args.file} is empty: there is nothing to audit.")
        if splits.errors and not splits.loaded:
            raise next(iter(splits.errors.values()))
        dropped = None
        if args.output is not None:
            dropped = dropped_lines(
                audit,
                min_sufficiency=args.min_sufficiency,
                drop_leaking=args.drop_leaking,
                drop_copies=args.drop_copies,
            )
            kept = {row.line for row in audit.rows} - dropped.keys()
            file.seek(0)
            with written(args.output) as copy:
                copy.buffer.writelines(line for n, line in enumerate(file, 1) if n in kept)
    loaded = list(splits.loaded.values())
    files = OutputFiles(args.file)
    per_split, total = figures(audit, loaded, read_rejected(files.rejected))
    notes = audit_report.notes(audit, loaded, total)
    notes += (
        f"{path} is not counted: it is of a run that goes on, or was killed. Run the `dhrd-teach` "
        "command that wrote it again."
        for path in files.unmerged()
    )
    report = audit_report.Report(
        path=str(args.file),
        audit=audit,
        splits=per_split,
        total=total,
        dropped=None if dropped is None else dict(Counter(dropped.values()).most_common()),
        notes=notes,
    )
    Console(highlight=False).print(audit_report.rich_report(report))
    for path, render in ((args.json, audit_report.as_json), (args.markdown, audit_report.markdown)):
        if path is not None:
            with written(path) as rendered:
                rendered.write(render(report))
    return EXIT_FAILED if audit.errors else EXIT_OK


class Splits:
    """Splits of tasks, each loaded when it is first asked for.

    Attributes:
        loaded: what could be loaded; errors: why others could not. Both by (task, split).
    """

    def __init__(self, include_path: str | None) -> None:
        self.include_path = include_path
        self.loaded: dict[tuple[str, str], TaskDecisions] = {}
        self.errors: dict[tuple[str, str], DHRDError] = {}

    def __call__(self, task: str, split: str) -> TaskDecisions:
        """All decisions of a split.

        Raises:
            DHRDError: no such task or split, or data that cannot be loaded.
        """
        from dhrd_plugin.decisions import load_decisions
        from dhrd_plugin.harness import load_task

        key = task, split
        if key in self.errors:
            raise self.errors[key]
        if key not in self.loaded:
            try:
                self.loaded[key] = load_decisions(load_task(task, self.include_path), split)
            except DHRDError as error:
                self.errors[key] = error
                raise
        return self.loaded[key]


def check_output(args: argparse.Namespace) -> None:
    """Whether the flags of the filtered copy fit together, before anything is loaded."""
    filters = {
        "--min-sufficiency": args.min_sufficiency is not None,
        "--drop-leaking": args.drop_leaking,
        "--drop-copies": args.drop_copies,
    }
    given = [flag for flag, used in filters.items() if used]
    if given and args.output is None:
        raise DHRDError(
            f"{', '.join(given)}: chooses what a filtered copy leaves out. Name it with --output "
            "FILTERED.jsonl."
        )
    to_write = [path for path in (args.output, args.json, args.markdown) if path is not None]
    for path in to_write:
        if path.exists() and args.file.exists() and path.samefile(args.file):
            raise DHRDError(f"{path} is the file to be audited. Name another file to write.")
    if len({path.resolve() for path in to_write}) < len(to_write):
        raise DHRDError("--output, --json and --markdown: need a file each.")


def opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DHRDError(
            f"Cannot read rationales from {path}: {error.strerror or error}. "
            "Write them with `dhrd-teach --output F.jsonl` or name another file."
        ) from None


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A file to be written, in a folder that is made for it; it is there whole or not at all."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path, exit_code=EXIT_BAD_INPUT) as file:
        yield file
