"""What a teacher is shown."""

from __future__ import annotations

from dataclasses import replace

from made_decisions import candidate_decision, label_decision

from teachers.checks import END_OF_REASONING, parse_reply
from teachers.prompts import HINTED


def test_labels_prompt_shows_question_choices_gold_and_rules():
    decision = label_decision(gold=1, context="Braces {stay} as they are.")
    text = HINTED.render(decision)
    assert "Braces {stay} as they are." in text
    assert "True\nFalse\nNeither" in text
    assert "Right answer: False" in text
    assert "2 to 5 sentences" in text
    assert END_OF_REASONING in text
    for word in ("true", "false", "neither", "yes", "entail*"):
        assert word in text.split("Do not use any of these words")[1]
    assert '"Answer: True" or "Answer: False" or "Answer: Neither"' in text


def test_candidates_prompt_letters_the_candidates():
    text = HINTED.render(candidate_decision(gold=1))
    assert "(A) the sun was rising.\n(B) the grass was cut." in text
    assert "Right answer: (B) the grass was cut." in text
    assert '"Answer: A" or "Answer: B"' in text
    assert "by its letter" in text and "Do not use any of these words" not in text


def test_prompt_asks_for_the_form_that_is_parsed():
    asked = HINTED.render(label_decision(gold=0))
    assert '"Answer: True"' in asked
    assert parse_reply(f"First. Second. {END_OF_REASONING}\nAnswer: True")[2] is None


def test_prompt_hash_follows_the_wording():
    assert HINTED.sha == replace(HINTED).sha
    assert HINTED.sha != replace(HINTED, template=HINTED.template + " Please.").sha
    assert HINTED.sha != replace(HINTED, opening="It says that").sha
