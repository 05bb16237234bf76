"""What a teacher and a judge are shown, and wording of one's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_decisions import GOOD, candidate_decision, label_decision

from dhrd_plugin.errors import DHRDError
from teachers.checks import END_OF_REASONING, parse_reply
from teachers.prompts import Example, load_prompts, worked_reply

PROMPTS = load_prompts()


def shown(prompt, decision):
    (message,) = prompt.messages(decision)
    assert message["role"] == "user"
    return message["content"]


def test_labels_prompt_shows_question_choices_gold_and_rules():
    decision = label_decision(gold=1, context="Braces {stay} as they are.")
    text = shown(PROMPTS.hinted, decision)
    assert "Braces {stay} as they are." in text
    assert "True\nFalse\nNeither" in text
    assert "Right answer: False" in text
    assert "2 to 5 sentences" in text
    assert END_OF_REASONING in text
    for word in ("true", "false", "neither", "yes", "entail*"):
        assert word in text.split("Do not use any of these words")[1]
    assert '"Answer: True" or "Answer: False" or "Answer: Neither"' in text


def test_candidates_prompt_letters_the_candidates():
    text = shown(PROMPTS.hinted, candidate_decision(gold=1))
    assert "(A) the sun was rising.\n(B) the grass was cut." in text
    assert "Right answer: (B) the grass was cut." in text
    assert '"Answer: A" or "Answer: B"' in text
    assert "by its letter" in text and "Do not use any of these words" not in text


def test_blind_prompt_is_the_same_whatever_the_gold_answer_is():
    assert shown(PROMPTS.blind, label_decision(gold=0)) == shown(
        PROMPTS.blind, label_decision(gold=2)
    )
    assert shown(PROMPTS.hinted, label_decision(gold=0)) != shown(
        PROMPTS.hinted, label_decision(gold=2)
    )


def test_judge_is_shown_what_the_view_says_and_never_the_gold_answer():
    decision = label_decision(context="Scene 7. It rains.")
    for view, sees_row, sees_rationale in (
        ("input", True, False),
        ("rationale", False, True),
        ("both", True, True),
    ):
        for gold in (0, 1):
            (message,) = PROMPTS.judge[view].messages(
                label_decision(context="Scene 7.", gold=gold), GOOD
            )
            assert (
                message == PROMPTS.judge[view].messages(label_decision(context="Scene 7."), GOOD)[0]
            )
        text = PROMPTS.judge[view].messages(decision, GOOD)[0]["content"]
        assert ("Scene 7. It rains." in text) is sees_row
        assert (GOOD in text) is sees_rationale
        assert text.endswith("Reply with one of these and nothing else: True, False, Neither")


@pytest.mark.parametrize("prompt", [PROMPTS.hinted, PROMPTS.blind])
def test_prompt_asks_for_the_form_that_is_parsed(prompt):
    asked = shown(prompt, label_decision(gold=0))
    assert '"Answer: True"' in asked
    assert parse_reply(f"First. Second. {END_OF_REASONING}\nAnswer: True")[2] is None


def test_prompt_hash_follows_all_that_is_shown():
    hinted = PROMPTS.hinted
    assert hinted.sha == replace(hinted).sha == load_prompts().hinted.sha
    changed = [
        replace(hinted, template=hinted.template + " Please."),
        replace(hinted, opening="It says that"),
        replace(hinted, words_rule="Never say {words}."),
        replace(hinted, letters_rule="No letters."),
        replace(hinted, examples={"made": [Example(label_decision(1), GOOD)]}),
        replace(hinted, examples={"made": [Example(label_decision(1), GOOD + " So.")]}),
        PROMPTS.blind,
    ]
    assert len({prompt.sha for prompt in [hinted, *changed]}) == 8


def test_examples_are_worked_turns_before_the_question_and_never_the_row_itself():
    examples = {"made": [Example(label_decision(i, gold=i), GOOD) for i in (0, 1)]}
    prompt = PROMPTS.with_examples(examples).hinted
    chat = prompt.messages(label_decision(5))
    assert [m["role"] for m in chat] == ["user", "assistant"] * 2 + ["user"]
    assert "Scene 0." in chat[0]["content"] and "Right answer: True" in chat[0]["content"]
    assert chat[3]["content"] == f"{GOOD} {END_OF_REASONING}\nAnswer: False"
    assert "Scene 5." in chat[4]["content"]
    assert "Right answer" not in "".join(
        m["content"] for m in PROMPTS.with_examples(examples).blind.messages(label_decision(5))
    )
    own = prompt.messages(label_decision(1, gold=1))
    assert len(own) == 3 and "Scene 0." in own[0]["content"]
    assert len(prompt.messages(label_decision(5, task="another"))) == 1


def test_worked_reply_is_what_is_asked_for():
    reply = worked_reply(Example(candidate_decision(gold=1), GOOD))
    assert parse_reply(reply) == (GOOD, "B", None)


def test_own_file_is_laid_over_ours(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[blind]\ntemplate = "Q: {question} {{x}} [END OF REASONING] {answer_lines}"\n'
        '[judge]\nrationale = "{rationale} Pick: {options}"\n',
        encoding="utf-8",
    )
    mine = load_prompts(path)
    decision = label_decision(context="Is it?", choices=("a", "b"))
    assert shown(mine.blind, decision) == (
        'Q: Is it? {x} [END OF REASONING] "Answer: a" or "Answer: b"'
    )
    assert mine.blind.opening == PROMPTS.blind.opening
    assert mine.hinted == PROMPTS.hinted
    assert mine.judge["rationale"].messages(decision, "So.")[0]["content"] == "So. Pick: a, b"
    assert mine.judge["both"] == PROMPTS.judge["both"]
    assert mine.judge_sha != PROMPTS.judge_sha


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[hinted\n", "not valid TOML"),
        ('[gold]\ntemplate = "x"\n', "'gold' is no section"),
        ('hinted = "x"\n', "'hinted' is no section"),
        ('[hinted]\nwording = "x"\n', r"\[hinted\] wording = 'x': need text under template, open"),
        ("[hinted]\nopening = 3\n", r"\[hinted\] opening = 3: need text"),
        ('[hinted]\ntemplate = "{question}"\n', r"hinted\.template lacks the field {gold}"),
        ('[blind]\ntemplate = "{question} {gold}"\n', r"blind\.template has the field {gold}"),
        ('[judge]\ninput = "{question {options}"\n', r"judge\.input.*Double braces"),
        ('[judge]\nboth = "{question} {options}"\n', r"judge\.both lacks the field {rationale}"),
        ('[judge]\ninput = "{question:d} {options}"\n', r"judge\.input: write {question} alone"),
        ('[rules]\nwords = "{words!r}"\n', r"rules\.words: write {words} alone"),
        ('[blind]\ntemplate = "{question}"\n', r"blind\.template must ask for \[END OF REASONING"),
    ],
)
def test_file_that_cannot_work_is_refused_by_file_and_key(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DHRDError, match=rf"mine\.toml: .*{message}|mine\.toml: {message}"):
        load_prompts(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DHRDError, match=r"Cannot read prompts from .*none\.toml"):
        load_prompts(tmp_path / "none.toml")
