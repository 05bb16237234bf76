"""Examples per second through the adapter against plain `AutoModelForSequenceClassification`.

Both sides run in this process, in turn, on the same backbone, inputs, batch size and dtype; the
ratio of the medians is printed. The adapter's side is the whole of `DHRDLM.loglikelihood`
(grouping, tokenising, checking, scoring); the plain side tokenises and classifies, with the same
length-sorted batches.

    python tests/benchmarks/throughput.py --student DIR --task cb [--limit N] [--batch-size N]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

import torch
import transformers
from transformers import AutoModelForSequenceClassification

from dhrd_plugin.backbones import resolve_backbone
from dhrd_plugin.batching import batches_by_length
from dhrd_plugin.harness import load_task, render_requests, split_docs
from dhrd_plugin.lm import DHRDLM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", required=True, help="folder of a student")
    parser.add_argument("--task", required=True, help="a labels task that it has a head for")
    parser.add_argument("--limit", type=int, help="validation rows, default all")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    lm = DHRDLM(args.student, batch_size=args.batch_size)
    head = lm.student.tasks[args.task]
    dtype = getattr(torch, lm.student.dtype)
    task = load_task(args.task)
    docs = list(split_docs(task, "validation"))[: args.limit]
    requests = [r for i, doc in enumerate(docs) for r in render_requests(task, doc, i)]
    texts = [r.args[0] for r in requests if r.idx == 0]
    plain = AutoModelForSequenceClassification.from_pretrained(
        resolve_backbone(lm.student.base_model), num_labels=head.n_outputs, dtype=dtype
    ).to(lm.device)
    plain.config.pad_token_id = lm.tokenizer.pad_token_id
    plain.eval()

    @torch.inference_mode()
    def classify() -> None:
        encoded = [lm.tokenizer(text).input_ids for text in texts]
        for indices in batches_by_length([len(ids) for ids in encoded], args.batch_size):
            batch = lm.tokenizer.pad(
                {"input_ids": [encoded[i] for i in indices]},
                padding_side="right",
                return_tensors="pt",
            ).to(lm.device)
            with torch.autocast(lm.device.type, dtype=dtype, enabled=dtype != torch.float32):
                plain(**batch, use_cache=False).logits.log_softmax(dim=-1).tolist()

    sides = {
        "adapter": lambda: lm.loglikelihood(requests, disable_tqdm=True),
        "plain": classify,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(args.repeats + 1):  # the first is a warm-up
        for name, run in sides.items():
            started = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - started)

    device = torch.cuda.get_device_name() if lm.device.type == "cuda" else platform.processor()
    print(
        f"{args.task}: {len(docs)} rows, batch {args.batch_size}, {lm.student.dtype}, "
        f"{lm.student.base_model}, {device or platform.machine()}, {os.cpu_count()} CPUs, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}"
    )
    for name, values in seconds.items():
        rate = len(docs) / statistics.median(values)
        spread = f"{len(docs) / max(values):.2f} to {len(docs) / min(values):.2f}"
        print(f"{name:8} {rate:8.2f} examples/s (median of {len(values)}; {spread})")
    pairs = [p / a for a, p in zip(seconds["adapter"], seconds["plain"], strict=True)]
    print(f"ratio adapter / plain: {statistics.median(pairs):.3f} (median of pairs)")


if __name__ == "__main__":
    main()
