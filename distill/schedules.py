"""Schedules of the reasoning loss's weight: a curriculum from reasoning to classification."""

from __future__ import annotations

import math

ALPHA_SCHEDULES = ("constant", "linear", "cosine", "step")


def alpha_at(
    step: int, total_steps: int, *, schedule: str, alpha: float, alpha_end: float
) -> float:
    """Weight of L_reason at optimizer step `step` of 1 … `total_steps`.

    `linear` and `cosine` go from `alpha` at the first step to `alpha_end` at the last, `step` falls
    to it for the second half, `constant` never does. The paper (arXiv 2509.21487) names annealing
    as future work and gives no formula.

    >>> [alpha_at(s, 5, schedule="linear", alpha=1, alpha_end=0) for s in (1, 3, 5)]
    [1.0, 0.5, 0.0]
    >>> [alpha_at(s, 4, schedule="step", alpha=1, alpha_end=0.1) for s in (1, 2, 3, 4)]
    [1, 1, 0.1, 0.1]
    """
    done = (step - 1) / max(total_steps - 1, 1)
    if schedule == "constant":
        return alpha
    if schedule == "step":
        return alpha if done < 0.5 else alpha_end
    if schedule == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return alpha + (alpha_end - alpha) * done
