"""A run of `dhrd-teach`: load, ask, check, store, annotate, and say what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dhrd_plugin.decisions import Decision, TaskDecisions, load_decisions
from dhrd_plugin.errors import EXIT_FAILED, EXIT_OK, DHRDError
from dhrd_plugin.harness import load_task
from teachers.annotate import annotate, claim_judge, count_questions, open_views
from teachers.base import Request, Teacher, find_factory, make_teachers, refuse_useless
from teachers.checks import REASONS
from teachers.config import DEFAULT_MAX_ATTEMPTS, TeachConfig
from teachers.dry_run import estimate, show
from teachers.generate import made_from, teach
from teachers.interrupts import graceful_stop
from teachers.output.processes import Processes
from teachers.output.store import RecordStore
from teachers.progress import Tally, follow
from teachers.prompts import INVERTED_TASKS, Example, Prompts, load_prompts
from teachers.records import decision_id, load_rationales, read_lines

Stopped = Callable[[], bool]


def run(config: TeachConfig) -> int:
    """The whole command; returns the exit code.

    Raises:
        DHRDError: wrong input, or nothing more can be got from the teacher.
    """
    # What can be told before a task is loaded is told before.
    specs = [config.teacher, config.judge or config.teacher]
    budget = config.budget()
    flags = config.teacher_flags() | {"prices": config.prices, "budget": budget}
    refuse_useless(specs, **flags)
    check_use(config)
    processes = Processes.of_environment()
    if processes.world > 1 and config.limits:
        raise DHRDError(
            f"{', '.join(config.limits)}: would hold for each of the {processes.world} processes "
            "alone. Run a single one (without `accelerate launch`)."
        )
    prompts = load_prompts(config.prompts)
    splits = [
        load_decisions(load_task(name, config.include_path), config.split) for name in config.tasks
    ]
    if config.examples is not None:
        prompts = prompts.with_examples(load_examples(config.examples, splits))
    rows = [decision for split in splits for decision in split.decisions[: config.limit]]
    if config.dry_run:
        show_estimate(config, splits, rows, prompts)
        return EXIT_OK
    teacher, judge = make_teachers(specs, splits, **flags)
    if teacher.asks and processes.is_main:
        warn_of_inverted_gold(splits)
    with (
        RecordStore(config.output, new=config.new, processes=processes) as store,
        graceful_stop("what is being worked on") as stopped,
    ):
        for split in splits:
            made = made_from(split, teacher, config.mode_name, config.asked(prompts))
            store.claim(f"{split.task}/{split.split}", made)
        if config.annotates:  # before anything is paid for
            claim_judge(store, judge, prompts_sha=prompts.judge_sha, votes=config.vote_count)
        if budget is not None:
            budget.charge(store.spent, unpriced=store.unpriced, prices=config.prices)
        explain(config, rows, teacher, store, prompts, processes, stopped)
        annotated = True
        if config.annotates and not stopped():
            annotated = annotate_rows(config, rows, judge, store, prompts, processes, stopped)
        if processes.is_main:
            print(f"records:  {store.path}")
            print(f"rejected: {store.rejected_path}")
        if stopped():
            raise KeyboardInterrupt
        explained = any(row.id in store.kept for row in rows)
        return EXIT_OK if explained and annotated else EXIT_FAILED


def explain(
    config: TeachConfig,
    rows: Sequence[Decision],
    teacher: Teacher,
    store: RecordStore,
    prompts: Prompts,
    processes: Processes,
    stopped: Stopped,
) -> None:
    """The first pass: a rationale for every row."""
    own = processes.share([row for row in rows if row.id not in store.kept])
    before = sum(row.id in store.kept for row in rows)
    tally = Tally(total=before + len(own), done=before, spent_before=store.spent.cost)
    outcomes = teach(
        own,
        teacher,
        store,
        prompts=config.asked(prompts),
        max_attempts=config.max_attempts or DEFAULT_MAX_ATTEMPTS,
        stop=stopped,
    )
    follow("teaching", outcomes, tally, log_json=config.log_json, silent=not processes.is_main)
    if not processes.is_main:
        return
    kept = sum(row.id in store.kept for row in rows)
    print(f"{config.teacher}: {kept} of {len(rows)} rows have a rationale ({kept - before} new)")
    share = f" (process 0 of {processes.world})" if processes.world > 1 else ""
    for reason, count in tally.rejected.most_common():
        why = f"; the last: {tally.last_failure}" if reason == "failed" else ""
        print(f"  rejected {count} × {REASONS[reason]}{share}{why}")
    if (passed_over := tally.total - tally.done) and not stopped():
        why = (
            "had used up their attempts before (--max-attempts gives more)"
            if teacher.asks
            else "have no line in the file"
        )
        print(f"  {passed_over} rows {why}{share}")


def annotate_rows(
    config: TeachConfig,
    rows: Sequence[Decision],
    judge: Teacher,
    store: RecordStore,
    prompts: Prompts,
    processes: Processes,
    stopped: Stopped,
) -> bool:
    """The second pass: soft labels and verification of every kept row.

    Returns:
        False where there were questions, and not one of them was answered.
    """
    own = processes.share(rows)
    wanted = {"soft_labels": config.soft_labels, "verify": config.verify}
    tally = Tally(total=count_questions(own, store, **wanted), spent_before=store.spent.cost)
    answers = annotate(
        own,
        judge,
        store,
        prompts=prompts.judge,
        prompts_sha=prompts.judge_sha,
        votes=config.vote_count,
        stop=stopped,
        **wanted,
    )
    follow("judging", answers, tally, log_json=config.log_json, silent=not processes.is_main)
    if processes.is_main:
        share = f" (process 0 of {processes.world})" if processes.world > 1 else ""
        print(f"{config.judge or config.teacher}: {tally.kept} questions answered{share}")
        if failed := tally.rejected.total():
            print(f"  {failed} questions failed{share}; the last: {tally.last_failure}")
            print("  The same command asks them again.")
    return tally.kept > 0 or not tally.total


def check_use(config: TeachConfig) -> None:
    """Refuse what the teacher or judge cannot do.

    Raises:
        DHRDError: flags that mean nothing to a teacher that is not asked, or a judge that is none.
    """
    if not find_factory(config.teacher)[0].asks:
        useless = ["mode", "max_attempts", "examples"]
        if not config.annotates:
            useless.append("prompts")  # has the judge's wording, too
        for flag in useless:
            if getattr(config, flag) is not None:
                raise DHRDError(
                    f"--{flag.replace('_', '-')}: of no use with the teacher {config.teacher!r}, "
                    "which has one rationale per row. Leave it out."
                )
    judge = config.judge or config.teacher
    if config.annotates and not find_factory(judge)[0].asks:
        raise DHRDError(
            f"--soft-labels and --verify ask a model, and {judge!r} is none. Name one with --judge."
        )


def load_examples(path: Path, splits: Sequence[TaskDecisions]) -> dict[str, list[Example]]:
    """Worked examples by task, in the file's order.

    Raises:
        DHRDError: an unreadable file, a line that fits no row, or a task without an example.
    """
    rows = {decision.id: decision for split in splits for decision in split.decisions}
    examples: dict[str, list[Example]] = {split.task: [] for split in splits}
    for key, line in load_rationales([path], rows, default_split=splits[0].split).items():
        examples[rows[key].task].append(Example(rows[key], line["rationale"].strip()))
    for split in splits:
        if not examples[split.task]:
            raise DHRDError(
                f"{path} has no example for {split.task}/{split.split}. Examples are rows of the "
                "split that is explained."
            )
    return examples


def show_estimate(
    config: TeachConfig,
    splits: Sequence[TaskDecisions],
    rows: Sequence[Decision],
    prompts: Prompts,
) -> None:
    """Print what is left to do, and its cost."""
    prompt = config.asked(prompts)[0]
    asks = find_factory(config.teacher)[0].asks
    if not asks:  # it has rationales for some rows
        (teacher,) = make_teachers([config.teacher], splits)
        requests = (Request(row, 1, prompt) for row in rows)
        rows = [request.decision for request, _ in teacher.explain(requests)]
    wanted = {"soft_labels": config.soft_labels, "verify": config.verify}
    to_explain = {row.id: row for row in rows}
    to_judge = {row.id: open_views({}, **wanted) for row in rows}
    if config.output.exists() and not config.new:
        for number, record in read_lines(config.output):
            key = decision_id(record, f"{config.output}:{number}")
            to_explain.pop(key, None)
            to_judge[key] = open_views(record, **wanted)
    show(
        estimate(
            list(to_explain.values()),
            prompt if asks else None,
            questions=[(prompts.judge[view], row) for row in rows for view in to_judge[row.id]],
            votes=config.vote_count,
            prices=config.prices,
        )
    )


def warn_of_inverted_gold(splits: Iterable[TaskDecisions]) -> None:
    """Say so if a teacher is going to argue for wrong answers."""
    for split in splits:
        if split.choices is not None and INVERTED_TASKS.get(split.task) == split.choices:
            print(
                f"dhrd-teach: warning: the harness's {split.task!r} rewards the opposite of what "
                "it asks (gold is 'no' for a right answer), and the teacher will argue for that. "
                "Use a corrected copy of the task.",
                file=sys.stderr,
            )
