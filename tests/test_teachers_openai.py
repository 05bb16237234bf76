"""The teacher `openai:MODEL`, against a real HTTP server on this machine."""

from __future__ import annotations

import json
import threading

import chat_server
import pytest
from chat_server import SECRET, Failure, completion, said
from made_decisions import GOOD, LEAKING, candidate_decision, label_decision, one_split

from dhrd_plugin.errors import DHRDError
from teachers.base import Question, make_teacher
from teachers.budget import Budget, Prices
from teachers.generate import teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

serve = chat_server.serve  # the fixture

ROWS = [label_decision(i) for i in range(6)]
PROMPTS = load_prompts()


@pytest.fixture
def output(tmp_path):
    return tmp_path / "r.jsonl"


def ask(url, **flags):
    return make_teacher("openai:some-model", [one_split(ROWS)], base_url=url, **flags)


def run(output, url, rows=ROWS, max_attempts=3, **flags):
    with RecordStore(output) as store:
        prompts = [PROMPTS.hinted]
        return list(
            teach(rows, ask(url, **flags), store, prompts=prompts, max_attempts=max_attempts)
        )


def predict(url, rows=ROWS, view="input", votes=3, **flags):
    """Predictions by row."""
    questions = (Question(row, PROMPTS.judge[view], GOOD, votes=votes) for row in rows)
    predictions = ask(url, **flags).predict(questions)
    return {question.decision.index: prediction for question, prediction in predictions}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_request_carries_the_prompt_and_nothing_unasked(serve, output):
    server = serve(lambda call: said())
    run(output, server.url, rows=ROWS[:1])
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [{"model": "some-model", "messages": PROMPTS.hinted.messages(ROWS[0])}]
    assert server.keys == [f"Bearer {SECRET}"]
    (record,) = lines(output)
    assert (record["rationale"], record["attempts"], record["origin"]) == (GOOD, 1, "hinted")
    assert record["usage"] == {
        "prompt_tokens": 11, "completion_tokens": 22, "cost": None, "estimated": False
    }  # fmt: skip
    assert record["teacher"]["adapter"] == "openai"
    assert record["teacher"]["params"] == {}
    assert record["checks"]["answer"] == "True"


def test_settings_are_sent_and_recorded(serve, output):
    server = serve(lambda call: said())
    run(output, server.url, rows=ROWS[:1], temperature=0.5, top_p=0.9, max_new_tokens=300)
    assert server.bodies[0].items() >= {
        "temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 300
    }.items()  # fmt: skip
    assert lines(output)[0]["teacher"]["params"] == {
        "temperature": 0.5, "top_p": 0.9, "max_new_tokens": 300
    }  # fmt: skip


def test_wrong_answer_and_leak_are_asked_again(serve, output):
    def script(call):
        if call.n > 1:
            return said()
        return {1: said(answer="False"), 2: said(LEAKING), 3: GOOD}.get(call.row, said())

    server = serve(script)
    run(output, server.url)
    assert {r["index"]: r["attempts"] for r in lines(output)} == {
        0: 1, 1: 2, 2: 2, 3: 2, 4: 1, 5: 1
    }  # fmt: skip
    rejected = lines(output.with_name("r.rejected.jsonl"))
    assert {r["index"]: r["reason"] for r in rejected} == {1: "answer", 2: "leak", 3: "form"}
    assert len(server.bodies) == 9


def test_seed_is_sent_when_given_another_one_for_each_attempt(serve, output):
    server = serve(lambda call: said(answer="True" if call.n == 2 else "False"))
    run(output, server.url, rows=ROWS[:2], seed=5)
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == 4 and all(0 <= seed < 2**31 for seed in seeds)
    assert lines(output)[0]["teacher"]["params"] == {"seed": 5}


def test_requests_overlap_but_no_more_than_allowed(serve, output):
    server = serve(lambda call: said())
    server.gate = threading.Barrier(3)  # opens only when three requests wait at once
    run(output, server.url, concurrency=3)
    assert server.most_in_flight == 3
    assert sorted(r["index"] for r in lines(output)) == list(range(6))


def test_cost_is_recorded(serve, output):
    server = serve(lambda call: completion(said(), usage=(1000, 100)))
    run(output, server.url, rows=ROWS[:1], prices=Prices(prompt=1.0, completion=20.0))
    assert lines(output)[0]["usage"]["cost"] == pytest.approx(0.003)


