"""What a judge's reply tells about the choices."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from made_decisions import candidate_decision, label_decision

from teachers.server.judge_replies import chosen, option_probs


def tokens(*alternatives):
    """A reply's tokens: for each, the probabilities of its alternatives, the token itself first."""
    made = []
    for each in alternatives:
        top = [SimpleNamespace(token=t, logprob=math.log(p)) for t, p in each.items()]
        made.append(SimpleNamespace(token=top[0].token, top_logprobs=top))
    return made


YES_NO = label_decision(choices=("yes", "no"))


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("no", 1),
        (" Yes.", 0),
        ("Answer: no", 1),
        ('answer : "No"', 1),
        ("**yes**", 0),
        ("no\nBecause the sun shines: yes.", 1),
        ("\n\nno", 1),
        ("I think so", None),
        ("", None),
    ],
)
def test_choice_that_a_reply_names(text, choice):
    assert chosen(YES_NO, text) == choice


@pytest.mark.parametrize("text", ["B", "(B)", "B) the grass was cut.", "the grass was cut."])
def test_candidate_that_a_reply_names(text):
    assert chosen(candidate_decision(), text) == 1


@pytest.mark.parametrize(
    "lead", [[], [{" ": 1.0}], [{"\n\n": 1.0}], [{'"': 1.0}], [{"Answer": 1.0}, {":": 1.0}]]
)
def test_what_stands_before_the_answer_is_skipped(lead):
    reply = tokens(*lead, {"yes": 0.75, " No": 0.25}, {".": 0.5, "no": 0.5})
    assert option_probs(YES_NO, reply) == pytest.approx((0.75, 0.25))


def test_lead_and_answer_in_one_token():
    assert option_probs(YES_NO, tokens({' "no': 0.9, "yes": 0.1})) == pytest.approx((0.1, 0.9))


def test_alternatives_that_begin_one_option_count_together():
    reply = tokens({"ent": 0.4, "Entail": 0.2, "not": 0.2, "maybe": 0.2})
    decision = label_decision(choices=("entailment", "not_entailment"))
    assert option_probs(decision, reply) == pytest.approx((0.75, 0.25))


def test_alternatives_that_begin_several_options_do_not_tell():
    decision = label_decision(choices=("similar", "not_similar", "not_sure"))
    assert option_probs(decision, tokens({"not": 0.6, "similar": 0.4})) is None
    probs = option_probs(decision, tokens({"similar": 0.6, "not": 0.3, "not_su": 0.1}))
    assert probs == pytest.approx((0.6 / 0.7, 0.0, 0.1 / 0.7))


def test_letter_of_a_candidate_is_not_the_word_answer():
    reply = tokens({"Answer": 1.0}, {":": 1.0}, {" B": 0.7, " A": 0.3})
    assert option_probs(candidate_decision(), reply) == pytest.approx((0.3, 0.7))


@pytest.mark.parametrize(
    "reply", [(), ({"I": 0.6, "yes": 0.4},), ({" ": 1.0},), ({"Answer": 1.0}, {":": 1.0})]
)
def test_reply_that_does_not_tell(reply):
    assert option_probs(YES_NO, tokens(*reply)) is None
