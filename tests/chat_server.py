"""A chat-completions server on this machine that does what a test's script says, well or badly."""

from __future__ import annotations

import json
import math
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from made_decisions import GOOD

SECRET = "sk-very-secret-0123456789"


@dataclass(frozen=True)
class Call:
    """A request for the row "Scene {row}." (None: for no such row), the `n`-th one (from 1)."""

    row: int | None
    n: int
    body: dict


@dataclass(frozen=True)
class Failure:
    """An HTTP error."""

    status: int
    message: str = "broken"
    headers: dict = field(default_factory=dict)
    code: str | None = None


@dataclass(frozen=True)
class Raw:
    """A body that is no chat completion."""

    data: bytes
    content_type: str = "application/json"


HANG = object()  # no reply before the server is closed
TRICKLE = object()  # a reply that goes on and on, with no word in it
CUT = object()  # the connection ends in the middle of the reply


def said(rationale=GOOD, answer="True"):
    """A reply in the form that is asked for."""
    return f"{rationale} [END OF REASONING]\nAnswer: {answer}"


def completion(content, *, finish_reason="stop", usage=(11, 22), logprobs=None, **message):
    """A whole chat completion.

    Args:
        usage: prompt and completion tokens; None leaves it out.
        logprobs: for each token of the reply, the probabilities of its alternatives, the token
            itself first.
    """
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content, **message},
    }
    if logprobs is not None:
        choice["logprobs"] = {"content": [_token(alternatives) for alternatives in logprobs]}
    payload = {"id": "c", "object": "chat.completion", "created": 0, "model": "some-model"}
    payload["choices"] = [choice]
    if usage is not None:
        prompt, new = usage
        counts = {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
        payload["usage"] = counts
    return payload


def _token(alternatives):
    top = [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in alternatives.items()]
    return {**top[0], "top_logprobs": top}


class ChatServer(ThreadingHTTPServer):
    """Answers with `script(call)`: the reply's text, a whole completion (dict), or a misbehaviour.

    Request bodies, keys and paths are kept.
    """

    request_queue_size = 128

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.bodies, self.keys, self.paths = [], [], []
        self.in_flight = self.most_in_flight = 0
        self.guard = threading.Lock()
        self.gate = None  # a barrier that requests wait at, to prove that they overlap
        self.closed = threading.Event()
        self._calls = {}  # by row

    def count(self, body):
        """The call that a request is."""
        scene = re.search(r"Scene (\d+)\.", body["messages"][-1]["content"])
        row = int(scene[1]) if scene else None
        self._calls[row] = self._calls.get(row, 0) + 1
        return Call(row, self._calls[row], body)

    def handle_error(self, request, client_address):
        """A cancelled request hangs up; that is no matter for the test's output."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections, as real servers do
    wbufsize = -1  # head and body in one packet

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.guard:
            server.bodies.append(body)
            server.keys.append(self.headers["Authorization"])
            server.paths.append(self.path)
            call = server.count(body)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        if server.gate is not None:
            server.gate.wait(timeout=30)
        answer = server.script(call)
        if answer is TRICKLE:
            self.trickle()
        if answer is HANG:
            server.closed.wait(timeout=30)
        with server.guard:
            server.in_flight -= 1
        self.close_connection = answer in (HANG, TRICKLE, CUT)
        if answer not in (HANG, TRICKLE):
            self.reply(answer)

    def trickle(self):
        """Some servers send white space, which JSON may begin with, to keep a connection open."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.closed.wait(timeout=0.02):
            self.wfile.write(b" ")
            self.wfile.flush()  # fails when the client has hung up

    def reply(self, answer):
        status, headers, content_type = 200, {}, "application/json"
        if isinstance(answer, Raw):
            data, content_type = answer.data, answer.content_type
        elif isinstance(answer, Failure):
            status, headers = answer.status, answer.headers
            error = {"message": answer.message, "type": "error", "code": answer.code}
            data = json.dumps({"error": error}).encode()
        else:
            payload = answer if isinstance(answer, dict) else completion(answer)
            data = json.dumps(completion("cut") if answer is CUT else payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if answer is CUT else data)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Starts a server with a script; the key for it is set, and retries come at once."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr("teachers.server.sending.BACKOFF", 0.001)
    servers = []

    def start(script):
        server = ChatServer(script)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.closed.set()
        server.shutdown()
        server.server_close()
