"""A sweep: students for one combination after the other, and what their dev scores can show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean, harmonic_mean

from accelerate import PartialState
from accelerate.utils.memory import should_reduce_batch_size

from dhrd_plugin.checkpoint import StudentConfig
from distill.config import DistillConfig
from distill.data import TrainingData, load_training_data, passages
from distill.many import expand, summarise
from distill.objective import kd_terms
from distill.state import TRAIN_LOG
from distill.student import resolve_dtype
from distill.sweep.search import search
from distill.sweep.space import Params, Space, describe
from distill.sweep.trials import Sweep, Trial, alone_in
from distill.train import NotFiniteError

Train = Callable[[DistillConfig], StudentConfig]


def run_sweep(
    config: DistillConfig,
    space: Space,
    *,
    seeds: int,
    sampler: str,
    trials: int | None,
    train: Train,
    report: Callable[[Sweep, Trial], None] = lambda *_: None,
) -> Sweep:
    """Try combinations until the sampler has no more, or `trials` are made.

    An interrupted sweep in the same folder is continued, in the middle of a student's training if
    need be; a finished one may get more trials.

    Args:
        config: settings of every student but for the searched ones; its seed is also the sampler's.
        train: `distill.train.train`, with a display around it, say.
        report: called after each new trial.

    Raises:
        DHRDError: wrong input, or another sweep in the folder.
    """
    with open_sweep(config, space, seeds=seeds, sampler=sampler) as sweep:

        def evaluate(params: Params) -> float:
            trial = sweep.find(params)
            if trial is None:
                number = len(sweep.trials)
                setting = replace(config, **params, output=config.output / f"trial-{number}")
                trial = run_trial(number, params, expand(setting, seeds=seeds), train)
                sweep.add(trial)
                report(sweep, trial)
            return trial.value

        search(space, evaluate, sampler=sampler, trials=trials, seed=config.seed)
        return sweep


@contextmanager
def open_sweep(config: DistillConfig, space: Space, *, seeds: int, sampler: str) -> Iterator[Sweep]:
    """The sweep in `config.output`, begun or to begin, on the data as they are now."""
    data = load_training_data(
        config.tasks,
        config.rationales,
        dev_rows=config.dev_rows,
        seed=config.seed,
        include_path=config.include_path,
    )
    processes = PartialState()
    settings = config.settings(
        dtype=str(resolve_dtype(config.dtype)).removeprefix("torch."),
        dev_rows=len(data.dev),
        data=data.sha,
        rationales=data.records_sha,
        kd_target=[term.removeprefix("kd_") for term in kd_terms(config, data)],
        processes=processes.num_processes,
        seeds=seeds,
        sampler=sampler,
        **describe(space),
    )
    writes = processes.is_main_process
    with alone_in(config.output) if writes else nullcontext():
        yield Sweep(config.output, settings, independent_rows=independent_rows(data), write=writes)


def independent_rows(data: TrainingData) -> int:
    """How many dev rows decide about the score, which is a mean over tasks.

    Rows of one passage count once. k tasks of n_i rows have the standard error of k² / Σ 1/n_i
    rows in one: the task with the fewest weighs most.
    """
    sizes = []
    for task in data.tasks:
        docs = [doc for doc, d in zip(data.dev_docs, data.dev, strict=True) if d.task == task]
        groups = passages(docs)
        sizes.append(len(docs) if groups is None else len(set(groups)))
    return round(len(sizes) * harmonic_mean(sizes))


def run_trial(number: int, params: Params, runs: Sequence[DistillConfig], train: Train) -> Trial:
    """Train the students of one combination.

    Settings that cannot be trained with make a failed trial; everything else that goes wrong (a
    full disk, say) ends the sweep, to be continued.
    """
    students = []
    failure = None
    try:
        for run in runs:
            students.append((run, train(run)))
    except NotFiniteError as error:
        failure = str(error).splitlines()[0]
    except RuntimeError as error:
        if not should_reduce_batch_size(error):  # which tells whether memory ran out
            raise
        failure = f"out of memory: {str(error).splitlines()[0]}"
    if failure is not None:
        return Trial(number, params, failure=f"seed {runs[len(students)].seed}: {failure}")
    (summary,) = summarise(students)
    return Trial(
        number,
        params,
        score=summary.mean,
        nll=fmean(summary.nlls.values()),
        half_width=summary.half_width,
        scores=list(summary.scores.values()),
        nlls=list(summary.nlls.values()),
        tokens=sum(tokens_trained(run.output) for run in runs),
        wall_seconds=round(sum(s.training["wall_seconds"] for _, s in students), 1),
    )


def tokens_trained(output: Path) -> int:
    """Tokens that a finished run's log counts."""
    lines = (output / TRAIN_LOG).read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["tokens"] for line in lines)
