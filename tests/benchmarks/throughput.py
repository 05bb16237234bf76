"""Documents per second of pooled scoring, and what candidates cost.

    python tests/benchmarks/throughput.py [--backbone smollm2] [--only boolq copa record]
    python tests/benchmarks/throughput.py --only adapter --student DIR --task cb [--limit N]

All sides of a comparison run in this process, in turn, on the same model, inputs and dtype; printed
is the median over the repeats of the ratio of two sides. Rows but the adapter's are random tokens
of real lengths (SmolLM2's tokens of SuperGLUE's validation splits), the heads are untrained.

- boolq: rows of BoolQ's lengths in random order. `score` sorts them by length and sizes batches by
  tokens; plain `AutoModelForSequenceClassification` takes them as they come, or sorted as well.
- copa, record: all candidates of a document against the first one alone; and, for comparison, each
  candidate as a row of its own.
- adapter: the whole of `DHRDLM.loglikelihood` (grouping, tokenising, checking, scoring) against
  plain classification with tokenising, in the same length-sorted batches.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers

from dhrd_plugin.backbones import load_causal_lm, load_tokenizer
from dhrd_plugin.batching import EncodedDecision, batches_by_length
from dhrd_plugin.bench.plain import classify, load_plain
from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.harness import load_task, render_requests, split_docs
from dhrd_plugin.lm import DHRDLM
from dhrd_plugin.modeling import DualHeadModel
from dhrd_plugin.scoring import score

PARTS = ("boolq", "copa", "record", "adapter")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Tokens of the input: the middles of 64 equal shares of BoolQ's rows.
BOOLQ = (
    *(43, 53, 60, 64, 68, 71, 75, 78, 81, 84, 87, 90, 92, 95, 97, 100, 102, 104, 106, 109, 111),
    *(114, 116, 118, 120, 122, 124, 126, 129, 131, 134, 136, 138, 141, 143, 145, 148, 151, 153),
    *(157, 160, 162, 166, 169, 172, 176, 179, 181, 185, 188, 193, 198, 204, 210, 217, 225, 233),
    *(243, 254, 266, 283, 298, 334, 425),
)
# Tokens that the candidates share, and of each one behind them: COPA's first 32 rows.
COPA = (
    *((7, 6, 7), (10, 6, 4), (5, 4, 5), (7, 9, 10), (10, 4, 3), (9, 6, 8), (9, 6, 8), (10, 4, 2)),
    *((9, 5, 7), (11, 5, 6), (11, 8, 8), (10, 7, 8), (5, 4, 5), (8, 11, 9), (7, 7, 6), (9, 7, 5)),
    *((11, 7, 6), (9, 4, 4), (7, 5, 4), (10, 8, 8), (9, 3, 3), (10, 5, 5), (10, 7, 7), (8, 9, 8)),
    *((11, 3, 4), (8, 6, 5), (9, 8, 10), (10, 4, 5), (10, 7, 5), (10, 3, 4), (10, 5, 5), (9, 5, 4)),
)
# Ten candidates of ReCoRD's mean length behind 300 tokens.
RECORD = ((300, *[19] * 10),) * 4

Sides = dict[str, Callable[[], object]]


def take_turns(sides: Sides, n_documents: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat of every side, after a warm-up; prints documents per second."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        rate = n_documents / statistics.median(values)
        spread = f"{n_documents / max(values):.2f} to {n_documents / min(values):.2f}"
        print(f"  {name:20} {rate:9.2f} documents/s (median of {len(values)}; {spread})")
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


class Scoring:
    """`score` on a backbone with untrained heads: two labels, and candidates."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.dtype = getattr(torch, args.dtype)
        self.tokenizer = load_tokenizer(args.backbone)
        lm = load_causal_lm(args.backbone, dtype=self.dtype)
        outputs = {"labels": 2, "candidates": 1}
        self.model = DualHeadModel(lm, head_kind="mlp", n_outputs=outputs).to(DEVICE)
        self.random = random.Random(0)

    def tokens(self, n: int) -> list[int]:
        return [self.random.randrange(len(self.tokenizer)) for _ in range(n)]

    def score(self, decisions: Sequence[EncodedDecision]) -> list[list[float]]:
        return score(
            self.model,
            decisions,
            batch_size=self.args.batch_size,
            pad_token_id=self.tokenizer.pad_token_id,
            dtype=self.dtype,
        )

    def boolq(self) -> None:
        encoded = [self.tokens(n) for n in self.random.sample(BOOLQ, len(BOOLQ))]
        decisions = [EncodedDecision(inputs=(ids,), head=0, n_choices=2) for ids in encoded]
        size = self.args.batch_size
        plain = load_plain(self.args.backbone, 2, self.dtype, self.tokenizer.pad_token_id, DEVICE)
        as_they_come = [range(i, min(i + size, len(encoded))) for i in range(0, len(encoded), size)]
        by_length = list(batches_by_length([len(ids) for ids in encoded], size))
        sides: Sides = {
            "score": lambda: self.score(decisions),
            "plain, as they come": lambda: classify(plain, self.tokenizer, encoded, as_they_come),
            "plain, sorted": lambda: classify(plain, self.tokenizer, encoded, by_length),
        }
        ours, unsorted, by_length_too = take_turns(sides, len(encoded), self.args.repeats).values()
        print(f"boolq, speed, score / plain as they come: {median_ratio(unsorted, ours):.3f}")
        print(f"boolq, speed, score / plain, sorted: {median_ratio(by_length_too, ours):.3f}")

    def candidates(self, name: str, lengths: Sequence[tuple[int, ...]]) -> None:
        documents: list[list[list[int]]] = []
        for shared, *own in lengths:
            prefix = self.tokens(shared)
            documents.append([prefix + self.tokens(n) for n in own])

        def rows(inputs: Sequence[list[int]]) -> EncodedDecision:
            return EncodedDecision(inputs=tuple(inputs), head=1, n_choices=len(inputs))

        together = [rows(inputs) for inputs in documents]
        first = [rows(inputs[:1]) for inputs in documents]
        apart = [rows([ids]) for inputs in documents for ids in inputs]
        sides: Sides = {
            "one input": lambda: self.score(first),
            "all candidates": lambda: self.score(together),
            "each on its own": lambda: self.score(apart),
        }
        one, every, separate = take_turns(sides, len(documents), self.args.repeats).values()
        print(f"{name}, time, all candidates / one input: {median_ratio(every, one):.3f}")
        print(f"{name}, time, each on its own / one input: {median_ratio(separate, one):.3f}")


