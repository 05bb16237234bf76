"""Result files as lm_eval writes them, made small: what the report's tests read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from dhrd_plugin.report.results import load_runs
from dhrd_plugin.report.summary import Row, Summary, summarise


def sample(doc_id: int, doc: dict, target: Any, values: Mapping[str, Any], filter_name="none"):
    """A line of a samples file, less the prompts and responses, which no report reads."""
    doc_hash = hashlib.sha256(json.dumps(doc).encode()).hexdigest()
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": str(target),
        "filter": filter_name,
        "metrics": list(values),
        "doc_hash": doc_hash,
        **values,
    }


def task_result(samples: Sequence[dict], metrics: Mapping[str, float], **config: Any) -> dict:
    """What one task contributes to a results file; `metrics` by "name,filter"."""
    return {
        "samples": samples,
        "results": {**metrics, **{key.replace(",", "_stderr,"): "N/A" for key in metrics}},
        "higher_is_better": {key.split(",")[0]: True for key in metrics},
        "config": {"num_fewshot": 0, **config},
    }


def accuracy_task(right: Sequence[int], dataset: str = "copa", metric: str = "acc", **config):
    """A task whose documents were answered right (1) or wrong (0)."""
    filter_name = "none" if metric == "acc" else "answer"
    samples = [
        sample(i, {"idx": i, "text": f"{dataset} {i}"}, 0, {metric: float(r)}, filter_name)
        for i, r in enumerate(right)
    ]
    value = {f"{metric},{filter_name}": float(np.mean(right))}
    return task_result(
        samples, value, dataset_path="aps/super_glue", dataset_name=dataset, **config
    )


def cb_task(golds: Sequence[int], preds: Sequence[int]):
    """CB: accuracy and macro-F1, the latter logged as (gold, prediction)."""
    samples = [
        sample(i, {"idx": i, "text": f"cb {i}"}, g, {"acc": float(g == p), "f1": [g, p]})
        for i, (g, p) in enumerate(zip(golds, preds, strict=True))
    ]
    metrics = {
        "acc,none": float(np.mean(np.equal(golds, preds))),
        "f1,none": float(f1_score(golds, preds, average="macro")),
    }
    return task_result(samples, metrics, dataset_path="aps/super_glue", dataset_name="cb")


def cot_task(right: Sequence[int], unparsable: Sequence[int], dataset: str = "copa"):
    """A task answered by decoding, as ours report it."""
    made = accuracy_task(right, dataset, metric="exact_match")
    for line, is_unparsable in zip(made["samples"], unparsable, strict=True):
        line["unparsable"] = float(is_unparsable)
    made["results"]["unparsable,answer"] = float(np.mean(unparsable))
    made["higher_is_better"]["unparsable"] = False
    return made


def paper_cb_task(golds: Sequence[int], preds: Sequence[int], complete: bool = True):
    """CB in the paper's form: a row per class, `acc` and `f1` over a question's three.

    Args:
        complete: without it a last question lacks a candidate, as under --limit.
    """
    samples = []
    for question, (gold, pred) in enumerate(zip(golds, preds, strict=True)):
        for candidate in range(3):
            idx = {"question": question, "candidate": candidate}
            judged = [question, candidate, int(candidate == gold), float(candidate == pred)]
            values = {"acc": judged, "f1": judged}
            samples.append(sample(len(samples), {"idx": idx}, int(candidate == gold), values))
    if not complete:
        judged = [len(golds), 0, 1, 5.0]
        doc = {"idx": {"question": len(golds), "candidate": 0}}
        samples.append(sample(len(samples), doc, 1, {"acc": judged, "f1": judged}))
    metrics = {
        "acc,none": float(np.mean(np.equal(golds, preds))),
        "f1,none": float(f1_score(golds, preds, labels=[0, 1, 2], average="macro")),
    }
    return task_result(samples, metrics, dataset_path="aps/super_glue", dataset_name="cb")


def write_results(
    folder: Path,
    tasks: Mapping[str, dict],
    *,
    config: Mapping[str, Any],
    date: float = 0.0,
    n_total: int | None = None,
) -> Path:
    """Write `results_<stamp>.json` and one samples file per task; returns the results file."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = f"2026-01-01T00-00-{date:09.6f}"
    sizes = {task: len({s["doc_id"] for s in made["samples"]}) for task, made in tasks.items()}
    content = {
        "results": {t: {"name": t, "alias": t, **made["results"]} for t, made in tasks.items()},
        "configs": {t: {"task": t, **made["config"]} for t, made in tasks.items()},
        "higher_is_better": {t: made["higher_is_better"] for t, made in tasks.items()},
        "n-samples": {t: {"original": n_total or n, "effective": n} for t, n in sizes.items()},
        "config": {"model_args": {}, "gen_kwargs": {}, "random_seed": 0, **config},
        "date": date,
    }
    path = folder / f"results_{stamp}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    for task, made in tasks.items():
        lines = "".join(json.dumps(line) + "\n" for line in made["samples"])
        (folder / f"samples_{task}_{stamp}.jsonl").write_text(lines, encoding="utf-8")
    return path


