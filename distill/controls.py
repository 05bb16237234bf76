"""Controls: training data whose rationales are taken away, exchanged or made meaningless.

A student trained on a control differs from a DHRD student in the rationales alone, so that the
difference in accuracy says whether they matter on one's data. The first three are Table 2 of DHRD
(arXiv 2509.21487: OnlyLabel, ShuffleReasoning, ShuffleReasoningLabel); `noise` asks in addition
whether more than the length and the vocabulary of rationales counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError

Controlled = tuple[list[Decision], dict[str, str]]
Key = TypeVar("Key")


def apply_control(
    control: str, train: Sequence[Decision], rationales: Mapping[str, str], *, seed: int
) -> Controlled:
    """Training decisions and rationales (by decision id) under one of `CONTROLS`.

    Every task is treated by itself, so that a task gets the same data alone and beside others.
    Decisions keep id, input and order; rationales of other ids than theirs are dropped.

    Args:
        control: "only-label": empty rationales. "shuffle-rationale": another row's rationale, the
            own label. "shuffle-pair": another row's rationale and label, which is what the
            classification head then learns. "noise": random words, as many as the rationale has.
        rationales: some rows may have none.
        seed: decides all that is random, together with the data.

    Raises:
        DHRDError: a row to shuffle has no other row to exchange with.
    """
    own = {d.id: rationales[d.id] for d in train if d.id in rationales}
    return _CONTROLS[control](train, own, seed)


def _only_label(train: Sequence[Decision], rationales: dict[str, str], seed: int) -> Controlled:
    """A row without a rationale stays without: the rows with an answer line are the same ones."""
    return list(train), dict.fromkeys(rationales, "")


def _shuffle_rationale(
    train: Sequence[Decision], rationales: dict[str, str], seed: int
) -> Controlled:
    donors: dict[str, Decision] = {}
    with_rationale = [d for d in train if d.id in rationales]
    for task, rows in _groups(with_rationale, lambda d: d.task).items():
        if len(rows) == 1:
            raise DHRDError(
                f"--control shuffle-rationale: {rows[0].id} is the only training row of {task!r} "
                "with a rationale. At least two are needed to exchange them: add rationales with "
                "`dhrd-teach`, or leave the task out."
            )
        donors |= _donors(rows, f"{seed}/{task}")
    return list(train), {key: rationales[donor.id] for key, donor in donors.items()}


def _shuffle_pair(train: Sequence[Decision], rationales: dict[str, str], seed: int) -> Controlled:
    """Labels are choice indices, so they can only move to rows with as many choices.

    The pair of a row without a rationale is its label alone. It moves like the others: were it to
    stay, such rows would still teach the right classification. So as many rows have a rationale
    as before, but other ones.
    """
    donors: dict[str, Decision] = {}
    for (task, n_choices), rows in _groups(train, lambda d: (d.task, len(d.choices))).items():
        if len(rows) == 1:
            raise DHRDError(
                f"--control shuffle-pair: {rows[0].id} is the only training row of {task!r} with "
                f"{n_choices} choices. At least two are needed to exchange labels: use "
                "--control shuffle-rationale, which keeps them, or leave the task out."
            )
        donors |= _donors(rows, f"{seed}/{task}/{n_choices}")
    moved = {key: rationales[d.id] for key, d in donors.items() if d.id in rationales}
    return [replace(d, gold=donors[d.id].gold) for d in train], moved


def _noise(train: Sequence[Decision], rationales: dict[str, str], seed: int) -> Controlled:
    """Words are drawn from the unigram distribution of all rationales of the task."""
    noise: dict[str, str] = {}
    with_rationale = [d for d in train if d.id in rationales]
    for task, rows in _groups(with_rationale, lambda d: d.task).items():
        rng = random.Random(f"{seed}/{task}")
        written = {d.id: rationales[d.id].split() for d in rows}
        vocabulary = [word for words in written.values() for word in words]
        for key, words in written.items():
            noise[key] = " ".join(rng.choices(vocabulary, k=len(words)))
    return list(train), noise


def _groups(
    decisions: Sequence[Decision], key: Callable[[Decision], Key]
) -> dict[Key, list[Decision]]:
    groups: dict[Key, list[Decision]] = {}
    for decision in decisions:
        groups.setdefault(key(decision), []).append(decision)
    return groups


def _donors(rows: Sequence[Decision], seed: str) -> dict[str, Decision]:
    """By row id, the row to take from: one cycle through all rows (two or more) in random order.

    So everyone gives once, and nobody to themselves.
    """
    order = random.Random(seed).sample(rows, len(rows))
    return {row.id: donor for row, donor in zip(order, order[1:] + order[:1], strict=True)}


_CONTROLS: dict[str, Callable[[Sequence[Decision], dict[str, str], int], Controlled]] = {
    "only-label": _only_label,
    "shuffle-rationale": _shuffle_rationale,
    "shuffle-pair": _shuffle_pair,
    "noise": _noise,
}
CONTROLS = tuple(_CONTROLS)
