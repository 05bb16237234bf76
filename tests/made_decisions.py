"""Made decisions of both formulations, and a teacher that says what it is told to."""

from __future__ import annotations

from dhrd_plugin.decisions import Decision, TaskDecisions
from teachers.base import Prediction, Reply


def label_decision(index=0, gold=0, choices=("True", "False", "Neither"), task="made", **changes):
    context = changes.pop("context", f"Scene {index}.\nQuestion: It rains. True or False?\nAnswer:")
    return Decision(
        task=task,
        split="train",
        index=index,
        inputs=(context,),
        choices=choices,
        gold=frozenset({gold}),
        context=context,
        formulation="labels",
    )


def candidate_decision(index=0, gold=1, choices=("the sun was rising.", "the grass was cut.")):
    context = "My body cast a shadow over the grass because"
    return Decision(
        task="made_copa",
        split="train",
        index=index,
        inputs=tuple(f"{context} {choice}" for choice in choices),
        choices=choices,
        gold=frozenset({gold}),
        context=context,
        formulation="candidates",
    )


def one_split(decisions, version="1.0"):
    first = decisions[0]
    return TaskDecisions(
        task=first.task,
        split=first.split,
        formulation=first.formulation,
        choices=first.choices if first.formulation == "labels" else None,
        version=version,
        template_sha="0" * 16,
        decisions=list(decisions),
    )


GOOD = "The sky is grey and the streets shine. Drops run down the window."
LEAKING = "The sky is grey, so it is true that it rains. Drops run down the window."


class ScriptedTeacher:
    """Replies with `script(request)`, one row at a time; remembers what it was asked.

    Attributes:
        asked: (index, attempt, origin) of every request; questioned: (index, view) likewise.
    """

    adapter = "scripted"
    model = "script"
    asks = True

    def __init__(self, script=None, params=None, predict=None):
        self.params = params or {}
        self._script = script
        self._predict = predict
        self.asked = []
        self.questioned = []

    def explain(self, requests):
        for request in requests:
            self.asked.append((request.decision.index, request.attempt, request.prompt.origin))
            yield request, self._script(request)

    def predict(self, questions):
        for question in questions:
            self.questioned.append((question.decision.index, question.prompt.view))
            yield question, self._predict(question)


def reply(rationale=GOOD, answer="True", **changes):
    return Reply(rationale, answer, "hinted", text=f"{rationale} / {answer}", **changes)


def prediction(*probs, **changes):
    return Prediction(probs, "scored", **changes)