def test_usage_that_is_not_reported_is_estimated_from_above(serve, output):
    server = serve(lambda call: completion(said(), usage=None))
    run(output, server.url, rows=ROWS[:1], max_new_tokens=300)
    usage = lines(output)[0]["usage"]
    text = PROMPTS.hinted.messages(ROWS[0])[0]["content"]
    assert usage["estimated"]
    assert usage["prompt_tokens"] > len(text.encode()) and usage["completion_tokens"] >= 300


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        (completion(None, refusal="I cannot help with that."), "declined: I cannot help"),
        (completion(None, finish_reason="content_filter"), "declined: content filter"),
        (completion(GOOD, finish_reason="length"), "cut off after 22 tokens"),
        (completion(said(), finish_reason="length"), "cut off after 22 tokens"),
        (completion(None), "no [END OF REASONING]"),
    ],
)
def test_reply_that_is_none_is_broken_form_with_the_reason(serve, output, reply, detail):
    server = serve(lambda call: reply)
    run(output, server.url, rows=ROWS[:1], max_attempts=1)
    (rejected,) = lines(output.with_name("r.rejected.jsonl"))
    assert rejected["reason"] == "form" and detail in rejected["detail"]


def test_key_in_a_reply_reaches_no_file(serve, output):
    server = serve(lambda call: said(f"{GOOD} My key is {SECRET}."))
    run(output, server.url, rows=ROWS[:1])
    assert lines(output)[0]["rationale"].endswith("My key is [key].")
    assert all(SECRET not in path.read_text() for path in output.parent.iterdir())


def test_half_a_surrogate_pair_is_stored_as_valid_text(serve, output):
    server = serve(lambda call: said(f"{GOOD} \ud83d."))
    run(output, server.url, rows=ROWS[:1])
    assert lines(output)[0]["rationale"].endswith("?.")


def test_cap_goes_by_its_older_name_where_the_newer_one_is_refused(serve, output):
    def script(call):
        if "max_completion_tokens" in call.body:
            return Failure(422, "Extra inputs are not permitted: max_completion_tokens")
        return said()

    server = serve(script)
    run(output, server.url, max_new_tokens=99, concurrency=1)
    assert [body.get("max_tokens") for body in server.bodies] == [None] + [99] * 6
    assert len(lines(output)) == 6


def test_refusal_that_only_mentions_the_cap_does_not_change_its_name(serve, output):
    def script(call):
        too_long = "too long: 500 tokens and 99 of max_completion_tokens"
        return Failure(400, too_long) if call.row == 1 else said()

    server = serve(script)
    run(output, server.url, max_new_tokens=99, concurrency=1)
    assert [body["max_completion_tokens"] for body in server.bodies] == [99] * 6
    assert len(lines(output)) == 5


def test_budget_caps_the_reply(serve, output):
    server = serve(lambda call: said())
    run(output, server.url, rows=ROWS[:1], budget=Budget(max_tokens=10_000))
    assert server.bodies[0]["max_completion_tokens"] == 512
    assert lines(output)[0]["teacher"]["params"] == {}  # a budget given later changes nothing


def test_logprobs_of_the_first_answer_token_are_the_distribution(serve):
    alternatives = {"True": 0.6, " false": 0.2, "T": 0.1, "Perhaps": 0.1}
    server = serve(lambda call: completion("True", logprobs=[alternatives, {".": 1.0}]))
    prediction = predict(server.url, rows=ROWS[:1])[0]
    assert prediction.method == "top_logprobs"
    assert prediction.probs == pytest.approx((0.7 / 0.9, 0.2 / 0.9, 0.0))
    (body,) = server.bodies
    assert body["messages"] == PROMPTS.judge["input"].messages(ROWS[0], "")
    assert (body["logprobs"], body["top_logprobs"], body["max_completion_tokens"]) == (True, 20, 32)


def test_votes_where_the_server_gives_no_logprobs(serve):
    """The first reply is a vote too, and the server is not asked for log-probabilities again."""
    votes = ["False", "Answer: True", "perhaps", "true", '"True".']
    server = serve(lambda call: votes[call.n - 1])
    predictions = predict(server.url, rows=ROWS[:2], votes=5, concurrency=1, seed=3)
    assert predictions[0].method == "votes:4"
    assert predictions[0].probs == (0.75, 0.25, 0.0)
    assert predictions[0].usage.prompt_tokens == 5 * 11
    assert ["logprobs" in body for body in server.bodies] == [True] + [False] * 9
    assert len({body["seed"] for body in server.bodies}) == 10


def test_votes_where_the_server_refuses_logprobs(serve):
    def script(call):
        return Failure(400, "logprobs is not supported") if "logprobs" in call.body else "False"

    server = serve(script)
    predictions = predict(server.url, rows=ROWS[:2], votes=2, concurrency=1)
    assert {(p.method, p.probs) for p in predictions.values()} == {("votes:2", (0.0, 1.0, 0.0))}
    assert len(server.bodies) == 1 + 2 * 2
    assert "seed" not in server.bodies[0] and "n" not in server.bodies[0]


