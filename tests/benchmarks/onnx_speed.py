"""Examples per second of an ONNX export over the student in torch, on the CPU.

    dhrd-distill export STUDENT --to onnx --task T --output DIR
    python tests/benchmarks/onnx_speed.py --student STUDENT --task T --onnx DIR [--threads N]

Both sides answer the same rows (the first of the task's validation split) in the same padded
batches of like length, in float32 and with the same number of threads. Tokenising is not counted.
They take turns in this process after a warm-up; printed is the median over the repeats of the ratio
of two sides. Not called onnx.py, which torch would import for the library.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from throughput import Sides, median_ratio, take_turns

from dhrd_plugin.batching import batches_by_length
from dhrd_plugin.checkpoint import read_student_config
from distill.export.classifier import load_classifier
from distill.export.onnx_graph import INPUTS, PooledClassifier, open_session
from distill.export.parity import first_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--onnx", type=Path, required=True, help="what --to onnx wrote")
    parser.add_argument("--include-path", help="folder of your own task YAML files")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="runs per side, after a warm-up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    head = read_student_config(args.student).tasks[args.task]
    rows = first_rows(args.task, head, args.include_path)
    classifier, _ = load_classifier(
        args.student, args.task, rows, dtype="float32", calibrated=False
    )
    model = PooledClassifier(classifier.trunk, classifier.head).eval()
    session = open_session(args.onnx, args.threads)

    texts = [text for row in rows for text in row.inputs]
    lengths = [len(classifier.tokenizer(text).input_ids) for text in texts]
    batches = [
        classifier.tokenizer(
            [texts[i] for i in indices], padding=True, truncation=True, return_tensors="pt"
        )
        for indices in batches_by_length(lengths, args.batch_size)
    ]

    def in_torch() -> list[Any]:
        with torch.inference_mode():
            return [model(**{name: batch[name] for name in INPUTS}).numpy() for batch in batches]

    def in_onnxruntime() -> list[Any]:
        inputs = [{name: batch[name].numpy() for name in INPUTS} for batch in batches]
        return [session.run(["logits"], each)[0] for each in inputs]

    differences = [abs(a - b).max() for a, b in zip(in_torch(), in_onnxruntime(), strict=True)]
    print(
        f"{args.task}, {len(texts)} inputs of {min(lengths)} to {max(lengths)} tokens, batch size "
        f"{args.batch_size}, {platform.machine()}, {os.cpu_count()} CPUs, {args.threads} threads, "
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}; largest difference in "
        f"a logit {max(differences):.1e}"
    )
    sides: Sides = {"torch": in_torch, "onnxruntime": in_onnxruntime}
    of_torch, of_onnx = take_turns(sides, len(texts), args.repeats).values()
    print(f"{args.task}, speed, onnxruntime / torch: {median_ratio(of_torch, of_onnx):.3f}")


if __name__ == "__main__":
    main()
