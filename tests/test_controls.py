"""Controls: what is exchanged, what stays, and that nobody keeps their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from made_decisions import candidate_decision, label_decision

from dhrd_plugin.errors import DHRDError
from distill.controls import CONTROLS, apply_control

SEEDS = range(20)
LABELS = [label_decision(index=i, gold=i % 3) for i in range(7)]
# Three rows of two candidates and two of four; one has two right answers.
CANDIDATES = [
    candidate_decision(index=0, gold=0),
    candidate_decision(index=1, gold=1),
    candidate_decision(index=2, gold=0, choices=("a", "b", "c", "d")),
    candidate_decision(index=3, gold=1),
    replace(candidate_decision(index=4, choices=("e", "f", "g", "h")), gold=frozenset({1, 3})),
]
# Tasks mixed in one list, some rows without a rationale.
TRAIN = [LABELS[0], CANDIDATES[0], *LABELS[1:], *CANDIDATES[1:]]
RATIONALES = {
    d.id: f"{d.task} because of {d.index} {'very ' * d.index}clearly"
    for d in TRAIN
    if d.id not in (LABELS[2].id, CANDIDATES[2].id)
}


def controlled(control, seed=0, train=TRAIN, rationales=RATIONALES):
    return apply_control(control, train, rationales, seed=seed)


def of_task(texts, task):
    return {key: text for key, text in texts.items() if key.startswith(f"{task}/")}


@pytest.mark.parametrize("control", CONTROLS)
def test_decisions_keep_everything_but_gold_and_arguments_stay_as_they_were(control):
    train, rationales = list(TRAIN), dict(RATIONALES)
    decisions, texts = apply_control(control, train, rationales, seed=3)
    assert [replace(d, gold=frozenset()) for d in decisions] == [
        replace(d, gold=frozenset()) for d in TRAIN
    ]
    assert train == TRAIN and rationales == RATIONALES
    assert decisions is not train and texts is not rationales


@pytest.mark.parametrize("control", CONTROLS)
def test_the_same_arguments_give_the_same_data(control):
    assert controlled(control, seed=5) == controlled(control, seed=5)


@pytest.mark.parametrize("control", ["shuffle-rationale", "shuffle-pair", "noise"])
def test_another_seed_gives_other_data(control):
    assert len({str(controlled(control, seed)) for seed in SEEDS}) > 1


@pytest.mark.parametrize("control", CONTROLS)
def test_a_task_gets_the_same_data_alone_and_beside_others(control):
    decisions, texts = controlled(control)
    alone, texts_alone = controlled(control, train=LABELS)
    assert alone == [d for d in decisions if d.task == "made"]
    assert texts_alone == of_task(texts, "made")


@pytest.mark.parametrize("control", CONTROLS)
def test_rationales_of_other_rows_are_neither_kept_nor_used(control):
    elsewhere = {"made/train/99": "SECRET SECRET SECRET", "other/train/0": "SECRET"}
    assert controlled(control, rationales=RATIONALES | elsewhere) == controlled(control)


@pytest.mark.parametrize("control", ["only-label", "shuffle-rationale", "noise"])
def test_gold_stays_and_so_do_the_rows_that_have_a_rationale(control):
    decisions, texts = controlled(control)
    assert decisions == TRAIN
    assert texts.keys() == RATIONALES.keys()


def test_only_label_leaves_empty_rationales():
    assert set(controlled("only-label")[1].values()) == {""}


# Shuffled rationales


@pytest.mark.parametrize("seed", SEEDS)
def test_shuffled_rationales_stay_in_their_task_and_nobody_keeps_their_own(seed):
    _, texts = controlled("shuffle-rationale", seed)
    for task in ("made", "made_copa"):
        shuffled, own = of_task(texts, task), of_task(RATIONALES, task)
        assert sorted(shuffled.values()) == sorted(own.values())
        assert all(shuffled[key] != own[key] for key in own)


def test_two_rationales_change_places():
    rationales = {LABELS[0].id: "first", LABELS[4].id: "second"}
    _, texts = controlled("shuffle-rationale", train=LABELS, rationales=rationales)
    assert texts == {LABELS[0].id: "second", LABELS[4].id: "first"}


def test_over_seeds_a_row_gets_every_other_rationale():
    row = LABELS[0].id
    got = {controlled("shuffle-rationale", seed)[1][row] for seed in range(100)}
    assert got == {text for key, text in of_task(RATIONALES, "made").items() if key != row}


def test_a_lone_rationale_cannot_be_exchanged():
    with pytest.raises(DHRDError, match="made/train/4 is the only training row of 'made' with"):
        controlled("shuffle-rationale", rationales={LABELS[4].id: "alone"})


def test_a_task_without_any_rationale_needs_no_exchange():
    decisions, texts = controlled("shuffle-rationale", rationales=of_task(RATIONALES, "made"))
    assert decisions == TRAIN
    assert texts.keys() == of_task(RATIONALES, "made").keys()


# Shuffled pairs


@pytest.mark.parametrize("seed", SEEDS)
def test_rationale_and_label_move_together_among_rows_with_as_many_choices(seed):
    # Gold sets tell the rows of a group apart, so that the giver can be read off the label.
    words = tuple("abcdefg")
    train = [label_decision(index=i, gold=i, choices=words) for i in range(7)]
    train += CANDIDATES[2::2] + CANDIDATES[:2]
    rationales = {d.id: f"argues for {d.id}" for d in train[1:]}
    decisions, texts = apply_control("shuffle-pair", train, rationales, seed=seed)
    giver_of = {(d.task, len(d.choices), d.gold): d for d in train}
    givers = [giver_of[d.task, len(d.choices), d.gold] for d in decisions]
    assert Counter(d.id for d in givers) == Counter(d.id for d in train)
    for row, giver in zip(decisions, givers, strict=True):
        assert row.id != giver.id
        assert texts.get(row.id) == rationales.get(giver.id)  # None: its label came alone


def test_labels_of_rows_without_rationales_move_too():
    train = [label_decision(index=i, gold=i, choices=("x", "y", "z")) for i in range(3)]
    decisions, texts = apply_control("shuffle-pair", train, {}, seed=0)
    assert all(new.gold != old.gold for new, old in zip(decisions, train, strict=True))
    assert texts == {}


def test_two_pairs_change_places():
    train = [label_decision(index=0, gold=0), label_decision(index=1, gold=2)]
    decisions, texts = apply_control("shuffle-pair", train, {train[0].id: "for True"}, seed=0)
    assert [d.label_text for d in decisions] == ["Neither", "True"]
    assert texts == {train[1].id: "for True"}


def test_a_row_with_a_number_of_choices_of_its_own_has_no_partner():
    with pytest.raises(DHRDError, match=r"made_copa/train/4 is the only .* with 4 choices"):
        controlled("shuffle-pair", train=[d for d in TRAIN if d is not CANDIDATES[2]])


# Noise


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_has_the_length_of_the_rationale_and_the_words_of_the_task(seed):
    _, texts = controlled("noise", seed)
    for task in ("made", "made_copa"):
        own = of_task(RATIONALES, task)
        vocabulary = {word for text in own.values() for word in text.split()}
        for key, text in of_task(texts, task).items():
            assert len(text.split()) == len(own[key].split())
            assert set(text.split()) <= vocabulary


def test_noise_words_are_as_frequent_as_in_the_rationales():
    rationales = {LABELS[0].id: "rare " + "common " * 3, LABELS[1].id: "common " * 3996}
    rationales[LABELS[2].id] = "rare " * 999 + "x"
    _, texts = controlled("noise", train=LABELS, rationales=rationales)
    words = [word for text in texts.values() for word in text.split()]
    assert len(words) == 5000
    # Binomial with p = 0.2: a standard deviation of 0.0057.
    assert words.count("rare") / len(words) == pytest.approx(0.2, abs=0.03)


def test_an_empty_rationale_has_no_words_to_replace():
    _, texts = controlled("noise", rationales={LABELS[0].id: "", LABELS[1].id: "one"})
    assert texts == {LABELS[0].id: "", LABELS[1].id: "one"}


def test_an_unknown_control_is_an_error():
    with pytest.raises(KeyError, match="shuffle-everything"):
        controlled("shuffle-everything")
