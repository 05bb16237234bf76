"""Limits per minute and in flight, as arithmetic."""

from __future__ import annotations

import random

import pytest

from teachers.server.pacing import AdaptiveLimit, MinuteLimit


def most_in_a_minute(sent):
    """Largest sum of amounts in any window of 60 s; `sent` is (time, amount), sorted."""
    return max(
        sum(amount for time, amount in sent[i:] if time < start + 60)
        for i, (start, _) in enumerate(sent)
    )


@pytest.mark.parametrize("limit", [0.5, 1, 7, 60, 1000])
def test_minute_limit_holds_in_every_minute_and_wastes_nothing(limit):
    late = random.Random(0)
    minute, now, sent = MinuteLimit(limit), 5.0, []
    for _ in range(max(4, int(3.5 * limit))):
        while wait := minute.wait(now, 1):
            now += wait + late.uniform(0, 0.05)  # wake-ups are late
        minute.add(now, 1)
        sent.append((now, 1))
    assert most_in_a_minute(sent) <= max(1, limit)
    assert now - 5.0 <= (len(sent) - 1) * 60 / limit * 1.01 + 0.1


def test_minute_limit_has_no_burst_at_the_start_or_after_a_break():
    minute, now, sent = MinuteLimit(60), 0.0, []
    for number in range(40):
        now += minute.wait(now, 1)
        minute.add(now, 1)
        sent.append(now)
        now += 30.0 if number == 19 else 0.0
    for start in (0.0, sent[20]):
        assert sum(start <= time < start + 5 for time in sent) <= 6


def test_minute_limit_goes_on_with_what_was_used_not_with_the_estimate():
    """1,000 tokens are set aside for each request, which uses 250 and takes 2 seconds."""
    minute, now, sent, open_ = MinuteLimit(15_000), 0.0, [], []
    while now < 300.0:
        while open_ and open_[0].time + 2.0 <= now:
            minute.correct(now, open_.pop(0), 250)
        if wait := minute.wait(now, 1000):
            now += min(wait, 0.5)
            continue
        open_.append(minute.add(now, 1000))
        sent.append((now, 250))
    assert most_in_a_minute(sent) <= 15_000
    # 60 a minute would be 15,000 tokens; what is set aside for those in flight is not to be had.
    assert len(sent) > 0.85 * 300


def test_correction_after_more_than_a_minute_does_not_count_twice():
    minute = MinuteLimit(100)
    slow = minute.add(0.0, 100)
    assert minute.wait(61.0, 100) == 0.0
    minute.correct(61.0, slow, 10)
    minute.add(61.0, 50)
    assert minute.wait(91.0, 50) == 0.0
    assert minute.wait(91.0, 51) == pytest.approx(30.0)


def test_more_than_the_limit_at_once_waits_for_a_free_minute():
    minute = MinuteLimit(100)
    assert minute.wait(0.0, 500) == 0.0
    minute.add(0.0, 10)
    assert minute.wait(30.0, 500) == pytest.approx(30.0)


def test_adaptive_limit_is_halved_once_for_a_flight_and_grows_by_one_a_round():
    limit = AdaptiveLimit(64)
    for _ in range(40):
        limit.refused(0)
    assert limit.now == 32
    for _ in range(24):
        limit.answered(0)  # sent before the halving: says nothing about the new limit
    assert limit.now == 32
    for _ in range(32):
        limit.answered(limit.flight)
    assert limit.now == 33
    limit.refused(limit.flight)
    assert limit.now == 16


def test_adaptive_limit_keeps_within_one_and_the_most():
    limit = AdaptiveLimit(3)
    for _ in range(9):
        limit.refused(limit.flight)
    assert limit.now == 1
    for _ in range(20):
        limit.answered(limit.flight)
    assert limit.now == 3
