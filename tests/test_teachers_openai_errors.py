"""The teacher `openai:MODEL` and servers that misbehave: nothing is lost, nothing unaccounted."""

from __future__ import annotations

import gc
import json
import random
import threading
import time
from collections import Counter
from email.utils import formatdate

import chat_server
import pytest
from chat_server import CUT, HANG, SECRET, TRICKLE, ChatServer, Failure, Raw, completion, said
from made_decisions import label_decision, one_split

from dhrd_plugin.errors import DHRDError
from teachers.base import Request, make_teacher
from teachers.generate import teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts
from teachers.server import sending
from teachers.server.completions import retry_after

serve = chat_server.serve  # the fixture

ROWS = [label_decision(i) for i in range(6)]
HINTED = load_prompts().hinted


@pytest.fixture
def output(tmp_path):
    return tmp_path / "r.jsonl"


def run(output, url, rows=ROWS, max_attempts=3, **flags):
    teacher = make_teacher("openai:some-model", [one_split(ROWS)], base_url=url, **flags)
    with RecordStore(output) as store:
        return list(teach(rows, teacher, store, prompts=[HINTED], max_attempts=max_attempts))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kept(output):
    return sorted(record["index"] for record in lines(output))


def rejected(output):
    return lines(output.with_name("r.rejected.jsonl"))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusal_stops_at_once_with_the_reason_and_without_the_key(serve, output, caplog, status):
    server = serve(lambda call: Failure(status, f"bad {SECRET}, also sk-abc***xyz, or no model"))
    with pytest.raises(DHRDError) as refusal:
        run(output, server.url, concurrency=2)
    message = str(refusal.value)
    assert "refused 'some-model'" in message and "or no model" in message
    assert "127.0.0.1" in message and "OPENAI_API_KEY" in message
    assert "sk-" not in message
    assert refusal.value.exit_code == 2
    assert len(server.bodies) <= 2
    assert lines(output) == []
    gc.collect()
    assert "never retrieved" not in caplog.text  # the refusals of requests in flight


@pytest.mark.parametrize(
    "failure", [Failure(429, "no quota", code="insufficient_quota"), Failure(402, "no quota")]
)
def test_used_up_credit_stops_at_once(serve, output, failure):
    server = serve(lambda call: failure)
    with pytest.raises(DHRDError, match=r"no quota(.|\n)*Add credit"):
        run(output, server.url, concurrency=1)
    assert len(server.bodies) == 1


def test_refusal_after_answers_keeps_them_and_is_a_failure_while_running(serve, output):
    server = serve(lambda call: said() if call.row < 3 else Failure(401, "revoked"))
    with pytest.raises(DHRDError, match="revoked") as refusal:
        run(output, server.url, concurrency=1)
    assert refusal.value.exit_code == 1
    assert kept(output) == [0, 1, 2]


def test_what_is_in_flight_when_the_run_stops_is_kept(serve, output):
    both_there, refused = threading.Barrier(2), threading.Event()

    def script(call):
        both_there.wait(timeout=30)
        if call.row == 0:
            refused.set()
            return Failure(401, "revoked")
        refused.wait(timeout=30)
        return said()

    server = serve(script)
    with pytest.raises(DHRDError, match="revoked"):
        run(output, server.url, concurrency=2)
    assert kept(output) == [1]


def test_row_given_up_when_the_run_stops_is_reported_if_it_may_cost(serve):
    """Row 0 is cut off once, row 1 is only refused; then row 2 stops the run."""
    all_there = threading.Barrier(3)

    def script(call):
        if call.n == 1:
            all_there.wait(timeout=30)
        return (CUT, Failure(500), Failure(401, "revoked"))[call.row]

    server = serve(script)
    teacher = make_teacher("openai:m", [], base_url=server.url, concurrency=3, max_retries=10**6)
    replies = []
    with pytest.raises(DHRDError, match="revoked"):
        for request, reply in teacher.explain(Request(row, 1, HINTED) for row in ROWS[:3]):
            replies.append((request.decision.index, reply))
    ((index, reply),) = replies
    assert index == 0 and reply.failure
    assert reply.usage.estimated and reply.usage.tokens > 500


