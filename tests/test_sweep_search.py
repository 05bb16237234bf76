"""What a sweep tries: values, ranges, and the order of combinations."""

from __future__ import annotations

import argparse
import math
import sys
from itertools import product

import pytest

from dhrd_plugin.errors import DHRDError
from distill.sweep.search import most_combinations, search
from distill.sweep.space import Range, corners, describe, parse_values, searched

# Space


def test_lists_and_ranges_are_read_and_written_alike():
    assert parse_values("0, 0.1,1") == (0, 0.1, 1)
    assert parse_values("1e-4:2e-3") == Range(1e-4, 2e-3)
    assert Range(1e-4, 2e-3).log and not Range(0, 1).log
    space = {"alpha": (0.0, 0.1), "beta": (1.0,), "lr": Range(1e-4, 2e-3)}
    assert describe(space) == {"alpha": "0,0.1", "beta": "1", "lr": "0.0001:0.002"}
    assert searched(space) == ["alpha", "lr"]
    assert [list(corner.values()) for corner in corners(space)] == [
        [alpha, 1.0, lr] for alpha in (0.0, 0.1) for lr in (1e-4, 2e-3)
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no number"),
        ("0.1,", "'' is no number"),
        ("0.1,much", "'much' is no number"),
        ("nan,1", "'nan' is no number"),
        ("1:inf", "'inf' is no number"),
        ("1,0.1,1.0", "a value is named twice"),
        ("1:1", "LOW < HIGH"),
        ("2e-3:1e-4", "LOW < HIGH"),
        ("-1:1", "0 ≤ LOW"),
        ("1:2:3", "a range is LOW:HIGH"),
        ("0,1:2", "a range is LOW:HIGH"),
    ],
)
def test_values_that_are_neither_list_nor_range(text, why):
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        parse_values(text)


# Search

GRID = {"alpha": (0.0, 0.1, 1.0), "lr": (1e-4, 1e-3)}
RANGES = {"alpha": Range(0, 1), "beta": (0.5, 1.0), "lr": Range(1e-4, 1e-2)}


def asked(space, value=lambda params: params["alpha"], **options):
    """The combinations in the order in which they are asked for."""
    combinations = []

    def evaluate(params):
        combinations.append(params)
        return value(params)

    search(space, evaluate, **{"sampler": "grid", "trials": None, "seed": 0} | options)
    return combinations


def test_grid_has_every_combination_once_even_if_one_fails():
    expected = sorted(product(*GRID.values()))
    for value in (lambda params: params["alpha"], lambda _: math.nan):
        assert sorted(tuple(params.values()) for params in asked(GRID, value)) == expected
    assert asked(GRID, trials=4) == asked(GRID)[:4]
    assert asked(GRID, trials=99) == asked(GRID)


@pytest.mark.parametrize(
    ("space", "sampler", "trials", "number"),
    [
        (GRID, "grid", None, 6),
        (GRID, "grid", 4, 4),
        (GRID, "tpe", None, 6),
        (GRID, "tpe", 99, 6),
        (RANGES, "tpe", None, 20),
        (RANGES, "tpe", 30, 30),
    ],
)
def test_most_combinations(space, sampler, trials, number):
    assert most_combinations(space, sampler=sampler, trials=trials) == number


def tpe(trials, **options):
    def value(params):
        return math.nan if params["lr"] > 2e-3 else -abs(params["alpha"] - 0.5)

    return asked(RANGES, value, sampler="tpe", trials=trials, **options)


def test_tpe_stays_in_range_and_turns_away_from_failures():
    combinations = tpe(30)
    for params in combinations:
        assert 0 <= params["alpha"] <= 1 and 1e-4 <= params["lr"] <= 1e-2
        assert params["beta"] in (0.5, 1.0)
    assert sum(params["lr"] > 2e-3 for params in combinations[15:]) < 6  # 14 if they do not count


def test_tpe_repeats_itself():
    assert tpe(12) == tpe(30)[:12]
    assert tpe(12, seed=1) != tpe(12)


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DHRDError, match=r"pip install 'dhrd\[sweep\]'"):
        asked(GRID)


# Trials