def adapter(args: argparse.Namespace) -> None:
    lm = DHRDLM(str(args.student), batch_size=args.batch_size)
    student = read_student_config(args.student)
    dtype = getattr(torch, student.dtype)
    task = load_task(args.task)
    docs = list(split_docs(task, "validation"))[: args.limit]
    requests = [r for i, doc in enumerate(docs) for r in render_requests(task, doc, i)]
    texts = [r.args[0] for r in requests if r.idx == 0]
    n_labels = student.tasks[args.task].n_outputs
    plain = load_plain(student.base_model, n_labels, dtype, lm.tokenizer.pad_token_id, DEVICE)

    def tokenise_and_classify() -> None:
        encoded = [lm.tokenizer(text).input_ids for text in texts]
        by_length = list(batches_by_length([len(ids) for ids in encoded], args.batch_size))
        classify(plain, lm.tokenizer, encoded, by_length)

    sides: Sides = {
        "adapter": lambda: lm.loglikelihood(requests, disable_tqdm=True),
        "plain, sorted": tokenise_and_classify,
    }
    ours, theirs = take_turns(sides, len(docs), args.repeats).values()
    print(
        f"adapter on {args.task}, {student.dtype}, {student.base_model}, "
        f"speed, adapter / plain: {median_ratio(theirs, ours):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=int, default=16, help="rows per forward")
    parser.add_argument("--repeats", type=int, default=5, help="runs per side, after a warm-up")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:3], metavar="PART")
    parser.add_argument("--student", type=Path, help="adapter: folder of a student")
    parser.add_argument("--task", help="adapter: a labels task that it has a head for")
    parser.add_argument("--limit", type=int, help="adapter: validation rows, default all")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()  # the plain side's head is new, too

    hardware = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.processor()
    print(
        f"{args.backbone}, {args.dtype}, batch size {args.batch_size}, "
        f"{hardware or platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    if "adapter" in args.only:
        adapter(args)
    if set(args.only) - {"adapter"}:
        scoring = Scoring(args)
        if "boolq" in args.only:
            scoring.boolq()
        if "copa" in args.only:
            scoring.candidates("copa", COPA)
        if "record" in args.only:
            scoring.candidates("record", RECORD)


if __name__ == "__main__":
    main()
