"""What is sent when: per minute, in flight, again, and within a budget. Mostly on a fake clock."""

from __future__ import annotations

import asyncio
import random
import selectors
import threading

import chat_server
import pytest
from chat_server import CUT, Failure, Raw, completion, said
from made_decisions import label_decision
from test_pacing import most_in_a_minute

from dhrd_plugin.errors import DHRDError
from teachers.base import Question, Request, make_teacher
from teachers.budget import Budget, BudgetReached, Prices, Usage
from teachers.prompts import load_prompts
from teachers.server import sending
from teachers.server.completions import Answer, NoAnswer
from teachers.server.sending import Pool, Tally

serve = chat_server.serve  # the fixture

PROMPTS = load_prompts()
MOST = Usage(100, 50)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when there is nothing else to do."""

    class Selector(selectors.SelectSelector):
        loop: FakeTimeLoop

        def select(self, timeout=None):
            assert timeout is not None, "everything waits, and for no timer"
            self.loop.now += timeout
            return super().select(0)

    def __init__(self):
        selector = self.Selector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self):
        return self.now


def in_fake_time(coroutine):
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(coroutine)


class FakeServer:
    """Answers `script(n)` to the n-th send (from 0) after `delay` seconds: an answer, or an error.

    Attributes:
        sent: times of all sends.
    """

    def __init__(self, script=lambda n: Usage(10, 5), delay=1.0):
        self.script, self.delay = script, delay
        self.sent = []
        self.in_flight = self.most_in_flight = 0

    async def __call__(self):
        n = len(self.sent)
        self.sent.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.delay)
        self.in_flight -= 1
        reply = self.script(n)
        if isinstance(reply, NoAnswer):
            raise reply
        return Answer("text", None, None, reply)


def pool(**changes):
    settings = {"concurrency": 8, "max_retries": 5, "rpm": None, "tpm": None, "budget": None}
    return Pool("http://server", **settings | changes)


def run_pool(pool, server, items):
    """Send one request for each of so many items; (results, error)."""
    todo, results = iter(range(items)), []

    async def take():
        return next(todo, None)

    async def answer(item, tally):
        await pool.send(server, MOST, tally)
        return item, None, tally.usage

    def failed(item, reason, usage):
        return item, reason, usage

    try:
        in_fake_time(pool.run(take, results.append, answer, failed))
    except DHRDError as error:
        return results, error
    return results, None


def test_requests_in_flight_are_as_many_as_allowed():
    server = FakeServer()
    results, _ = run_pool(pool(concurrency=5), server, items=20)
    assert sorted(item for item, _, _ in results) == list(range(20))
    assert server.most_in_flight == 5
    assert server.sent[-1] == 3.0  # four rounds of a second


def test_burst_of_refusals_halves_the_requests_in_flight(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    server = FakeServer(lambda n: NoAnswer("slow down", too_many=True) if n < 8 else Usage(1, 1))
    results, _ = run_pool(pool(), server, items=30)
    assert len(results) == 30
    assert server.most_in_flight == 8
    # All eight try again after 2 seconds, but now only four at a time.
    assert sorted(server.sent)[8:16] == [3.0] * 4 + [4.0] * 4


def test_retry_after_holds_all_requests_back():
    server = FakeServer(lambda n: NoAnswer("busy", retry_after=30.0) if n == 2 else Usage(1, 1))
    results, _ = run_pool(pool(concurrency=4), server, items=12)
    assert len(results) == 12 and all(reason is None for _, reason, _ in results)
    assert [t for t in server.sent if 1.0 < t < 31.0] == []
    assert sum(t >= 31.0 for t in server.sent) >= 8


def test_without_retry_after_the_pauses_double_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    server = FakeServer(lambda n: NoAnswer("broken"), delay=0.0)
    ((_, reason, _),), _ = run_pool(pool(max_retries=8), server, items=1)
    assert reason == "broken"
    pauses = [b - a for a, b in zip(server.sent, server.sent[1:], strict=False)]
    assert pauses == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60])


def test_pauses_have_full_jitter(monkeypatch):
    asked = []
    monkeypatch.setattr(random, "uniform", lambda *bounds: asked.append(bounds) or 0.0)
    run_pool(pool(max_retries=2), FakeServer(lambda n: NoAnswer("broken")), items=1)
    assert asked == [(0, sending.BACKOFF), (0, 2 * sending.BACKOFF)]


def test_requests_per_minute_count_retries():
    flaky = random.Random(1)
    server = FakeServer(lambda n: Usage(1, 1) if flaky.random() < 0.5 else NoAnswer("broken"))
    results, _ = run_pool(pool(concurrency=64, rpm=30, max_retries=20), server, items=60)
    assert len(results) == 60
    assert len(server.sent) > 90
    assert most_in_a_minute([(time, 1) for time in server.sent]) <= 30
    assert server.sent[9] >= 17.0  # no burst at the start


def test_tokens_per_minute_hold_whatever_was_set_aside():
    server = FakeServer(lambda n: Usage(60, 40))
    run_pool(pool(concurrency=64, tpm=3000), server, items=100)
    assert most_in_a_minute([(time, 100) for time in server.sent]) <= 3000
    assert server.sent[-1] <= 1.05 * 100 * 100 / 3000 * 60


def test_only_one_request_waits_for_its_turn():
    """So little is left to be sent when the run is to stop."""
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    server, limited = FakeServer(), pool(concurrency=64, rpm=6)
    todo = items()

    async def take():
        assert len(taken) <= len(server.sent)
        return next(todo, None)

    async def answer(item, tally):
        await limited.send(server, MOST, tally)

    in_fake_time(limited.run(take, lambda result: None, answer, None))
    assert len(server.sent) == 100


def test_budget_waits_for_requests_in_flight_that_use_less_than_was_set_aside():
    """Of 1,000 tokens, a request sets 150 aside and uses 15."""
    budget, server = Budget(max_tokens=1000), FakeServer()
    results, error = run_pool(pool(concurrency=64, budget=budget), server, items=200)
    assert isinstance(error, BudgetReached) and error.exit_code == 1
    assert server.most_in_flight == 6
    assert budget.spent.tokens == 15 * len(results) <= 1000
    assert 1000 - budget.spent.tokens < 150


def test_row_whose_retry_no_longer_fits_is_reported_with_what_it_cost():
    budget = Budget(max_tokens=200)
    server = FakeServer(lambda n: NoAnswer("timeout", used=None))
    ((_, reason, usage),), error = run_pool(pool(budget=budget), server, items=1)
    assert isinstance(error, BudgetReached)
    assert "ended" in reason
    assert usage == Usage(100, 50, estimated=True) == budget.spent


def test_server_that_goes_beyond_what_it_was_asked_for_ends_a_run_with_a_budget():
    budget, server = Budget(max_tokens=100_000), FakeServer(lambda n: Usage(10, 51))
    results, error = run_pool(pool(concurrency=1, budget=budget), server, items=9)
    assert [usage.tokens for _, _, usage in results] == [61]
    assert "does not keep to the length" in str(error)
    results, error = run_pool(pool(concurrency=1), FakeServer(lambda n: Usage(10, 51)), items=9)
    assert len(results) == 9 and error is None


def test_send_that_is_cancelled_is_charged():
    budget = Budget(max_tokens=1000)
    cancelled = pool(budget=budget)
    tally = Tally()

    async def run():
        task = asyncio.create_task(cancelled.send(FakeServer(), MOST, tally))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])

    in_fake_time(run())
    assert tally.usage == budget.spent == Usage(100, 50, estimated=True)


def test_what_earlier_runs_spent_counts_and_is_priced_if_it_was_not():
    budget = Budget(max_cost=1.0)
    earlier = Usage(300_000, 100_000, cost=0.25)  # of which half the tokens had a price
    budget.charge(earlier, unpriced=Usage(150_000, 50_000), prices=Prices(1.0, 2.0))
    assert budget.spent == Usage(300_000, 100_000, cost=0.5)
    assert not budget.reserve(Usage(cost=0.6)) and budget.reserve(Usage(cost=0.4))


def bill_of(server, prices):
    """(tokens, US dollars) that a server with a byte-level tokenizer bills."""
    return server.tokens, prices.usage(*server.billed).cost


@pytest.mark.parametrize("limit", [{"max_tokens": 60_000}, {"max_cost": 0.06}])
@pytest.mark.parametrize("kind", ["explain", "predict"])
def test_no_number_of_requests_in_flight_breaks_a_limit(serve, limit, kind):
    """The server counts by itself, and bills for replies that never arrive, too."""
    prices = Prices(prompt=0.5, completion=2.0)
    guard, billed, over = threading.Lock(), [0, 0], []

    def script(call):
        chance = random.Random(f"{call.row}/{call.n}")
        if chance.random() < 0.1:
            return Failure(500)
        prompt = len(call.body["messages"][0]["content"].encode()) + 30  # a chat template
        new = chance.randint(1, call.body["max_completion_tokens"])
        with guard:
            billed[0] += prompt
            billed[1] += new
            over.append(sum(billed) > 60_000 if "max_tokens" in limit else cost() > 0.06)
        text = said() if kind == "explain" else "True"
        reply = completion(text, usage=(prompt, new))
        lost = completion(text, usage=None)
        return chance.choices([reply, lost, CUT, Raw(b"{nope")], [80, 10, 5, 5])[0]

    def cost():
        return prices.usage(*billed).cost

    server = serve(script)
    budget = Budget(**limit)
    teacher = make_teacher(
        "openai:m", [], base_url=server.url, concurrency=64, budget=budget, prices=prices
    )
    rows = [label_decision(i) for i in range(500)]
    used = Usage()
    with pytest.raises(BudgetReached):
        if kind == "explain":
            for _, reply in teacher.explain(Request(row, 1, PROMPTS.hinted) for row in rows):
                used += reply.usage
        else:
            judge = PROMPTS.judge["input"]
            for _, prediction in teacher.predict(Question(row, judge, votes=3) for row in rows):
                used += prediction.usage
    assert len(over) > 40 and not any(over)
    assert sum(billed) <= used.tokens and cost() <= used.cost
    # What is reported with the rows is what was charged; the rest did not suffice for a request.
    assert used.tokens == budget.spent.tokens
    spent = used.tokens / 60_000 if "max_tokens" in limit else used.cost / 0.06
    assert 0.9 < spent <= 1.0
