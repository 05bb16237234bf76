"""The teacher `openai:MODEL`, against a real HTTP server on this machine."""

from __future__ import annotations

import gc
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from made_decisions import GOOD, LEAKING, label_decision, one_split

from dhrd_plugin.errors import DHRDError
from teachers.base import make_teacher
from teachers.generate import teach
from teachers.prompts import HINTED
from teachers.store import RecordStore

ROWS = [label_decision(i) for i in range(6)]
SECRET = "sk-very-secret-0123456789"


def said(rationale=GOOD, answer="True"):
    return f"{rationale} [END OF REASONING]\nAnswer: {answer}"


class ChatServer(ThreadingHTTPServer):
    """Answers chat completions with `script(row index, n)`: a text, (status, error message), or
    bytes that are sent as a web page.

    `n` counts the requests for that row from 1. Request bodies, keys and paths are kept.
    """

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.bodies, self.keys, self.paths = [], [], []
        self.in_flight = self.most_in_flight = 0
        self.guard = threading.Lock()
        self.gate = None  # a barrier that requests wait at, to prove that they overlap

    def handle_error(self, request, client_address):
        """A cancelled request hangs up; that is no matter for the test's output."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        row = int(prompt.split("Scene ")[1].split(".")[0])
        with server.guard:
            server.bodies.append(body)
            server.keys.append(self.headers["Authorization"])
            server.paths.append(self.path)
            n = sum(f"Scene {row}." in b["messages"][0]["content"] for b in server.bodies)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        if server.gate is not None:
            server.gate.wait(timeout=30)
        answer = server.script(row, n)
        with server.guard:
            server.in_flight -= 1
        if isinstance(answer, bytes):
            status, payload = 200, None
        elif isinstance(answer, tuple):
            status, message = answer
            payload = {"error": {"message": message, "type": "error"}}
        else:
            status = 200
            payload = {
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": answer},
                    }
                ],
                "usage": {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33},
            }
        data = answer if payload is None else json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if payload is None else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Starts a server with a script."""
    servers = []

    def start(script):
        server = ChatServer(script)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "r.jsonl"


def run(output, url, rows=ROWS, max_attempts=3, **flags):
    teacher = make_teacher("openai:some-model", [one_split(ROWS)], base_url=url, **flags)
    with RecordStore(output) as store:
        return list(teach(rows, teacher, store, prompt=HINTED, max_attempts=max_attempts))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_request_carries_the_prompt_and_nothing_unasked(serve, output):
    server = serve(lambda row, n: said())
    run(output, server.url, rows=ROWS[:1])
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [
        {
            "model": "some-model",
            "messages": [{"role": "user", "content": HINTED.render(ROWS[0])}],
        }
    ]
    assert server.keys == [f"Bearer {SECRET}"]
    (record,) = lines(output)
    assert (record["rationale"], record["attempts"]) == (GOOD, 1)
    assert record["usage"] == {"prompt_tokens": 11, "completion_tokens": 22}
    assert record["teacher"]["adapter"] == "openai"
    assert record["checks"]["answer"] == "True"


def test_wrong_answer_and_leak_are_asked_again(serve, output):
    def script(row, n):
        if n > 1:
            return said()
        return {1: said(answer="False"), 2: said(LEAKING), 3: GOOD}.get(row, said())

    server = serve(script)
    run(output, server.url)
    assert {r["index"]: r["attempts"] for r in lines(output)} == {
        0: 1, 1: 2, 2: 2, 3: 2, 4: 1, 5: 1
    }  # fmt: skip
    rejected = lines(output.with_name("r.rejected.jsonl"))
    assert {r["index"]: r["reason"] for r in rejected} == {1: "answer", 2: "leak", 3: "form"}
    assert len(server.bodies) == 9


def test_seed_is_sent_when_given_another_one_for_each_attempt(serve, output):
    server = serve(lambda row, n: said(answer="True" if n == 2 else "False"))
    run(output, server.url, rows=ROWS[:2], seed=5)
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == 4 and all(0 <= seed < 2**31 for seed in seeds)
    assert lines(output)[0]["teacher"]["params"] == {"seed": 5}


