"""Dev rows: how a checkpoint is judged, by the harness's own metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy.special import logsumexp

from dhrd_plugin.batching import EncodedDecision
from dhrd_plugin.decisions import primary_metric
from dhrd_plugin.scoring import rescale
from distill.calibration import fit_temperature, reliability


@dataclass(frozen=True)
class DevSet:
    """Rows kept back from training.

    Attributes:
        tasks: harness tasks by name, in the order of the heads.
        rows: as token ids.
        docs: the harness documents of `rows`.
    """

    tasks: Mapping[str, Any]
    rows: Sequence[EncodedDecision]
    docs: Sequence[dict]

    def of_task(self, task: str) -> list[int]:
        """Indices of a task's rows."""
        head = list(self.tasks).index(task)
        return [i for i, row in enumerate(self.rows) if row.head == head]

    def judge(self, log_probs: Sequence[Sequence[float]]) -> dict[str, Any]:
        """Result of log-probabilities per choice, in the order of `rows`.

        Several tasks count alike, whatever their number of rows.

        Returns:
            "metrics": by task, its primary metric (the first that it lists), as the harness
            computes and aggregates it; "score": their mean, negated where lower is better; "nll":
            -log p(gold) in nats.
        """
        metrics, scores, nlls = {}, [], []
        for name, task in self.tasks.items():
            indices = self.of_task(name)
            metric = primary_metric(task)
            per_doc = [
                task.process_results(self.docs[i], _as_replies(task, log_probs[i]))[metric]
                for i in indices
            ]
            value = float(task.aggregation()[metric](per_doc))
            metrics[name] = {metric: round(value, 6)}
            scores.append(value if task.higher_is_better().get(metric, True) else -value)
            gold = [[log_probs[i][c] for c in sorted(self.rows[i].gold)] for i in indices]
            nlls.append(fmean(-float(logsumexp(values)) for values in gold))
        return {
            "metrics": metrics,
            "score": round(fmean(scores), 6),
            "nll": round(fmean(nlls), 6),
        }

    def calibrate(self, log_probs: Sequence[Sequence[float]]) -> dict[str, dict[str, Any]]:
        """By task: "temperature", fitted to these rows, and how reliable the probabilities are.

        "before" and "after" are `reliability` without and with the temperature; both are of the
        rows that it was fitted to, hence optimistic.
        """
        calibration = {}
        for name in self.tasks:
            indices = self.of_task(name)
            gold = [self.rows[i].gold for i in indices]
            raw = [log_probs[i] for i in indices]
            temperature = fit_temperature(raw, gold)
            scaled = [rescale(values, temperature) for values in raw]
            calibration[name] = {
                "temperature": temperature,
                "before": reliability(raw, gold),
                "after": reliability(scaled, gold),
            }
        return calibration


def is_better(result: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Higher score; on few dev rows that ties often, and the likelihood decides."""
    return (result["score"], -result["nll"]) > (best["score"], -best["nll"])


def _as_replies(task: Any, log_probs: Sequence[float]) -> list[tuple[float, bool]]:
    """(log-probability, is greedy) per choice, as a harness model would reply."""
    best = max(range(len(log_probs)), key=log_probs.__getitem__)
    replies = [(value, i == best) for i, value in enumerate(log_probs)]
    if "acc_mutual_info" in task.aggregation():  # wants the choices' unconditional likelihoods, too
        replies += [(0.0, False)] * len(log_probs)
    return replies
