"""The first Ctrl-C (or SIGTERM) finishes what is in flight; the second stops at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def graceful_stop(work: str) -> Iterator[Callable[[], bool]]:
    """Within, an interruption makes the yielded function true instead of raising.

    Requests in flight may have been paid for, so they are worth waiting for.

    Args:
        work: what is being finished, for the message.

    Raises:
        KeyboardInterrupt: from wherever the program is, at the second interruption.
    """
    asked = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print(
            f"\ndhrd-teach: finishing {work}; press Ctrl-C again to stop at once.", file=sys.stderr
        )

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in signals]
    try:
        yield lambda: asked
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
