"""What a judge's answers say about rationales: sufficiency, leakage and LAS. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from dhrd_plugin import stats
from teachers.audit.lines import Row
from teachers.prompts import View

PROB_BINS = 10


@dataclass(frozen=True)
class Gain:
    """Rows of one group, and the mean of [judge right with row and rationale] - [with row alone].

    `gain` is None where the group is empty.
    """

    rows: int
    gain: float | None


@dataclass(frozen=True)
class LAS:
    """Leakage-adjusted simulatability; `value` is None where a group is empty, `low` and `high`
    (95%) also where the rows show no spread (a group of one, or the same gain in all rows)."""

    value: float | None
    low: float | None
    high: float | None
    leaking: Gain
    other: Gain


@dataclass(frozen=True)
class Verification:
    """What the judge made of the verified rows.

    Attributes:
        rows: those that have all three views.
        sufficiency, leakage, baseline: mean probability of gold from row and rationale, from the
            rationale alone, and from the row alone.
        sufficient, leaking, baseline_right: share of rows whose gold answer is predicted from each.
        gold_probs: by view, rows by the probability of gold, in PROB_BINS bins of equal width from
            0 to 1.
    """

    rows: int
    sufficiency: float
    sufficient: float
    leakage: float
    leaking: float
    baseline: float
    baseline_right: float
    gold_probs: dict[View, list[int]]
    las: LAS


def verification(rows: Iterable[Row]) -> Verification | None:
    """Means over the rows that a judge saw in all three views; None if there are none."""
    seen = [row.judged for row in rows if len(row.judged) == 3]
    if not seen:
        return None
    right = {view: [judged[view].right for judged in seen] for view in seen[0]}
    probs = {view: [judged[view].gold_prob for judged in seen] for view in seen[0]}
    prob = {view: fmean(values) for view, values in probs.items()}
    return Verification(
        rows=len(seen),
        sufficiency=prob["both"],
        sufficient=fmean(right["both"]),
        leakage=prob["rationale"],
        leaking=fmean(right["rationale"]),
        baseline=prob["input"],
        baseline_right=fmean(right["input"]),
        gold_probs={view: _histogram(values) for view, values in probs.items()},
        las=leakage_adjusted_simulatability(right["input"], right["rationale"], right["both"]),
    )


def _histogram(probs: Sequence[float]) -> list[int]:
    """A judge's probabilities may add up to a little more than 1."""
    counts, _ = np.histogram(np.clip(probs, 0, 1), bins=PROB_BINS, range=(0, 1))
    return counts.tolist()


def leakage_adjusted_simulatability(
    from_input: Sequence[bool], from_rationale: Sequence[bool], from_both: Sequence[bool]
) -> LAS:
    """LAS = (G_1 + G_0) / 2, where G_k is the mean of [both] - [input] over the rows with leak k.

    (N,), (N,), (N,) -> in [-1, 1]. Given is whether the judge (the simulator) is right about a row
    from the row alone, from the rationale alone, and from both. A row leaks (k = 1) if the
    rationale alone suffices. So a rationale counts for what it adds to the row, and not for merely
    stating the answer, which would raise the plain accuracy (Hase, Zhang, Xie & Bansal 2020,
    "Leakage-Adjusted Simulatability", Findings of EMNLP, arXiv 2010.04119). They simulate a
    model's outputs; here the output is the gold answer, which the rationales argue for.

    The two groups are independent samples: the interval is Welch's, around the mean of their means.
    """
    gains = np.asarray(from_both, dtype=float) - np.asarray(from_input, dtype=float)
    leaks = np.asarray(from_rationale, dtype=bool)
    groups = [gains[leaks], gains[~leaks]]
    leaking, other = (
        Gain(len(group), float(group.mean()) if len(group) else None) for group in groups
    )
    if leaking.gain is None or other.gain is None:
        return LAS(None, None, None, leaking, other)
    value = (leaking.gain + other.gain) / 2
    if min(leaking.rows, other.rows) < 2 or not any(group.var() for group in groups):
        return LAS(value, None, None, leaking, other)
    errors = [
        stats.ErrorTerm(float(group.var(ddof=1)) / len(group), len(group) - 1).scaled(1 / 2)
        for group in groups
    ]
    interval = stats.interval_around(value, errors, "rows")
    return LAS(value, interval.low, interval.high, leaking, other)
