"""The side that writes: a chain of thought per document, by the harness's own model classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import lm_eval.models  # noqa: F401 (fills the registry)
from lm_eval.api.registry import get_model

from dhrd_plugin.bench.config import BenchConfig
from dhrd_plugin.bench.queries import Query
from dhrd_plugin.bench.sides import Answerer, Tokens, student_config, student_precision
from dhrd_plugin.checkpoint import load_student
from dhrd_plugin.lm import DHRDLM
from dhrd_plugin.students import Student

SERVER_TIMEOUT = 3600  # seconds; the harness's 300 are short for many long answers at once


def load_cot(student: Student, config: BenchConfig, *, device: str) -> Answerer:
    """What writes with that engine.

    Raises:
        DHRDError: a student that cannot be loaded.
    """
    if config.engine == "vllm":
        return VLLMReasoning(student)
    if config.engine == "openai":
        return ServerReasoning(str(config.base_url), str(config.model))
    return HFReasoning(student, device=device, include_path=config.include_path)


class _Reasoning(Answerer):
    """Counts the tokens of what was answered last; a subclass adds to `read` and `generated`."""

    read: int | None = 0
    generated: int | None = 0

    def rows(self, query: Query) -> int:
        return 1

    def tokens(self, queries: Sequence[Query]) -> Tokens:
        return Tokens(self.read, self.generated)

    def _begin(self, queries: Sequence[Query]) -> list[Any]:
        """The requests, before they are answered."""
        self.read = self.generated = 0
        return [query.reasoning for query in queries]

    def _count(self, read: int, generated: int) -> None:
        if self.read is not None and self.generated is not None:
            self.read += read
            self.generated += generated


class HFReasoning(_Reasoning):
    """The student's reasoning head, decoded by transformers through the harness adapter."""

    def __init__(self, student: Student, *, device: str, include_path: str | None) -> None:
        self.lm = _CountedDHRDLM(str(student.folder), device=device, include_path=include_path)
        self.lm.count = self._count
        self.config = student_config(self.lm, student)
        self.precision = student_precision(student)

    def answer(self, queries: Sequence[Query], parallel: int) -> None:
        self.lm.batch_size_per_gpu = parallel
        self.lm.generate_until(self._begin(queries), disable_tqdm=True)


class _CountedDHRDLM(DHRDLM):
    """Tells `count` how many tokens each batch read and wrote."""

    count: Callable[[int, int], None]

    def _model_generate(self, context: Any, **kwargs: Any) -> Any:
        sequences = super()._model_generate(context, **kwargs)
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        written = 0
        for row in sequences[:, context.shape[1] :].tolist():
            # A finished row is padded behind its end-of-text token.
            written += next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        self.count(int(kwargs["attention_mask"].sum()), written)
        return sequences


class VLLMReasoning(_Reasoning):
    """The student's merged weights under vLLM, which is given all queries and batches by itself."""

    parallel = "concurrency"
    in_process = False

    def __init__(self, student: Student) -> None:
        model, tokenizer, _ = load_student(student.folder, merge=True)
        with TemporaryDirectory() as folder:
            model.lm.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            del model
            self.precision = student.config.dtype
            self.lm = get_model("vllm")(pretrained=folder, dtype=self.precision)
        self.config = {
            "model": "vllm",
            "model_args": {"pretrained": str(student.folder), "dtype": self.precision},
            "gen_kwargs": {},
        }
        self._generate, self.lm._model_generate = self.lm._model_generate, self._counted

    def answer(self, queries: Sequence[Query], parallel: int) -> None:
        self.lm.generate_until(self._begin(queries), disable_tqdm=True)

    def _counted(self, requests: Any, **kwargs: Any) -> Any:
        outputs = self._generate(requests, **kwargs)
        for output in outputs:
            self._count(len(output.prompt_token_ids), len(output.outputs[0].token_ids))
        return outputs


class ServerReasoning(_Reasoning):
    """A server of chat completions: one user message per document, several in flight."""

    parallel = "concurrency"
    in_process = False

    def __init__(self, base_url: str, model: str) -> None:
        self._arguments = {"model": model, "base_url": f"{base_url.rstrip('/')}/chat/completions"}
        self.config = {
            "model": "local-chat-completions",
            "model_args": self._arguments,
            "gen_kwargs": {},
        }

    def answer(self, queries: Sequence[Query], parallel: int) -> None:
        lm = get_model("local-chat-completions")(
            **self._arguments, num_concurrent=parallel, timeout=SERVER_TIMEOUT
        )
        parse = lm.parse_generations

        def counted(outputs: Any, **kwargs: Any) -> Any:
            for reply in outputs if isinstance(outputs, list) else [outputs]:
                self._count_usage(reply)
            return parse(outputs, **kwargs)

        lm.parse_generations = counted
        asked = [_as_chat(lm, request) for request in self._begin(queries)]
        lm.generate_until(asked, disable_tqdm=True)

    def _count_usage(self, reply: Mapping[str, Any]) -> None:
        """A server that does not say leaves the counts unknown."""
        usage = reply.get("usage") or {}
        if {"prompt_tokens", "completion_tokens"} <= usage.keys():
            self._count(usage["prompt_tokens"], usage["completion_tokens"])
        else:
            self.read = self.generated = None


def _as_chat(lm: Any, request: Any) -> Any:
    text, settings = request.args
    message = lm.apply_chat_template([{"role": "user", "content": text}])
    return replace(request, arguments=(message, settings))