def test_row_that_finally_fails_is_logged_and_the_others_go_on(serve, output):
    server = serve(lambda call: Failure(500, f"broken, {SECRET}") if call.row == 2 else said())
    run(output, server.url, max_retries=4)
    assert kept(output) == [0, 1, 3, 4, 5]
    (failed,) = rejected(output)
    assert (failed["index"], failed["reason"]) == (2, "failed")
    assert "broken" in failed["detail"] and SECRET not in json.dumps(failed)
    assert failed["usage"]["prompt_tokens"] == 0  # errors are not billed
    assert len(server.bodies) == 5 + 5


@pytest.mark.parametrize("status", [400, 413, 422])
def test_row_that_is_refused_is_skipped_at_once(serve, output, status):
    server = serve(lambda call: Failure(status, "too long") if call.row == 2 else said())
    run(output, server.url)
    assert kept(output) == [0, 1, 3, 4, 5]
    assert "too long" in rejected(output)[0]["detail"]
    assert len(server.bodies) == 6


@pytest.mark.parametrize(
    "trouble",
    [
        Failure(408),
        Failure(409),
        Failure(429, headers={"retry-after-ms": "5"}),
        Failure(429, headers={"Retry-After": "0.005"}),
        Failure(429, headers={"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}),
        Failure(429, headers={"Retry-After": "soon"}),
        Failure(500),
        Failure(503),
        CUT,
        HANG,
        TRICKLE,
        Raw(b"{nope"),
        Raw(b"\xff\xfe"),
        Raw(b"[]"),
        Raw(b'{"error": {"message": "upstream is down"}}'),
        Raw(b'{"choices": []}'),
        Raw(b'{"choices": {"a": 1}}'),
        Raw(b'{"choices": [{"message": null}]}'),
    ],
)
def test_error_that_may_pass_is_met_with_a_retry(serve, output, trouble):
    server = serve(lambda call: trouble if call.n == 1 else said())
    run(output, server.url, rows=ROWS[:2], timeout=0.3 if trouble in (HANG, TRICKLE) else 30.0)
    assert [r["attempts"] for r in lines(output)] == [1, 1]
    assert len(server.bodies) == 4
    # What may have been billed is counted; HTTP errors are not billed.
    estimated = {record["usage"]["estimated"] for record in lines(output)}
    assert estimated == {not isinstance(trouble, Failure)}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": formatdate(0)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_is_read_as_a_date(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_000_000.0)
    assert retry_after({"retry-after": formatdate(1_000_030, usegmt=True)}) == 30.0


def test_break_that_is_too_long_ends_the_run(serve, output):
    server = serve(lambda call: Failure(429, "daily limit", headers={"Retry-After": "86400"}))
    with pytest.raises(DHRDError, match=r"no request for 86400 s: .*daily limit"):
        run(output, server.url)


def test_server_that_only_fails_stops_the_run_before_many_rows_are_tried(serve, output):
    server = serve(lambda call: Failure(400, "no such parameter: seed"))
    with pytest.raises(DHRDError, match=r"first 5 requests(.|\n)*no such parameter") as refusal:
        run(output, server.url, rows=[label_decision(i) for i in range(100)], concurrency=1)
    assert refusal.value.exit_code == 2
    assert len(server.bodies) == 5
    assert len(rejected(output)) == 5


def test_first_failures_do_not_stop_a_run_while_others_are_in_flight(serve, output):
    """But no other row is taken until it is known whether the server can answer at all."""
    failed, seen = threading.Semaphore(0), []

    def script(call):
        if call.row == 5:
            for _ in range(5):
                failed.acquire(timeout=30)
            time.sleep(0.2)  # for rows that should not come
            seen.append(len(server.bodies))
        elif not seen:
            failed.release()
            return Failure(400, "too long")
        return said()

    server = serve(script)
    run(output, server.url, rows=[label_decision(i) for i in range(40)], concurrency=6)
    # Six at first, and at most one for each failure before the fifth.
    assert seen[0] <= 10
    assert len(kept(output)) >= 30 and len(rejected(output)) >= 5


def test_many_failures_in_a_row_stop_the_run(serve, output):
    server = serve(lambda call: said() if call.row < 3 else Failure(500, "down for good"))
    rows = [label_decision(i) for i in range(100)]
    with pytest.raises(DHRDError, match=r"16 requests in a row(.|\n)*down for good") as refusal:
        run(output, server.url, rows=rows, concurrency=1, max_retries=1)
    assert refusal.value.exit_code == 1
    assert kept(output) == [0, 1, 2]
    assert len(server.bodies) == 3 + 2 * sending.FAILURES_IN_A_ROW


def test_answers_in_between_keep_a_run_going(serve, output):
    server = serve(lambda call: said() if call.row % 10 == 0 else Failure(500))
    rows = [label_decision(i) for i in range(60)]
    run(output, server.url, rows=rows, concurrency=1, max_retries=0)
    assert kept(output) == [0, 10, 20, 30, 40, 50]


def test_rows_that_are_refused_after_answers_do_not_stop_the_run(serve, output):
    server = serve(lambda call: said() if call.row == 0 else Failure(400, "too long"))
    run(output, server.url, rows=[label_decision(i) for i in range(40)], concurrency=1)
    assert len(rejected(output)) == 39


def test_long_error_page_is_shortened(serve, output):
    server = serve(lambda call: Failure(400, "x" * 5000) if call.row else said())
    run(output, server.url, rows=ROWS[:2], concurrency=1)
    assert len(rejected(output)[0]["detail"]) <= 400


def test_server_that_is_no_chat_server_stops_the_run(serve, output):
    server = serve(lambda call: Raw(b"<html>Welcome</html>", "text/html"))
    with pytest.raises(DHRDError, match=r"sent no chat completion but '<html>Welcome") as refusal:
        run(output, server.url)
    assert refusal.value.exit_code == 2


def test_half_of_a_key_is_not_shown(serve, output):
    server = serve(lambda call: Raw(b"x" * 70 + SECRET.encode(), "text/html"))
    with pytest.raises(DHRDError, match="sent no chat completion") as refusal:
        run(output, server.url)
    assert SECRET[:6] not in str(refusal.value)


def test_unreachable_server_is_one_message(output, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    closed = ChatServer(lambda call: said())
    url = closed.url.replace("http://", "http://user:password@")
    closed.server_close()
    with pytest.raises(DHRDError, match=r"127\.0\.0\.1:\d+/v1 cannot be reached") as refusal:
        run(output, url)
    assert refusal.value.exit_code == 2
    assert "password" not in str(refusal.value)
    assert len(str(refusal.value).splitlines()) < 6


def test_a_thousand_rows_through_a_server_that_does_everything_wrong(serve, output):
    """Every row is kept or rejected with a reason, and asked with its own prompt only."""
    rows = [label_decision(i) for i in range(1000)]
    replies = [
        (60, said()),
        (5, said(answer="False")),
        (5, "No form at all."),
        (3, completion(None, refusal="I would rather not.")),
        (3, completion(said(), usage=None)),
        (1, Failure(429)),
        (1, Failure(429, headers={"retry-after-ms": "3"})),
        (4, Failure(500)),
        (2, Failure(400, "too long")),
        (0.3, HANG),
        (3, CUT),
        (3, Raw(b"{nope")),
        (3, Raw(b'{"choices": []}')),
    ]
    weights = [weight for weight, _ in replies]

    def script(call):
        ((_, reply),) = random.Random(f"{call.row}/{call.n}").choices(replies, weights)
        return reply

    server = serve(script)
    outcomes = run(output, server.url, rows=rows, concurrency=64, timeout=0.5, max_attempts=2)

    assert Counter(o.decision.index for o in outcomes if o.final) == Counter(range(1000))
    accounted = Counter(record["index"] for record in lines(output))
    for attempt in rejected(output):
        assert attempt["reason"] in ("answer", "form", "failed") and attempt["detail"]
    used_up = Counter(r["index"] for r in rejected(output) if r["reason"] != "failed")
    accounted.update(index for index, count in used_up.items() if count == 2)
    accounted.update(r["index"] for r in rejected(output) if r["reason"] == "failed")
    assert accounted == Counter(range(1000))
    assert len(kept(output)) > 800
    details = " ".join(r["detail"] for r in rejected(output))
    assert "declined" in details and "too long" in details

    prompts = {i: HINTED.messages(row) for i, row in enumerate(rows)}
    for body in server.bodies:
        row = int(body["messages"][0]["content"].split("Scene ")[1].split(".")[0])
        assert body == {"model": "some-model", "messages": prompts[row]}
    assert server.most_in_flight <= 64
