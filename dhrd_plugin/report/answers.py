"""What a model answered, document by document, read from the samples that the harness logged."""

from __future__ import annotations

import ast
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dhrd_plugin.decisions import Pair, build_decision, infer_formulation, request_pairs
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.results import TaskScore

# Metrics that say of one document whether it was answered right, the most telling first: `row_acc`
# where `acc` is of several documents put together, `em` where there is only F1 beside it.
ACCURACIES = ("acc", "row_acc", "exact_match", "em", "accuracy")
BLANK = "___"  # in a sentence that all choices share, where they go
NORMALISED = 1e-3  # by how much the probabilities of a distribution may miss 1


@dataclass(frozen=True)
class Answer:
    """A model's answer to one document.

    Attributes:
        question: what the model read, without what is chosen between.
        choices: as people read them, stripped; empty where the model may write anything.
        gold: indices of the right choices; empty if the log does not tell, as for decoded answers.
        target: the right answer as it was logged: a choice's index or text, or a list of these.
        probs: softmax over the choices' log-likelihoods (nats); None for decoded answers.
        normalised: the model's probabilities of the choices sum to 1, so that `probs` are its own;
            a language model's do not.
        written: the answer found in a decoded text, else None.
        reasoning: that whole text, else None.
        right: by the task's accuracy where it is logged, else whether the likeliest choice is gold.
        pairs: (context, continuation) per choice, exactly as the model was asked.
    """

    doc_id: int
    question: str
    choices: tuple[str, ...]
    gold: frozenset[int]
    target: str
    probs: tuple[float, ...] | None
    normalised: bool
    written: str | None
    reasoning: str | None
    right: bool
    pairs: tuple[Pair, ...]

    @property
    def predicted(self) -> int | None:
        """The likeliest choice, the first of several; None for decoded answers."""
        return None if self.probs is None else _argmax(self.probs)


class _Request(NamedTuple):
    """As much of a harness request as `request_pairs` looks at."""

    idx: int
    args: Pair


class _Line(NamedTuple):
    """A logged line as far as answers are made from it; choices and decoded text exclude each
    other."""

    doc: Mapping[str, Any]
    target: str
    prompt: str
    pairs: list[Pair]
    log_likelihoods: list[float]
    written: str | None
    reasoning: str | None


def load_answers(score: TaskScore) -> list[Answer]:
    """Every document's answer, in the order of `score.samples`.

    Raises:
        DHRDError: a line without prompts and responses, or a task whose log tells for no document
            whether it was answered right (perplexities, say).
    """
    metric = _accuracy_metric(score)
    lines = dict(_read_lines(score, filter_name=metric.partition(",")[2]))
    logged = {sample.doc_id: sample.values.get(metric) for sample in score.samples}
    if all(line.pairs for line in lines.values()):
        return _chosen(score, lines, logged)
    if not metric:
        raise _undecided(score)
    return [_decoded(doc_id, lines[doc_id], value == 1) for doc_id, value in logged.items()]


def _accuracy_metric(score: TaskScore) -> str:
    """The metric that is 1 or 0 for every document (its filter behind a comma), "" for none."""
    for kind in ACCURACIES:
        for name in score.metrics:
            values = [sample.values.get(name) for sample in score.samples]
            if name.partition(",")[0] == kind and all(value in (0, 1) for value in values):
                return name
    return ""


def _undecided(score: TaskScore) -> DHRDError:
    return DHRDError(
        f"{score.samples_path}: task {score.task} does not log which documents were answered right "
        f"(its metrics: {', '.join(score.metrics) or 'none'}). A task can be looked at document by "
        f"document where one of {', '.join(ACCURACIES)} is 0 or 1 for each."
    )


def _read_lines(score: TaskScore, filter_name: str) -> Iterator[tuple[int, _Line]]:
    """(document, line); of several filters that of the accuracy."""
    with score.samples_path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            record = json.loads(text)
            if filter_name and record["filter"] != filter_name:
                continue
            try:
                yield record["doc_id"], _parse(record)
            except (KeyError, ValueError, TypeError, IndexError) as error:
                raise DHRDError(
                    f"{score.samples_path}:{number}: holds no prompt and response as the harness "
                    f"logs them ({type(error).__name__}: {error}). Run `lm_eval` again."
                ) from None


def _parse(record: Mapping[str, Any]) -> _Line:
    arguments = [_arguments(request) for request in record["arguments"].values()]
    responses = record["filtered_resps"]
    decoded = isinstance(responses[0], str)
    chosen = [] if decoded else [float(log_likelihood) for log_likelihood, _ in responses]
    requests = [_Request(i, (text, str(tail))) for i, (text, tail) in enumerate(arguments)]
    pairs = [] if decoded else request_pairs(requests)
    return _Line(
        doc=record["doc"],
        target=record["target"],
        prompt=arguments[0][0],
        pairs=pairs,
        log_likelihoods=chosen[: len(pairs)],  # auxiliary requests come last
        written=responses[0] if decoded else None,
        reasoning=str(record["resps"][0][0]) if decoded else None,
    )


def _arguments(request: Mapping[str, Any]) -> tuple[str, Any]:
    """(prompt, continuation or decoding settings); the messages of a chat are logged as a list."""
    prompt = request["arg_0"]
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
    return sys.intern(text), request.get("arg_1")  # shared by a document's requests


