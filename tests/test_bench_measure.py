"""Which batch size is chosen, what is timed, and what running out of memory does."""

from __future__ import annotations

import doctest
import json
import signal

import pytest
import torch

from dhrd_plugin.bench import measure as measuring
from dhrd_plugin.bench import one_side
from dhrd_plugin.bench.config import BenchConfig
from dhrd_plugin.bench.measure import CLEARLY_SLOWER, Step, latency, measure, throughput
from dhrd_plugin.bench.memory import PROCESS, PeakMemory
from dhrd_plugin.bench.one_side import Job, follow
from dhrd_plugin.bench.processes import ProcessDied
from dhrd_plugin.bench.sides import Answerer, Tokens


class Clockwork(Answerer):
    """Takes a time per document that depends on the batch size alone; None: out of memory.

    `asked` has (documents, batch size) of every call.
    """

    def __init__(self, per_document, *, most=None):
        self.config, self.per_document, self.most = {"model": "clock"}, per_document, most
        self.asked, self.now = [], 0.0

    def answer(self, queries, parallel):
        self.asked.append((len(queries), parallel))
        seconds = self.per_document[parallel]
        if seconds is None or (self.most and len(queries) > self.most):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        self.now += seconds * len(queries)

    def rows(self, query):
        return 1

    def tokens(self, queries):
        return Tokens(7 * len(queries), 2 * len(queries))


@pytest.fixture
def run(monkeypatch):
    """Measures a clockwork; returns the record and the steps."""

    def measured(clockwork, n=20, sizes=(1, 4, 16), **settings):
        monkeypatch.setattr("time.perf_counter", lambda: clockwork.now)
        settings = {"repeats": 3, "device": "cpu", **settings}
        record, steps = {}, []
        for event in measure(clockwork, range(n), sizes=sizes, **settings):
            if isinstance(event, Step):
                steps.append(event)
            else:
                record |= event
        json.dumps(record)
        return record, steps

    return measured


def test_the_fastest_size_is_timed_over_all_documents(run):
    clockwork = Clockwork({1: 0.5, 4: 0.25, 16: 0.125})
    record, steps = run(clockwork)
    assert record["search"] == [
        {"size": 1, "queries_per_second": 2.0},
        {"size": 4, "queries_per_second": 4.0},
        {"size": 16, "queries_per_second": 8.0},
    ]
    assert record["batch_size"] == 16
    assert (record["seconds"], record["queries_per_second"]) == ([2.5] * 3, 8.0)
    # A first document to warm up, the same 16 documents at every size, three runs, one by one.
    assert clockwork.asked == [(1, 1), (16, 1), (16, 4), (16, 16), *[(20, 16)] * 3, *[(1, 1)] * 20]
    assert (record["latencies"], record["latency_p95"]) == ([0.5] * 20, 0.5)
    assert (record["input_tokens"], record["generated_tokens"]) == (7, 2)
    assert [step.stage for step in steps[::9]] == ["warm-up", "latency", "latency"]


def test_the_search_ends_where_it_gets_clearly_slower(run):
    clockwork = Clockwork({1: 0.5, 4: 0.5 / CLEARLY_SLOWER + 0.01, 16: 0.1})
    record, _ = run(clockwork)
    assert [trial["size"] for trial in record["search"]] == [1, 4]
    assert record["batch_size"] == 1
    assert clockwork.asked.count((16, 4)) == 2  # it had a second chance
    hardly_slower = Clockwork({1: 0.5, 4: 0.5 / CLEARLY_SLOWER - 0.01, 16: 0.1})
    assert run(hardly_slower)[0]["batch_size"] == 16


def test_a_single_hiccup_does_not_end_the_search(run):
    class Disturbed(Clockwork):
        def answer(self, queries, parallel):
            self.now += 99 if parallel == 4 and (16, 4) not in self.asked else 0
            super().answer(queries, parallel)

    record, _ = run(Disturbed({1: 0.5, 4: 0.25, 16: 0.125}))
    assert [trial["queries_per_second"] for trial in record["search"]] == [2.0, 4.0, 8.0]


def test_what_a_size_pays_once_does_not_count_against_it(run):
    class Cold(Clockwork):
        def answer(self, queries, parallel):
            first = (len(queries), parallel) not in self.asked
            self.now += 0.7 if parallel == 4 and first else 0  # seems hardly slower than 1
            super().answer(queries, parallel)

    assert run(Cold({1: 0.5, 4: 0.35}), sizes=(1, 4))[0]["batch_size"] == 4


def test_sizes_above_the_number_of_documents_are_not_tried(run):
    record, _ = run(Clockwork({1: 0.5, 4: 0.25, 16: 0.2}), n=3)
    assert [trial["size"] for trial in record["search"]] == [1, 4]
    assert not doctest.testmod(measuring).failed


