"""Rows per second of the teacher `openai:`, over the whole path from a row to a record on disk.

    python tests/benchmarks/client.py [--rows N] [--concurrency N] [--delay S]

A server in a process of its own answers every request after a fixed delay. The teacher asks it for
a rationale for each row, which is checked and stored. This process is pinned to one core (Linux).
Ideal is concurrency / delay; printed are rows per second, the ratio to that, and the processor time
per row, most of which is the openai client's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import openai

from dhrd_plugin.decisions import Decision
from teachers.base import make_teacher
from teachers.generate import teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts

REPLY = """\
The streets shine and people hold umbrellas. Drops run down the window, so water falls from the sky.
[END OF REASONING]
Answer: True"""


def decision(index: int) -> Decision:
    context = f"Scene {index}. The streets shine.\nQuestion: It rains. True or False?\nAnswer:"
    return Decision(
        task="made",
        split="train",
        index=index,
        inputs=(context,),
        choices=("True", "False"),
        gold=frozenset({0}),
        context=context,
        formulation="labels",
    )


class FixedDelay(asyncio.Protocol):
    """As little of an HTTP server as the client needs, so that it is never what is measured."""

    def __init__(self, response: bytes, delay: float) -> None:
        self.response, self.delay = response, delay
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if found and len(body) >= int(length):
            self.received = b""
            asyncio.get_running_loop().call_later(self.delay, self.transport.write, self.response)


def response() -> bytes:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": REPLY},
    }
    usage = {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240}
    completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
    body = json.dumps({**completion, "choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def serve(delay: float, port: Connection) -> None:
    """Run the server; tells its port."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        whole = response()
        server = await loop.create_server(
            lambda: FixedDelay(whole, delay), "127.0.0.1", 0, backlog=1024
        )
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def fixed_delay_server(delay: float) -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(delay, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2560)
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight")
    parser.add_argument("--delay", type=float, default=0.25, help="seconds per reply")
    args = parser.parse_args()
    rows = [decision(i) for i in range(args.rows)]
    prompts = [load_prompts().hinted]

    def run(todo: list[Decision], output: Path) -> int:
        teacher = make_teacher("openai:m", [], base_url=url, concurrency=args.concurrency)
        with RecordStore(output) as store:
            outcomes = teach(todo, teacher, store, prompts=prompts, max_attempts=1)
            return sum(outcome.reason is None for outcome in outcomes)

    with fixed_delay_server(args.delay) as url, tempfile.TemporaryDirectory() as folder:
        if hasattr(os, "sched_setaffinity"):  # the server keeps the other cores
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        run(rows[: args.concurrency], Path(folder) / "warm-up.jsonl")  # imports are not counted
        wall, cpu = time.perf_counter(), time.process_time()
        kept = run(rows, Path(folder) / "measured.jsonl")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert kept == len(rows)
    rate, ideal = len(rows) / wall, args.concurrency / args.delay
    print(f"Python {platform.python_version()}, openai {openai.__version__}")
    print(
        f"{rate:.1f} of {ideal:.1f} rows/s ({rate / ideal:.1%}), {len(rows)} rows, "
        f"{cpu / len(rows) * 1e3:.2f} ms of processor time per row"
    )


if __name__ == "__main__":
    main()