def _decoded(doc_id: int, line: _Line, right: bool) -> Answer:
    return Answer(
        doc_id=doc_id,
        question=line.prompt,
        choices=(),
        gold=frozenset(),
        target=line.target,
        probs=None,
        normalised=False,
        written=line.written,
        reasoning=line.reasoning,
        right=right,
        pairs=(),
    )


def _chosen(
    score: TaskScore, lines: Mapping[int, _Line], logged: Mapping[int, Any]
) -> list[Answer]:
    formulation, _ = infer_formulation([line.pairs for line in lines.values()])
    golds = _golds(lines, logged)
    answers = []
    for doc_id, value in logged.items():
        line, gold = lines[doc_id], golds[doc_id]
        decision = build_decision(
            line.pairs, formulation, task=score.task, split="", index=doc_id, gold=gold
        )
        question, choices = decision.context, decision.choices
        if formulation == "candidates":
            question, choices = _factor_out(question, choices)
        if value is None and not gold:
            raise _undecided(score)
        probs = _softmax(line.log_likelihoods)
        answers.append(
            Answer(
                doc_id=doc_id,
                question=question,
                choices=choices,
                gold=gold,
                target=line.target,
                probs=probs,
                normalised=abs(sum(map(math.exp, line.log_likelihoods)) - 1) < NORMALISED,
                written=None,
                reasoning=None,
                right=_argmax(probs) in gold if value is None else value == 1,
                pairs=tuple(line.pairs),
            )
        )
    return answers


def _golds(lines: Mapping[int, _Line], logged: Mapping[int, Any]) -> dict[int, frozenset[int]]:
    """The right choices of each document, as far as they are known.

    The target is logged as text, which leaves open whether "1" is an index or one of the choices:
    for the whole task, the reading counts that the logged accuracy agrees with on more documents.
    """

    def agreed(golds: Mapping[int, frozenset[int]]) -> int:
        return sum(
            logged[doc_id] in (None, _argmax(lines[doc_id].log_likelihoods) in gold)
            for doc_id, gold in golds.items()
            if gold
        )

    readings = [
        {doc_id: read(line) for doc_id, line in lines.items()} for read in (_named, _indexed)
    ]
    golds = max(readings, key=agreed)
    return {doc_id: _complete(golds[doc_id], lines[doc_id], logged[doc_id]) for doc_id in lines}


def _named(line: _Line) -> frozenset[int]:
    """The choices whose text the target is, or lists."""
    offered = [continuation.strip() for _, continuation in line.pairs]
    if len(set(offered)) == 1:  # the choices are in the contexts, the target behind them all
        return frozenset()
    target = _literal(line.target)
    texts = [line.target, *(target if isinstance(target, list) else [])]
    stripped = [text.strip() for text in texts if isinstance(text, str)]
    return frozenset(offered.index(text) for text in stripped if text in offered)


def _indexed(line: _Line) -> frozenset[int]:
    """The choices whose index the target is, or lists."""
    target = _literal(line.target)
    listed = target if isinstance(target, list) else [target]
    return frozenset(i for i in listed if isinstance(i, int) and 0 <= i < len(line.pairs))


def _literal(target: str) -> Any:
    """What `target` was before it was logged as text, if that was an index or a list."""
    try:
        return ast.literal_eval(target.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _complete(gold: frozenset[int], line: _Line, logged: Any) -> frozenset[int]:
    """`gold` and what else is right: all of ReCoRD's answers, of which the target is the first,
    and whatever the task has counted as right."""
    predicted, n = _argmax(line.log_likelihoods), len(line.pairs)
    entities, answers = (line.doc.get(column) or [] for column in ("entities", "answers"))
    if len(entities) == n:
        gold |= {i for i, entity in enumerate(entities) if entity in answers}
    if logged == 1:
        gold |= {predicted}
    elif logged == 0 and not gold and n == 2:
        gold |= {1 - predicted}
    return gold


def _factor_out(question: str, choices: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Move the words with which all choices begin and end into the question, around a blank.

    >>> _factor_out("It was loud because", ("the dog barked.", "the cat sang."))
    ('It was loud because the ___', ('dog barked.', 'cat sang.'))
    """
    head = os.path.commonprefix(choices)  # noqa: RUF071 (characters are meant)
    head = head[: _last_space(head)]
    rests = [choice[len(head) :] for choice in choices]
    tail = os.path.commonprefix([rest[::-1] for rest in rests])  # noqa: RUF071
    tail = tail[: _last_space(tail)][::-1]
    if not head and not tail:
        return question, tuple(choices)
    gap = " " if question and not question[-1].isspace() else ""
    middles = (rest[: len(rest) - len(tail)] for rest in rests)
    return f"{question}{gap}{head}{BLANK}{tail}", tuple(middle.strip() for middle in middles)


def _last_space(text: str) -> int:
    """Length of `text` up to and with its last whitespace."""
    return max((i + 1 for i, char in enumerate(text) if char.isspace()), default=0)


def _argmax(values: Sequence[float]) -> int:
    """Index of the largest, the first of several, as the harness takes it."""
    return max(range(len(values)), key=values.__getitem__)


def _softmax(log_likelihoods: Sequence[float]) -> tuple[float, ...]:
    largest = max(log_likelihoods)
    unscaled = [math.exp(value - largest) for value in log_likelihoods]
    return tuple(value / sum(unscaled) for value in unscaled)
