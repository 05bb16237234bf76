"""Ctrl-C once finishes, twice stops."""

from __future__ import annotations

import os
import signal

import pytest

from teachers.interrupts import graceful_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noted_and_the_second_raises(number, capsys):
    with graceful_stop("the batch") as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
        assert "finishing the batch; press Ctrl-C again" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_signals_do_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), graceful_stop("it"):
        assert signal.getsignal(signal.SIGINT) is not before[0]
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
