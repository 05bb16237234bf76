"""Weight of the reasoning loss over the steps of a run."""

from __future__ import annotations

import doctest

import pytest

from distill import schedules
from distill.schedules import ALPHA_SCHEDULES, alpha_at


def test_examples_in_docstrings_hold():
    result = doctest.testmod(schedules)
    assert result.attempted >= 2
    assert result.failed == 0


def weights(schedule, steps=5, alpha=0.8, alpha_end=0.2):
    return [
        alpha_at(step, steps, schedule=schedule, alpha=alpha, alpha_end=alpha_end)
        for step in range(1, steps + 1)
    ]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.8, 0.8, 0.8, 0.8, 0.8]),
        ("linear", [0.8, 0.65, 0.5, 0.35, 0.2]),
        ("cosine", [0.8, 0.2 + 0.6 * 0.853553, 0.5, 0.2 + 0.6 * 0.146447, 0.2]),
        ("step", [0.8, 0.8, 0.2, 0.2, 0.2]),
    ],
)
def test_weights_by_hand(schedule, expected):
    assert weights(schedule) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("schedule", ALPHA_SCHEDULES)
def test_first_step_has_the_full_weight_also_when_it_is_the_only_one(schedule):
    assert weights(schedule, steps=1) == [0.8]
    assert weights(schedule, steps=2)[0] == 0.8


def test_weight_may_grow():
    assert weights("linear", alpha=0.1, alpha_end=0.5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
