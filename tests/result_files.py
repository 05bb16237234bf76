"""Result files as lm_eval writes them, made small: what the report's tests read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score


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
