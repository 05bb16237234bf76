"""A generator in a process of its own: items, errors, death and interruption come back."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dhrd_plugin.bench.processes import ProcessDied, in_own_process
from dhrd_plugin.errors import DHRDError


def numbers(n, own=None):
    yield from range(n)
    yield os.getpid() == own


def refused():
    yield 1
    raise DHRDError("no such thing", exit_code=1)


def crashed():
    raise ValueError("odd")
    yield


def killed(how):
    yield 1
    os.kill(os.getpid(), how)


def sleeper():
    yield os.getpid()
    time.sleep(60)


def test_items_come_from_another_process():
    assert list(in_own_process(numbers, 2, own=os.getpid())) == [0, 1, False]


@pytest.mark.parametrize(
    ("generate", "message"), [(refused, "no such thing"), (crashed, "ValueError: odd")]
)
def test_errors_come_back_in_words(generate, message, capfd):
    with pytest.raises(DHRDError) as raised:
        list(in_own_process(generate))
    assert (str(raised.value), raised.value.exit_code) == (message, 1)
    assert ("Traceback" in capfd.readouterr().err) is (generate is crashed)


@pytest.mark.parametrize(("how", "by_system"), [(signal.SIGKILL, True), (signal.SIGTERM, False)])
def test_a_process_that_dies_is_told_from_one_that_ends(how, by_system):
    items = in_own_process(killed, how)
    assert next(items) == 1
    with pytest.raises(ProcessDied) as died:
        next(items)
    assert died.value.killed is by_system


def test_an_interruption_ends_the_process():
    items = in_own_process(sleeper)
    process = next(items)
    with pytest.raises(KeyboardInterrupt):
        items.throw(KeyboardInterrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
