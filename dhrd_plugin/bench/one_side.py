"""One side from loading to its figures, in a process of its own, and what becomes of its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dhrd_plugin.bench.config import BenchConfig
from dhrd_plugin.bench.cot import load_cot
from dhrd_plugin.bench.measure import Events, Found, Step, measure, out_of_memory
from dhrd_plugin.bench.processes import ProcessDied, in_own_process
from dhrd_plugin.bench.queries import Query
from dhrd_plugin.bench.sides import Answerer, LogLikelihood, Plain, Pooled
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.benches import Kind
from dhrd_plugin.students import Student

OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Job:
    """A side to be measured.

    Attributes:
        queries: those that it answers.
        sizes: batch sizes to choose from, ascending.
        too_large: others, at which its process was killed.
    """

    kind: Kind
    student: Student
    config: BenchConfig
    queries: Sequence[Query]
    device: str
    sizes: tuple[int, ...]
    too_large: tuple[int, ...] = ()


def follow(job: Job) -> Iterator[Step | Found]:
    """The events of `measure_side` in its own process; a failure is a "problem".

    Where memory runs out on a CPU, the system kills the process: then smaller sizes are tried.
    """
    now: Step | None = None
    try:
        for event in in_own_process(measure_side, job):
            if isinstance(event, Step):
                now = event
            yield event
    except DHRDError as error:
        yield {"problem": str(error)}
    except ProcessDied as died:
        smaller = tuple(size for size in job.sizes if now and size < now.parallel)
        if died.killed and now and smaller:
            yield from follow(replace(job, sizes=smaller, too_large=(now.parallel, *job.too_large)))
        else:
            yield {"problem": str(died)}


def measure_side(job: Job) -> Events:
    """See `measure`. Out of memory is a result."""
    yield Step("loading", 0, 1, 1)
    try:
        yield from measure(
            _load(job),
            job.queries,
            sizes=job.sizes,
            too_large=job.too_large,
            repeats=job.config.cot_repeats if job.kind == "cot" else job.config.repeats,
            device=job.device,
        )
    except Exception as error:
        if not out_of_memory(error):
            raise
        yield {"problem": OUT_OF_MEMORY}


def _load(job: Job) -> Answerer:
    include_path = job.config.include_path
    if job.kind == "pooled":
        return Pooled(job.student, device=job.device, include_path=include_path)
    if job.kind == "plain":
        task = job.queries[0].decision.task
        return Plain(job.student, task=task, device=job.device)
    if job.kind == "loglikelihood":
        return LogLikelihood(job.student, device=job.device)
    return load_cot(job.student, job.config, device=job.device)
