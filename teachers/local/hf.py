"""The teacher `hf:MODEL`: a local model, in batches.

Small models do not keep to a prescribed form. So the explanation is generated from a prefilled
opening until a stop rule, and the answer is not read but *scored*: the option that is likeliest
after "Answer:" (by mean log-probability per token) is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from scipy.special import softmax

from dhrd_plugin.backbones import four_bit, load_causal_lm, load_tokenizer
from dhrd_plugin.decisions import Decision, TaskDecisions
from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from teachers.base import Prediction, Question, Reply, Request, register
from teachers.budget import Usage
from teachers.checks import (
    END_OF_REASONING,
    MAX_SENTENCES,
    answer_options,
    length_problem,
    sentences,
)
from teachers.config import DTYPES, QUANTIZATIONS
from teachers.local.token_batches import A, W, batches
from teachers.output.processes import Processes
from teachers.prompts import named_choices

STOPS = ("[END", "Answer:", "\n\n")  # where an explanation is over
_STOP = re.compile("|".join(map(re.escape, STOPS)))
ANSWER = "Answer:"
CLOSING = f" {END_OF_REASONING}\n{ANSWER}"  # between an explanation and its answer

CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 4096, 16384


@dataclass(frozen=True)
class Writing:
    """A rationale to be written.

    Attributes:
        chat: the prompt up to where the reply begins.
        prompt_ids: token ids of chat and opening.
        width: tokens of prompt, explanation and answer at most.
    """

    request: Request
    chat: str
    prompt_ids: list[int]
    width: int
    rows = 1

    @property
    def decision(self) -> Decision:
        return self.request.decision


@dataclass(frozen=True)
class Choosing:
    """Options to be scored behind a prefix that ends in "Answer:", all as token ids."""

    prefix: list[int]
    options: list[list[int]]

    @property
    def rows(self) -> int:
        return len(self.options)

    @property
    def width(self) -> int:
        return len(self.prefix) + max(map(len, self.options))


R = TypeVar("R")  # the result


@register("hf:MODEL")
class LocalTeacher:
    """A causal language model run by transformers.

    Sampling is seeded per row and attempt, so a rationale does not depend on what it was batched
    with or whether the run was interrupted (up to the rounding of batched kernels).
    """

    adapter = "hf"
    asks = True

    def __init__(
        self,
        model: str,
        splits: Sequence[TaskDecisions],
        *,
        seed: int = 0,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_new_tokens: int = 160,
        batch_tokens: int | None = None,
        device_map: str = "auto",
        dtype: str = "auto",
        quantize: str | None = None,
    ) -> None:
        """Load `model` (a folder, a hub id or "smollm2").

        Args:
            seed, temperature, top_p: of sampling; temperature 0 takes the likeliest tokens, the
                same on every attempt.
            max_new_tokens: tokens per explanation at most.
            batch_tokens: padded tokens per batch, new ones included; None for a default by device.
            device_map: handed to `from_pretrained`; under several processes "auto" is the device
                of each.
            dtype: precision; "auto" is the one that the weights are stored in (bfloat16 with
                `quantize`).
            quantize: hold the weights in "4bit" or "8bit" (needs bitsandbytes).

        Raises:
            DHRDError: it cannot be found, is no causal language model, or cannot be loaded in the
                way asked for.
        """
        from teachers.local.lm import LocalLM

        lm = load_causal_lm(
            model, device_map=_device_map(device_map), **_precision(dtype, quantize)
        )
        self._lm = LocalLM(lm, load_tokenizer(model))
        default = CPU_BATCH_TOKENS if lm.device.type == "cpu" else GPU_BATCH_TOKENS
        self._batch_tokens = batch_tokens or default
        self._seed = seed
        self._sampling: dict[str, Any] = {
            "temperature": temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
        }
        self.model = model
        self.params: dict[str, Any] = {
            **self._sampling,
            "seed": seed,
            "dtype": str(lm.dtype).removeprefix("torch."),
            "quantize": quantize,
        }

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Answer the requests batch by batch."""

        def failed(request: Request, why: str) -> Reply:
            return Reply("", None, request.prompt.origin, failure=why)

        return self._in_batches(requests, self._writing, self._write, failed)

    def predict(self, questions: Iterator[Question]) -> Iterator[tuple[Question, Prediction]]:
        """Score all choices of each question; exact, so `votes` are not needed.

        p(c) ∝ exp(1/n · Σ_i log p(o_i | prompt, "Answer:", o_1 … o_{i-1})), where o_1 … o_n are the
        tokens of choice c as the prompt shows it.
        """

        def failed(question: Question, why: str) -> Prediction:
            return Prediction(None, None, failure=why)

        return self._in_batches(questions, self._asking, self._choose, failed)

    def _in_batches(
        self,
        asked: Iterator[A],
        prepare: Callable[[A], W],
        work: Callable[[Sequence[W]], list[R]],
        failed: Callable[[A, str], R],
    ) -> Iterator[tuple[A, R]]:
        """What is asked, with its result; what does not fit into the model is never truncated."""
        import torch

        limit = self._lm.max_length
        for batch in batches(((item, prepare(item)) for item in asked), self._batch_tokens):
            fitting = []
            for item, prepared in batch:
                if limit is not None and prepared.width > limit:
                    why = f"needs {prepared.width} tokens, the model takes {limit}"
                    yield item, failed(item, why)
                else:
                    fitting.append((item, prepared))
            if fitting:
                try:
                    results = work([prepared for _, prepared in fitting])
                except torch.OutOfMemoryError as error:
                    raise DHRDError(
                        f"{self.model}: out of memory in a batch of {len(fitting)} rows. Run the "
                        f"same command with --batch-tokens below {self._batch_tokens}.",
                        exit_code=EXIT_FAILED,
                    ) from error
                yield from zip([item for item, _ in fitting], results, strict=True)

    def _writing(self, request: Request) -> Writing:
        chat = self._lm.chat(request.messages)
        prompt_ids = self._lm.encode(chat + request.prompt.opening)
        answer = self._choosing(CLOSING, request.decision)
        width = len(prompt_ids) + self._sampling["max_new_tokens"] + answer.width
        return Writing(request, chat, prompt_ids, width)

    def _asking(self, question: Question) -> Choosing:
        return self._choosing(self._lm.chat(question.messages) + ANSWER, question.decision)

    def _choosing(self, prefix: str, decision: Decision) -> Choosing:
        """What may stand behind a prefix that ends in "Answer:".

        A candidate is scored as it stands in the prompt, "(A) its text", and not by its letter
        alone: small models prefer A whatever was said.
        """
        options = [
            self._lm.encode_behind(ANSWER, f" {choice}") for choice in named_choices(decision)
        ]
        return Choosing(self._lm.encode(prefix), options)

    def _write(self, batch: Sequence[Writing]) -> list[Reply]:
        written = self._lm.generate(
            [writing.prompt_ids for writing in batch],
            seeds=[writing.request.seed(self._seed) for writing in batch],
            is_over=explanation_is_over,
            **self._sampling,
        )
        replies = [self._reply(*pair) for pair in zip(batch, written, strict=True)]
        unanswered = [
            (index, self._choosing(writing.chat + reply.rationale + CLOSING, writing.decision))
            for index, (writing, reply) in enumerate(zip(batch, replies, strict=True))
            if reply.problem is None
        ]
        for part in batches(unanswered, self._batch_tokens):
            scores = self._score([choosing for _, choosing in part])
            for (index, _), means in zip(part, scores, strict=True):
                options = answer_options(batch[index].decision)
                answer = options[means.index(max(means))]
                replies[index] = replace(replies[index], answer=answer)
        return replies

    def _reply(self, writing: Writing, ids: list[int]) -> Reply:
        """The reply that token ids are, still without an answer."""
        prompt = writing.request.prompt
        text = prompt.opening + self._lm.tokenizer.decode(ids, skip_special_tokens=True)
        rationale = cut_explanation(text)
        return Reply(
            rationale,
            None,
            prompt.origin,
            text=text,
            problem=length_problem(rationale),
            usage=Usage(len(writing.prompt_ids), len(ids), cost=0.0),
        )

    def _choose(self, batch: Sequence[Choosing]) -> list[Prediction]:
        return [
            Prediction(
                tuple(softmax(scores).tolist()),
                "scored",
                usage=Usage(len(choosing.prefix), cost=0.0),
            )
            for choosing, scores in zip(batch, self._score(batch), strict=True)
        ]

    def _score(self, batch: Sequence[Choosing]) -> list[list[float]]:
        return self._lm.mean_log_probs(
            [choosing.prefix for choosing in batch], [choosing.options for choosing in batch]
        )