def test_votes_where_the_logprobs_do_not_tell(serve):
    vague = {"Well": 0.6, "True": 0.4}
    server = serve(lambda call: completion("Well", logprobs=[vague]) if call.n == 1 else "True")
    prediction = predict(server.url, rows=ROWS[:1], votes=3)[0]
    assert (prediction.method, prediction.probs) == ("votes:2", (1.0, 0.0, 0.0))


def test_vote_that_fails_is_left_out(serve):
    server = serve(lambda call: Failure(400, "unlucky") if call.n == 2 else "True")
    assert predict(server.url, rows=ROWS[:1], votes=3)[0].method == "votes:2"


def test_no_readable_vote_is_a_failure(serve):
    server = serve(lambda call: "I would rather not say.")
    prediction = predict(server.url, rows=ROWS[:1], votes=2)[0]
    assert prediction.probs is None and prediction.method is None
    assert "names a choice" in prediction.failure and "rather not" in prediction.failure
    assert prediction.usage.prompt_tokens == 2 * 11


def test_letters_are_predicted_for_candidates(serve):
    server = serve(lambda call: completion("B", logprobs=[{"B": 0.7, "(A": 0.2, "I": 0.1}]))
    server.count = lambda body: None  # its prompt names no scene
    prediction = predict(server.url, rows=[candidate_decision()], view="both")[0]
    assert prediction.probs == pytest.approx((0.2 / 0.9, 0.7 / 0.9))


def test_missing_key_is_an_error_but_not_for_a_local_server(serve, output, monkeypatch):
    server = serve(lambda call: said())
    monkeypatch.delenv("OPENAI_API_KEY")
    for url in (None, "https://example.org/v1"):
        with pytest.raises(DHRDError, match="set OPENAI_API_KEY") as refusal:
            make_teacher("openai:some-model", [], base_url=url)
        assert refusal.value.exit_code == 2
    run(output, server.url, rows=ROWS[:1])
    assert len(lines(output)) == 1


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "11", "completion_tokens": "22"},
        {"prompt_tokens": -11, "completion_tokens": 22},
        {"prompt_tokens": 11, "completion_tokens": -22},
        {"prompt_tokens": 11.5, "completion_tokens": 22},
        {"prompt_tokens": 11, "completion_tokens": True},
        [11, 22],
    ],
)
def test_usage_that_cannot_be_is_estimated_from_above(serve, output, usage):
    server = serve(lambda call: {**completion(said()), "usage": usage})
    budget = Budget(max_cost=1.0)
    run(output, server.url, rows=ROWS[:1], budget=budget, prices=Prices(1.0, 2.0))
    (record,) = lines(output)
    assert record["usage"]["estimated"]
    assert record["usage"]["cost"] == pytest.approx(budget.spent.cost) and budget.spent.cost > 0


@pytest.mark.parametrize(
    "token",
    [
        {"token": "True", "top_logprobs": [{"token": "True", "logprob": None}]},
        {"token": "True", "top_logprobs": [{"token": "True", "logprob": 9999.0}]},
        {"token": "True", "top_logprobs": [{"logprob": -0.1}]},
        {"token": "True", "top_logprobs": "True"},
        {"token": 5, "top_logprobs": [{"token": "True", "logprob": -0.1}]},
    ],
)
def test_votes_where_the_logprobs_are_none(serve, token):
    def script(call):
        reply = completion("True")
        reply["choices"][0]["logprobs"] = {"content": [token]}
        return reply

    assert predict(serve(script).url, rows=ROWS[:1], votes=2)[0].method == "votes:2"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OPENAI_API_KEY", "two words", "OPENAI_API_KEY holds characters"),
        ("OPENAI_BASE_URL", "localhost:8000/v1", "need http://"),
        ("OPENAI_BASE_URL", "htps://user:password@host/v1", "need http://"),
        ("OPENAI_BASE_URL", "http://", "need http://"),
        ("OPENAI_BASE_URL", "http://local host/v1", "need http://"),
        ("OPENAI_BASE_URL", "http://[::1/v1", "need http://"),
        ("OPENAI_BASE_URL", "http://localhost:99999/v1", "need http://"),
        ("OPENAI_BASE_URL", "http://localhost:PORT/v1", "need http://"),
    ],
)
def test_unusable_settings_are_named(monkeypatch, name, value, message):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv(name, value)
    with pytest.raises(DHRDError, match=message) as refusal:
        make_teacher("openai:some-model", [])
    assert "password" not in str(refusal.value)


def test_limit_on_cost_without_prices_is_an_error(serve):
    with pytest.raises(DHRDError, match="--price-in"):
        ask("http://localhost/v1", budget=Budget(max_cost=1.0))
