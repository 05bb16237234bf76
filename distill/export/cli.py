"""`dhrd-distill export`: a student as a model that other programs load."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dhrd_plugin.errors import EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.quiet import quiet_libraries
from distill.export.formats import FORMATS

DESCRIPTION = """\
Write one task of a student as a model that other programs load, adapter merged:
  seqcls    AutoModelForSequenceClassification, for pipeline("text-classification") and vLLM;
            needs --head linear
  onnx      a graph for onnxruntime, with any head
  decision  a decision model, for pipeline("decision") and `transformers serve` (/v1/systemone);
            needs --head linear and transformers 5.23
It is read back from disk and answers the first 64 validation rows of the task; nothing is kept if a
probability differs from the student's by more than --tolerance."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhrd-distill export",
        usage="%(prog)s DIR --to FORMAT [--task T] [--output DIR] [options]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("student", type=Path, metavar="DIR", help="folder of the student")
    parser.add_argument(
        "--to", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS)
    )
    parser.add_argument("--task", metavar="T", help="which of its tasks (default: its only one)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="a new folder (default: the student's, -FORMAT)"
    )
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="fold the temperature fitted in training into the head: calibrated probabilities",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="of weights and computing; below float32 probabilities differ (default: float32)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        metavar="X",
        help="largest difference in a probability that counts as none (default: 0.001)",
    )
    parser.add_argument("--include-path", metavar="DIR", help="folder of your own task YAML files")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, export, show; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    quiet_libraries()
    student: Path = arguments.student.resolve()  # "." has a name, too
    output: Path = arguments.output or student.with_name(f"{student.name}-{arguments.to}")
    try:
        from rich.console import Console

        with Console(stderr=True).status(f"Exporting to {output}"):
            from distill.export.run import export

            comparison = export(
                student,
                arguments.to,
                output=output,
                task=arguments.task,
                calibrated=arguments.calibrated,
                dtype=arguments.dtype,
                tolerance=arguments.tolerance,
                include_path=arguments.include_path,
            )
    except DHRDError as error:
        print(f"dhrd-distill export: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("dhrd-distill export: interrupted; nothing was kept.", file=sys.stderr)
        return EXIT_INTERRUPTED
    left_out = ""
    if comparison.too_long:
        left_out = f" ({comparison.too_long} left out: longer than the student reads)"
    print(
        f"Largest difference in probability on {comparison.rows} rows{left_out}: "
        f"{comparison.difference:.1e} ({comparison.row})"
    )
    print(f"Exported to {output}; its README.md says how to ask it.")
    return EXIT_OK