def test_requests_overlap_but_no_more_than_allowed(serve, output):
    server = serve(lambda row, n: said())
    server.gate = threading.Barrier(3)  # opens only when three requests wait at once
    run(output, server.url, concurrency=3)
    assert server.most_in_flight == 3
    assert sorted(r["index"] for r in lines(output)) == list(range(6))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusal_stops_at_once_with_the_reason_and_without_the_key(serve, output, caplog, status):
    server = serve(lambda row, n: (status, f"bad key {SECRET}, also sk-abc***xyz, or no model"))
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


def test_refusal_after_answers_keeps_them_and_is_a_failure_while_running(serve, output):
    server = serve(lambda row, n: said() if row < 3 else (401, "revoked"))
    with pytest.raises(DHRDError, match="revoked") as refusal:
        run(output, server.url, concurrency=1)
    assert refusal.value.exit_code == 1
    assert [r["index"] for r in lines(output)] == [0, 1, 2]


def test_row_that_finally_fails_is_logged_and_the_others_go_on(serve, output):
    server = serve(lambda row, n: (500, f"broken, {SECRET}") if row == 2 else said())
    run(output, server.url)
    assert sorted(r["index"] for r in lines(output)) == [0, 1, 3, 4, 5]
    (failed,) = lines(output.with_name("r.rejected.jsonl"))
    assert (failed["index"], failed["reason"]) == (2, "failed")
    assert "broken" in failed["detail"] and SECRET not in json.dumps(failed)
    assert len(server.bodies) == 5 + 3  # the client's own retries


def test_passing_error_is_retried_by_the_client(serve, output):
    server = serve(lambda row, n: (429, "slow down") if n == 1 else said())
    run(output, server.url, rows=ROWS[:2])
    assert [r["attempts"] for r in lines(output)] == [1, 1]


def test_key_in_a_reply_reaches_no_file(serve, output):
    server = serve(lambda row, n: said(f"{GOOD} My key is {SECRET}."))
    run(output, server.url, rows=ROWS[:1])
    assert lines(output)[0]["rationale"].endswith("My key is [key].")
    assert all(SECRET not in path.read_text() for path in output.parent.iterdir())


def test_half_a_surrogate_pair_is_stored_as_valid_text(serve, output):
    server = serve(lambda row, n: said(f"{GOOD} \ud83d."))
    run(output, server.url, rows=ROWS[:1])
    assert lines(output)[0]["rationale"].endswith("?.")


def test_empty_reply_is_broken_form(serve, output):
    server = serve(lambda row, n: None)
    run(output, server.url, rows=ROWS[:1], max_attempts=1)
    assert lines(output.with_name("r.rejected.jsonl"))[0]["reason"] == "form"


def test_server_that_is_no_chat_server_stops_the_run(serve, output):
    server = serve(lambda row, n: b"<html>Welcome</html>")
    with pytest.raises(DHRDError, match=r"sent no chat completion but '<html>Welcome") as refusal:
        run(output, server.url)
    assert refusal.value.exit_code == 2


def test_unreachable_server_is_one_message(output):
    closed = ChatServer(lambda row, n: said())
    url = closed.url.replace("http://", "http://user:password@")
    closed.server_close()
    with pytest.raises(DHRDError, match=r"127\.0\.0\.1:\d+/v1 cannot be reached") as refusal:
        run(output, url)
    assert refusal.value.exit_code == 2
    assert "password" not in str(refusal.value)
    assert len(str(refusal.value).splitlines()) < 6


def test_missing_key_is_an_error_but_not_for_a_local_server(serve, output, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    for url in (None, "https://example.org/v1"):
        with pytest.raises(DHRDError, match="set OPENAI_API_KEY") as refusal:
            make_teacher("openai:some-model", [], base_url=url)
        assert refusal.value.exit_code == 2
    server = serve(lambda row, n: said())
    run(output, server.url, rows=ROWS[:1])
    assert len(lines(output)) == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OPENAI_API_KEY", "two words", "OPENAI_API_KEY holds characters"),
        ("OPENAI_BASE_URL", "localhost:8000/v1", "need http://"),
    ],
)
def test_unusable_settings_are_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(DHRDError, match=message):
        make_teacher("openai:some-model", [])