def cut_explanation(text: str) -> str:
    """`text` up to the first stop, on one line, cut to at most five complete sentences."""
    explanation = _STOP.split(text.strip())[0]
    return " ".join(sentences(" ".join(explanation.split()))[:MAX_SENTENCES])


def explanation_is_over(text: str) -> bool:
    """Whether `cut_explanation` would leave out whatever `text` goes on with."""
    before = " ".join(text.split()[:-1])  # the last word may be unfinished ("3." of "3.5")
    return _STOP.search(text) is not None or len(sentences(before)) >= MAX_SENTENCES


def _device_map(device_map: str) -> Any:
    """Where the model goes; a copy per process must not be spread over the others' devices."""
    if device_map != "auto" or Processes.of_environment().world == 1:
        return device_map
    from accelerate import PartialState

    return {"": PartialState().device}


def _precision(dtype: str, quantize: str | None) -> dict[str, Any]:
    """`from_pretrained`'s arguments for precision and quantisation."""
    import torch
    from transformers import BitsAndBytesConfig

    if dtype not in DTYPES:
        raise DHRDError(f"--dtype {dtype}: need one of {', '.join(DTYPES)}.")
    if quantize is None:
        return {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    computing = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    if quantize == "4bit":
        return {"dtype": computing, "quantization_config": four_bit(computing)}
    if quantize == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
        return {"dtype": computing, "quantization_config": config}
    raise DHRDError(f"--quantize {quantize}: need one of {', '.join(QUANTIZATIONS)}.")