def student(
    setting: str, seed: int, tasks: Sequence[str] = ("cb", "copa"), zero_shot: Sequence[str] = ()
) -> dict[str, Any]:
    """The `config` that our adapter's results have."""
    return {
        "model": "dhrd",
        "dhrd": {
            "fingerprint": f"{setting}/{seed}",
            "backbone": "smollm2",
            "setting": setting,
            "seed": seed,
            "tasks": list(tasks),
            "training": {},
            "zero_shot": list(zero_shot),
        },
    }


def students(*configs: Mapping[str, Any]) -> dict[str, Any]:
    """The `config` of several students over one backbone."""
    return {
        "model": "dhrd",
        "dhrd": {"students": [config["dhrd"] for config in configs], "zero_shot": []},
    }


def with_choices(line: dict, pairs: Sequence[tuple[str, str]], log_likelihoods: Sequence[float]):
    """A line of a samples file with what was asked and answered: (context, continuation) and
    log-likelihood in nats per choice."""
    answers = [[str(value), str(value == max(log_likelihoods))] for value in log_likelihoods]
    arguments = {
        f"gen_args_{i}": {"arg_0": context, "arg_1": continuation}
        for i, (context, continuation) in enumerate(pairs)
    }
    return {
        **line,
        "arguments": arguments,
        "resps": [[answer] for answer in answers],
        "filtered_resps": answers,
    }


def with_text(line: dict, prompt: str, text: str, answer: str):
    """A line of a samples file with a decoded text and the answer that was found in it."""
    return {
        **line,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n\n"]}}},
        "resps": [[text]],
        "filtered_resps": [answer],
    }


def labels_task(
    probs: Sequence[Sequence[float]],
    golds: Sequence[int],
    choices: Sequence[str] = ("True", "False", "Neither"),
    question: str = "Text {}?",
):
    """A task whose documents all offer the same choices; `probs` per document and choice."""
    samples = []
    for i, (row, gold) in enumerate(zip(probs, golds, strict=True)):
        pairs = [(question.format(i), f" {choice}") for choice in choices]
        right = float(int(np.argmax(row)) == gold)
        line = sample(i, {"idx": i, "text": question.format(i)}, gold, {"acc": right})
        samples.append(with_choices(line, pairs, np.log(row).tolist()))
    accuracy = float(np.mean([line["acc"] for line in samples]))
    return task_result(samples, {"acc,none": accuracy})


DHRD, POOLED = "DHRD α=1 β=1", "pooled (α=0)"
HF = {"model": "hf", "model_args": {"pretrained": "org/tiny"}}


def rng_right(n: int, p: float, seed: int) -> list[int]:
    """Which of n documents a model of accuracy p answers right."""
    return (np.random.default_rng(seed).random(n) < p).astype(int).tolist()


def write_arm(folder: Path, setting: str, p: float, seeds: Iterable[int], n: int = 100) -> None:
    """Students of one setting with accuracy about `p` on CB and COPA."""
    golds = np.random.default_rng(99).integers(3, size=n)
    for seed in seeds:
        right = rng_right(n, p, 1000 * seed + int(100 * p))
        preds = np.where(right, golds, (golds + 1) % 3)
        tasks = {"cb": cb_task(golds.tolist(), preds.tolist()), "copa": accuracy_task(right)}
        write_results(folder / f"{setting}-{seed}", tasks, config=student(setting, seed))


def write_study(folder: Path) -> Path:
    """Two settings with three seeds each, and a zero-shot model with its CoT twin on COPA."""
    golds = np.arange(56) % 3
    for setting, wrong in ((DHRD, (6, 8, 7)), (POOLED, (20, 21, 23))):
        for seed, n_wrong in enumerate(wrong):
            preds = np.where(np.arange(56) < n_wrong, (golds + 1) % 3, golds)
            tasks = {
                "cb": cb_task(golds.tolist(), preds.tolist()),
                "copa": accuracy_task([0] * (30 + seed) + [1] * (70 - seed)),
                "scenes": accuracy_task([0] * (100 + n_wrong) + [1] * (200 - n_wrong), "scenes"),
            }
            write_results(folder / setting / str(seed), tasks, config=student(setting, seed))
    tasks = {
        "cb": cb_task(golds.tolist(), [0] * 56),
        "copa": accuracy_task([1] * 50 + [0] * 50),  # worse, but not after Holm's correction
        "copa_cot": accuracy_task([1] * 9 + [0] * 91, metric="exact_match"),
    }
    write_results(folder / "hf", tasks, config=HF)
    return folder


def rows(*arguments: Path | str, baseline: str | None = None) -> tuple[Summary, dict[str, Row]]:
    """The summary of what was written, and its rows by name."""
    summary = summarise(load_runs([str(a) for a in arguments]), baseline)
    return summary, {row.name: row for row in summary.rows}
