"""The sides that answer without writing: the pooled head, a plain classifier, log-likelihoods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from scipy.special import log_softmax

from dhrd_plugin.backbones import load_tokenizer, resolve_backbone
from dhrd_plugin.batching import Encoder, batches_by_length
from dhrd_plugin.bench.plain import classify, load_plain
from dhrd_plugin.bench.queries import Query
from dhrd_plugin.lm import DHRDLM
from dhrd_plugin.scoring import BATCH_TOKENS
from dhrd_plugin.students import Student


class Tokens(NamedTuple):
    """Of several queries together, padding not counted; None where it is not known.

    Attributes:
        read: of the distinct sequences that a query is made of; what packed candidates share
            counts for each of them.
        generated: all that were written, also those behind a stop string while other rows of the
            batch were not finished.
    """

    read: int | None
    generated: int | None


class Answerer(ABC):
    """A model that is loaded and answers.

    Attributes:
        config: the model as a results file of the harness describes it.
        precision: of its weights; None where they are not ours.
        parallel: what the number given to `answer` is.
        in_process: whether it computes in this process, whose memory is then its own.
    """

    config: dict[str, Any]
    precision: str | None = None
    parallel: Literal["batch_size", "concurrency"] = "batch_size"
    in_process = True

    @abstractmethod
    def answer(self, queries: Sequence[Query], parallel: int) -> None:
        """From text to answers, so many rows (or queries) at a time."""

    @abstractmethod
    def rows(self, query: Query) -> int:
        """How many of these the query is."""

    @abstractmethod
    def tokens(self, queries: Sequence[Query]) -> Tokens:
        """Of `queries`, which were answered last."""


class _Classifier(Answerer):
    """Reads the inputs of decisions, in the student's own tokens."""

    encoder: Encoder

    def rows(self, query: Query) -> int:
        return len(query.decision.inputs)

    def tokens(self, queries: Sequence[Query]) -> Tokens:
        encoded = [self.encoder.encode(query.decision) for query in queries]
        return Tokens(sum(len(ids) for decision in encoded for ids in decision.inputs), None)


class Pooled(_Classifier):
    """The student's classification head, through the harness adapter."""

    def __init__(self, student: Student, *, device: str, include_path: str | None) -> None:
        self.lm = DHRDLM(str(student.folder), device=device, include_path=include_path)
        self.encoder = _encoder(self.lm.tokenizer, student)
        self.config = student_config(self.lm, student)
        self.precision = student_precision(student)

    def answer(self, queries: Sequence[Query], parallel: int) -> None:
        _score(self.lm, queries, parallel)


class Plain(_Classifier):
    """`AutoModelForSequenceClassification` on the backbone, with the adapter's own batching.

    Its batches are sorted by length and hold no more tokens than the adapter's. Of candidates, each
    is a row with one logit.
    """

    def __init__(self, student: Student, *, task: str, device: str) -> None:
        config = student.config
        self._tokenizer = load_tokenizer(str(student.folder))
        self._plain = load_plain(
            config.base_model,
            config.tasks[task].n_outputs,
            getattr(torch, config.dtype),
            self._tokenizer.pad_token_id,
            device,
        )
        self.encoder = _encoder(self._tokenizer, student)
        self.config = _backbone_config("AutoModelForSequenceClassification", student)
        self.precision = config.dtype

    def answer(self, queries: Sequence[Query], parallel: int) -> None:
        decisions = [self.encoder.encode(query.decision) for query in queries]
        rows = [ids for decision in decisions for ids in decision.inputs]
        batches = batches_by_length([len(ids) for ids in rows], parallel, BATCH_TOKENS)
        logits = iter(classify(self._plain, self._tokenizer, rows, batches))
        for decision in decisions:
            log_softmax(list(chain.from_iterable(next(logits) for _ in decision.inputs)))


class LogLikelihood(Answerer):
    """Log-likelihood of every choice under the backbone, by the harness's own model `hf`."""

    def __init__(self, student: Student, *, device: str) -> None:
        self.config = _backbone_config("hf", student)
        self.precision = student.config.dtype
        self.lm = _CountedHFLM(**self.config["model_args"], device=device)

    def answer(self, queries: Sequence[Query], parallel: int) -> None:
        _score(self.lm, queries, parallel)

    def rows(self, query: Query) -> int:
        return len(query.requests)

    def tokens(self, queries: Sequence[Query]) -> Tokens:
        return Tokens(self.lm.tokens_read(), None)


class _CountedHFLM(HFLM):
    """Keeps what it was last asked, in tokens."""

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
        self._asked = [context + continuation for _, context, continuation in requests]
        return super()._loglikelihood_tokens(requests, **kwargs)

    def tokens_read(self) -> int:
        """The last token is only predicted; the harness runs what is equal up to there once."""
        sequences = {tuple(ids[:-1][-self.max_length :]) for ids in self._asked}
        return sum(map(len, sequences))


def _score(lm: HFLM, queries: Sequence[Query], batch_size: int) -> None:
    lm.batch_size_per_gpu = batch_size
    requests = [request for query in queries for request in query.requests]
    lm.loglikelihood(requests, disable_tqdm=True)


def _encoder(tokenizer: Any, student: Student) -> Encoder:
    return Encoder(tokenizer, list(student.config.tasks), student.config.max_length)


def student_config(lm: DHRDLM, student: Student) -> dict[str, Any]:
    """As `lm_eval --model dhrd` writes it."""
    return {
        "model": "dhrd",
        "model_args": {"pretrained": str(student.folder)},
        "gen_kwargs": {},
        "dhrd": lm.get_model_info()["dhrd"],
    }


def _backbone_config(model: str, student: Student) -> dict[str, Any]:
    """The backbone under another model class of the harness, in the student's precision."""
    arguments = {
        "pretrained": resolve_backbone(student.config.base_model),
        "dtype": student.config.dtype,
    }
    return {"model": model, "model_args": arguments, "gen_kwargs": {}}


def student_precision(student: Student) -> str:
    config = student.config
    if not config.adapter:
        return "float32"  # whole models are kept in it, whatever they compute in
    return f"4 bits, {config.dtype}" if config.quantized else config.dtype
