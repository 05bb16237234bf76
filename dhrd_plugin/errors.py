"""The one exception that our commands turn into a short message and an exit code."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class DHRDError(Exception):
    """Something the user can mend: what was got, what is needed, how to fix it.

    `exit_code` is 2 for wrong input (or nothing reachable to start with) and 1 for work that failed
    while running. The message is shown as it is, without a traceback, by our own commands.
    """

    def __init__(self, message: str, *, exit_code: int = EXIT_BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code