def test_a_single_size_needs_no_search(run):
    clockwork = Clockwork({1: 0.5, 4: 0.25})
    record, _ = run(clockwork, sizes=(4,))
    assert record["batch_size"] == 4
    assert "search" not in record
    assert clockwork.asked[:3] == [(1, 1), (4, 4), (20, 4)]  # it is warmed up, too


def test_out_of_memory_in_the_search_is_a_result(run):
    record, _ = run(Clockwork({1: 0.5, 4: 0.25, 16: None}))
    assert record["search"][-1] == {"size": 16, "queries_per_second": None}
    assert (record["batch_size"], record["queries_per_second"]) == (4, 4.0)


def test_where_all_documents_do_not_fit_the_next_best_size_is_timed(run):
    class Fragmented(Clockwork):
        def answer(self, queries, parallel):
            self.most = 16 if parallel == 16 else None
            super().answer(queries, parallel)

    record, _ = run(Fragmented({1: 0.5, 4: 0.25, 16: 0.125}))
    assert (record["batch_size"], len(record["seconds"])) == (4, 3)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a bug")])
def test_other_errors_are_no_result(run, error):
    class Broken(Clockwork):
        def answer(self, queries, parallel):
            if parallel == 4:
                raise error
            super().answer(queries, parallel)

    if isinstance(error, MemoryError):
        assert run(Broken({1: 0.5}))[0]["batch_size"] == 1
    else:
        with pytest.raises(RuntimeError, match="a bug"):
            run(Broken({1: 0.5}))


def test_on_a_gpu_every_time_is_synchronised_and_memory_is_the_timed_runs(run, monkeypatch):
    clockwork = Clockwork({1: 0.5, 4: 0.25})
    calls = []
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda _, name=name: calls.append(name))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 2**30)
    record, _ = run(clockwork, sizes=(4,), device="cuda")
    assert record["peak_memory"] == 2**30
    assert calls.count("synchronize") == 2 * len(clockwork.asked)
    assert calls.index("reset_peak_memory_stats") == 2 * 2  # behind both warm-ups


@pytest.mark.skipif(not PROCESS.is_dir(), reason="the peak is known on Linux only")
def test_peak_memory_is_that_since_its_start():
    memory = PeakMemory("cpu")
    large = bytearray(b"x" * 2**27)
    del large
    used = memory.read()
    assert PeakMemory("cpu").read() <= used - 2**27


def test_figures_against_a_hand_computed_example():
    assert throughput(12, [2.0, 4.0, 3.0]) == {
        "seconds": [2.0, 4.0, 3.0],
        "queries_per_second": 4.0,
        "low": 3.0,
        "high": 6.0,
    }
    found = latency([0.01 * i for i in range(1, 22)])
    assert (found["latency_p50"], found["latency_p95"]) == pytest.approx((0.11, 0.20))
    assert latency([0.5])["latency_p95"] == 0.5


JOB = Job("pooled", None, BenchConfig(), range(9), "cpu", sizes=(1, 4, 16))


def test_no_memory_at_all_is_the_sides_problem(monkeypatch):
    monkeypatch.setattr(one_side, "_load", lambda job: Clockwork({1: None}))
    assert list(one_side.measure_side(JOB))[-1] == {"problem": "out of memory"}


def test_a_killed_search_goes_on_with_smaller_sizes(monkeypatch):
    jobs = []

    def process(_, job):
        jobs.append(job)
        yield Step("search", len(jobs), 3, job.sizes[-1])
        if len(jobs) < 3:
            raise ProcessDied(-signal.SIGKILL)
        yield {"batch_size": 1}

    monkeypatch.setattr(one_side, "in_own_process", process)
    assert list(follow(JOB))[-1] == {"batch_size": 1}
    assert [(job.sizes, job.too_large) for job in jobs] == [
        ((1, 4, 16), ()),
        ((1, 4), (16,)),
        ((1,), (4, 16)),
    ]


def test_sizes_that_killed_a_process_are_in_the_search(run):
    record, _ = run(Clockwork({1: 0.5}), sizes=(1,), too_large=(4, 16))
    assert [trial["queries_per_second"] for trial in record["search"]] == [None, None, 2.0]
    assert record["batch_size"] == 1


@pytest.mark.parametrize("exit_code", [-signal.SIGKILL, 3])
def test_a_process_that_dies_at_the_smallest_size_is_a_problem(monkeypatch, exit_code):
    def process(_, job):
        yield Step("search", 0, 3, 1 if exit_code == -signal.SIGKILL else 16)
        raise ProcessDied(exit_code)

    monkeypatch.setattr(one_side, "in_own_process", process)
    assert list(follow(JOB))[-1].keys() == {"problem"}
