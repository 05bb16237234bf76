"""Settings of `dhrd-teach` that cannot work are refused by the flag's name."""

from __future__ import annotations

import pytest

from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from teachers.budget import Prices
from teachers.config import TeachConfig
from teachers.prompts import load_prompts

NAN = float("nan")
INF = float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "--task is empty"),
        ({"judge": "hf:x"}, "--judge: of no use without --soft-labels or --verify"),
        ({"votes": 3}, "--votes: of no use without"),
        ({"price_in": 1.0}, "--price-in and --price-out belong together"),
        ({"max_cost": 1.0}, "--max-cost needs --price-in and --price-out"),
        ({"limit": 0}, "--limit 0: need a number from 1"),
        ({"max_attempts": -1}, "--max-attempts -1"),
        ({"verify": True, "votes": 0}, "--votes 0"),
        ({"temperature": -0.1}, "--temperature -0.1: need a number from 0"),
        ({"temperature": NAN}, "--temperature nan"),
        ({"top_p": 0.0}, "--top-p 0: need a number above 0 and at most 1"),
        ({"top_p": 1.1}, "--top-p 1.1"),
        ({"timeout": 0.0}, "--timeout 0: need a number above 0"),
        ({"rpm": INF}, "--rpm inf: leave it out for no limit"),
        ({"max_retries": -1}, "--max-retries -1"),
        ({"price_in": -1.0, "price_out": 1.0}, "--price-in -1"),
        ({"batch_tokens": 0}, "--batch-tokens 0"),
        ({"max_tokens": 0}, "--max-tokens 0"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(DHRDError, match=message) as refusal:
        TeachConfig(teacher="hf:x", **changes)
    assert refusal.value.exit_code == EXIT_BAD_INPUT


def test_modes_are_the_prompts_that_are_tried_in_turn():
    prompts = load_prompts()
    assert TeachConfig("hf:x").asked(prompts) == [prompts.hinted]
    assert TeachConfig("hf:x", mode="blind").asked(prompts) == [prompts.blind]
    assert TeachConfig("hf:x", mode="ladder").asked(prompts) == [prompts.blind, prompts.hinted]


def test_limits_make_a_budget_and_prices_alone_do_not():
    priced = TeachConfig("openai:x", price_in=1.0, price_out=2.0)
    assert priced.budget() is None and priced.prices == Prices(1.0, 2.0)
    assert TeachConfig("openai:x", max_tokens=10).budget().max_tokens == 10
    limited = TeachConfig("openai:x", price_in=1.0, price_out=2.0, max_cost=0.0)
    assert limited.budget().max_cost == 0.0  # nothing may be spent: a limit, too


def test_adapters_get_the_sampling_settings_and_no_others():
    flags = TeachConfig("openai:x", rpm=5.0, limit=3, seed=0).teacher_flags()
    assert flags["rpm"] == 5.0 and flags["seed"] == 0 and flags["tpm"] is None
    assert "limit" not in flags and "teacher" not in flags
