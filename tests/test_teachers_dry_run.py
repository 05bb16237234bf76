"""What a run would ask and cost, without asking."""

from __future__ import annotations

from made_decisions import label_decision

from teachers.budget import Prices
from teachers.dry_run import TOKENS_PER_ANSWER, TOKENS_PER_REPLY, TOKENS_PER_TURN, estimate, show
from teachers.prompts import load_prompts

PROMPTS = load_prompts()
ROWS = [label_decision(i) for i in range(3)]


def test_first_pass_is_a_reply_per_row():
    found = estimate(ROWS, PROMPTS.hinted, prices=Prices(prompt=1e6, completion=2e6))
    length = len(PROMPTS.hinted.messages(ROWS[0])[0]["content"].encode())
    assert (found.rows, found.questions, found.requests) == (3, 0, 3)
    assert found.usage.prompt_tokens == 3 * (length // 4 + TOKENS_PER_TURN)
    assert found.usage.completion_tokens == 3 * TOKENS_PER_REPLY
    assert found.usage.cost == found.usage.prompt_tokens + 2 * found.usage.completion_tokens
    assert found.prompt == PROMPTS.hinted.messages(ROWS[0])


def test_second_pass_asks_every_view_as_often_as_it_votes():
    questions = [(view, row) for row in ROWS[:2] for view in PROMPTS.judge.values()]
    found = estimate([], None, questions=questions, votes=5)
    assert (found.rows, found.questions, found.requests) == (0, 6, 30)
    assert found.usage.completion_tokens == 30 * TOKENS_PER_ANSWER
    assert found.usage.cost is None and found.prompt is None
    # A rationale is in two of the three views.
    alone = estimate([], None, questions=questions[::3], votes=5)
    assert found.usage.prompt_tokens > 3 * alone.usage.prompt_tokens + 20 * TOKENS_PER_REPLY - 100


def test_shown_with_cost_and_a_whole_prompt(capsys):
    show(estimate(ROWS, PROMPTS.hinted, prices=Prices(1.0, 2.0)))
    shown = capsys.readouterr().out
    assert "rows to explain:   3" in shown
    assert "$0.0" in shown
    assert "Right answer: True" in shown
    assert "Nothing was sent." in shown
    show(estimate([], None))
    assert "unknown without --price-in" in capsys.readouterr().out
