"""Form, answer and leaks of a rationale."""

from __future__ import annotations

import pytest
from made_decisions import GOOD, LEAKING, candidate_decision, label_decision

from teachers.checks import (
    answer_options,
    forbidden_words,
    judge,
    leaked_words,
    letter,
    match_answer,
    parse_reply,
    sentences,
)


def test_reply_in_the_prescribed_form_is_taken_apart():
    assert parse_reply(f"{GOOD} [END OF REASONING]\nAnswer: True\n") == (GOOD, "True", None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{GOOD}\nAnswer: True", "no [END OF REASONING]"),
        (f"{GOOD} [END OF REASONING] Answer: True", "no single line"),
        (f"{GOOD} [END OF REASONING]\nTrue", "no single line"),
        (f"{GOOD} [END OF REASONING]\nAnswer: True\nI hope this helps.", "no single line"),
        ("One sentence only. [END OF REASONING]\nAnswer: True", "1 complete sentences, need 2"),
        (f"{'Rain. ' * 6}[END OF REASONING]\nAnswer: True", "6 complete sentences"),
        ("[END OF REASONING]\nAnswer: True", "0 complete sentences"),
        ("", "no [END OF REASONING]"),
    ],
)
def test_broken_form_is_named(text, problem):
    assert problem in parse_reply(text)[2]


def test_unfinished_last_sentence_does_not_count():
    assert sentences('He said "stop!" twice. It was 3.5 m long? And then the') == [
        'He said "stop!"',
        "twice.",
        "It was 3.5 m long?",
    ]


@pytest.mark.parametrize(
    ("rationale", "leaked"),
    [
        ("So it is TRUE. That is false? No.", ["true", "false", "no"]),
        ("Neither text says so.", ["neither"]),
        ("It entails a contradiction.", ["entails", "contradiction"]),
        ("It is incorrect, not correct.", ["incorrect", "correct"]),
        ("It is _true_, a non-entailment.", ["true", "non-entailment"]),
        ("Nobody knows; no-one, untruth, trueish, yesterday, the right hand.", []),
    ],
)
def test_verdict_words_are_found_as_whole_words(rationale, leaked):
    assert leaked_words(label_decision(), rationale) == leaked


def test_labels_that_are_no_verdicts_forbid_only_themselves():
    decision = label_decision(choices=("sports", "world news"))
    assert forbidden_words(decision) == ("sports", "world news")
    found = leaked_words(decision, "No doubt this is World News, not a sportsman's tale. Yes.")
    assert found == ["world news"]


@pytest.mark.parametrize(
    ("rationale", "leaked"),
    [
        ("The sun was rising, and the grass was cut. No, it is true.", []),
        ("This answers a question; option a friend would take.", []),
        ("Choice A fits, (b) does not.", ["choice a", "(b)"]),
        ("Option (B) is meant.", ["option (b)"]),
        ("A is the best. The answer is B, a is the article.", ["a is the", "answer is b"]),
        ("The second  choice is meant, alternative 2.", ["second choice", "alternative 2"]),
        ("Option C does not exist here, nor does (c).", []),
        ("The answer: B. Option #2 it is.", ["answer: b", "option #2"]),
        ("Choice **B** fits, option “A” does not.", ["choice **b**", "option “a”"]),
        ('The option "A dog barks" quotes it; the 2nd option does not.', ["2nd option"]),
    ],
)
def test_candidates_may_be_spoken_of_but_not_named(rationale, leaked):
    assert leaked_words(candidate_decision(), rationale) == leaked


def test_one_letter_labels_are_treated_as_names_not_as_words():
    decision = label_decision(choices=("A", "B", "C", "D"))
    assert leaked_words(decision, "A cat is a cat, I say.") == []
    assert leaked_words(decision, "So option C it is.") == ["option c"]


@pytest.mark.parametrize(
    ("answer", "index"),
    [("True", 0), ("false.", 1), ('"Neither"', 2), ("Maybe", None), ("True or False", None)],
)
def test_label_answers(answer, index):
    assert match_answer(label_decision(), answer) == index


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("B", 1),
        ("(b)", 1),
        ("B.", 1),
        ("The sun was rising", 0),
        ("(B) the grass was cut.", 1),
        ("(C) something else", None),
        ("C", None),
    ],
)
def test_candidate_answers(answer, index):
    assert match_answer(candidate_decision(), answer) == index


def test_candidates_are_lettered_beyond_z():
    assert [letter(i) for i in (0, 25, 26, 27, 52)] == ["A", "Z", "AA", "AB", "BA"]
    many = candidate_decision(choices=tuple(f"text {i}" for i in range(30)))
    assert len(set(answer_options(many))) == 30


def test_verdict_names_what_is_wrong_and_measures_everything():
    decision = label_decision(gold=0)
    kept = judge(decision, GOOD, answer="True")
    assert (kept.reason, kept.checks) == (
        None,
        {
            "answer": "True",
            "answer_matches": True,
            "leaked_words": [],
            "words": 13,
        },
    )
    wrong = judge(decision, GOOD, answer="False")
    assert wrong.reason == "answer"
    assert "'False'" in wrong.detail and "'True'" in wrong.detail
    assert judge(decision, LEAKING, answer="True").detail == "contains true"
    assert judge(decision, GOOD, answer=None, problem="odd").reason == "form"


def test_imported_rationale_has_no_answer_to_disagree():
    verdict = judge(label_decision(), GOOD, answer=None)
    assert verdict.reason is None
    assert verdict.checks["answer_matches"] is None
    assert judge(label_decision(), LEAKING, answer=None).reason == "leak"


def test_any_gold_choice_is_a_right_answer():
    decision = candidate_decision(choices=("one", "two", "three"))
    both = type(decision)(**{**decision.__dict__, "gold": frozenset({0, 2})})
    assert judge(both, GOOD, answer="C").reason is None
    assert judge(both, GOOD, answer="B").reason == "answer"
