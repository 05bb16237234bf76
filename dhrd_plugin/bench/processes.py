"""Run a generator in a process of its own: its memory is its own, and so is its end."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.quiet import quiet_libraries

PATIENCE = 10  # seconds for a process to end by itself


class ProcessDied(Exception):
    """It ended without a word.

    Attributes:
        killed: by SIGKILL, as the system does when memory runs out.
    """

    def __init__(self, exit_code: int | None) -> None:
        self.killed = exit_code == -signal.SIGKILL
        how = "was killed (out of memory?)" if self.killed else f"ended with code {exit_code}"
        super().__init__(f"its process {how}")


@dataclass(frozen=True)
class _Raised:
    message: str
    exit_code: int


def in_own_process(generate: Callable[..., Iterator[Any]], *args: Any, **kwargs: Any) -> Iterator:
    """What `generate(*args, **kwargs)` yields there. An interruption ends the process.

    Raises:
        DHRDError: whatever was raised there, in words.
        ProcessDied: it crashed or was killed.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(sender, generate, args, kwargs))
    process.start()
    sender.close()
    try:
        while True:
            try:
                item = receiver.recv()
            except EOFError:
                break
            if isinstance(item, _Raised):
                raise DHRDError(item.message, exit_code=item.exit_code)
            yield item
        process.join()
        if process.exitcode != 0:
            raise ProcessDied(process.exitcode)
    finally:
        process.terminate()
        process.join(PATIENCE)
        process.kill()
        process.join()
        receiver.close()


def _send_all(
    sender: Connection, generate: Callable[..., Iterator[Any]], args: tuple, kwargs: dict
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent decides
    signal.signal(signal.SIGTERM, _exit)  # libraries clean up behind them
    quiet_libraries()
    try:
        for item in generate(*args, **kwargs):
            sender.send(item)
    except DHRDError as error:
        sender.send(_Raised(str(error), error.exit_code))
    except Exception as error:
        traceback.print_exc()
        sender.send(_Raised(f"{type(error).__name__}: {error}", 1))


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
