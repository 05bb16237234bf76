"""The teacher `hf:MODEL`: a local model, in batches.

Small models do not keep to a prescribed form. So the explanation is generated from a prefilled
opening until a stop rule, and the answer is not read but *scored*: the option that is likeliest
after "Answer:" (by mean log-probability per token) is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from dhrd_plugin.backbones import load_causal_lm, load_tokenizer
from dhrd_plugin.decisions import TaskDecisions
from teachers.base import Reply, Request, register
from teachers.checks import (
    END_OF_REASONING,
    MAX_SENTENCES,
    answer_options,
    length_problem,
    sentences,
)
from teachers.prompts import named_choices

STOPS = ("[END", "Answer:", "\n\n")  # where an explanation is over


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
        concurrency: int = 8,
        seed: int = 0,
    ) -> None:
        """Load `model` (a folder, a hub id or "smollm2").

        Args:
            concurrency: rows generated together.

        Raises:
            DHRDError: it cannot be found, or is no causal language model.
        """
        self.model = model
        self.params: dict[str, Any] = {
            "temperature": 0.7,
            "top_p": 0.9,
            "max_new_tokens": 160,
            "seed": seed,
        }
        self._batch_size = concurrency
        self._tokenizer = load_tokenizer(model)
        self._lm = load_causal_lm(model, dtype="auto", device_map="auto")

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Answer the requests batch by batch."""
        while batch := list(islice(requests, self._batch_size)):
            fitting = []
            for request in batch:
                excess = self._excess(request)
                if excess:
                    yield request, Reply("", None, request.prompt.origin, failure=excess)
                else:
                    fitting.append(request)
            if fitting:
                yield from zip(fitting, self._explain_batch(fitting), strict=True)

    def _excess(self, request: Request) -> str | None:
        """Why a prompt does not fit into the model, if so: a question is never truncated."""
        config = self._lm.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)  # none: positions are relative
        if limit is None:
            return None
        needed = len(self._encode(self._prefilled(request))) + self.params["max_new_tokens"]
        return f"needs {needed} tokens, the model takes {limit}" if needed > limit else None

    def _prefilled(self, request: Request) -> str:
        """The prompt, in the model's chat form if it has one, and the explanation's opening."""
        prompt = request.prompt.render(request.decision)
        if self._tokenizer.chat_template:
            prompt = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        else:
            prompt += "\n\n"
        return prompt + request.prompt.opening

    def _encode(self, text: str) -> list[int]:
        # A chat template writes the special tokens itself.
        return self._tokenizer.encode(text, add_special_tokens=not self._tokenizer.chat_template)

    def _explain_batch(self, batch: Sequence[Request]) -> Iterator[Reply]:
        import torch

        prompts = [self._prefilled(request) for request in batch]
        rows = [self._encode(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        # Padded on the left, where generation needs it; the mask comes from the lengths, because
        # the pad token is often the end token.
        pad = self._tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            output = self._lm.generate(
                input_ids=input_ids.to(self._lm.device),
                attention_mask=mask.to(self._lm.device),
                max_new_tokens=self.params["max_new_tokens"],
                pad_token_id=pad,
                stop_strings=list(STOPS),
                tokenizer=self._tokenizer,
                do_sample=False,
                logits_processor=self._sampling([r.seed(self.params["seed"]) for r in batch]),
            )
        for request, prompt, row, ids in zip(
            batch, prompts, rows, output[:, longest:].tolist(), strict=True
        ):
            generated = self._tokenizer.decode(ids, skip_special_tokens=True)
            rationale = cut_explanation(request.prompt.opening + generated)
            problem = length_problem(rationale)
            answer = None
            if problem is None:
                answer = self._best_answer(request, prompt, rationale)
            yield Reply(
                rationale=rationale,
                answer=answer,
                origin=request.prompt.origin,
                text=request.prompt.opening + generated,
                problem=problem,
                prompt_tokens=len(row),
                completion_tokens=sum(1 for token in ids if token != pad),
            )

    def _sampling(self, seeds: Sequence[int]) -> list[Any]:
        """Processors that make greedy search sample every row with its own seed."""
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        return [
            TemperatureLogitsWarper(self.params["temperature"]),
            TopPLogitsWarper(self.params["top_p"]),
            GumbelNoise(seeds),
        ]

    def _best_answer(self, request: Request, prompt: str, rationale: str) -> str:
        """The option that the model finds likeliest after the rationale and "Answer:".

        A candidate is scored as it stands in the prompt, "(A) its text", and not by its letter
        alone: small models prefer A whatever was said.
        """
        opening = request.prompt.opening
        context = f"{prompt.removesuffix(opening)}{rationale} {END_OF_REASONING}\nAnswer:"
        shown = named_choices(request.decision)
        scores = self._mean_log_probs(
            self._encode(context),
            [self._tokenizer.encode(f" {c}", add_special_tokens=False) for c in shown],
        )
        return answer_options(request.decision)[scores.index(max(scores))]

    def _mean_log_probs(
        self, context: list[int], continuations: Sequence[list[int]]
    ) -> list[float]:
        """Mean log-probability per token, in nats, of each continuation of `context`."""
        import torch

        longest = max(map(len, continuations))
        # Padded on the right: behind a causal mask, what follows a token cannot change it.
        rows = [context + c + [0] * (longest - len(c)) for c in continuations]
        mask = [[1] * (len(context) + len(c)) + [0] * (longest - len(c)) for c in continuations]
        device = self._lm.device
        with torch.inference_mode():
            logits = self._lm(
                input_ids=torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                logits_to_keep=longest + 1,
                use_cache=False,
            ).logits
        log_probs = logits[:, :-1].float().log_softmax(dim=-1)  # (options, longest, vocabulary)
        return [log_probs[i, range(len(c)), c].mean().item() for i, c in enumerate(continuations)]


class GumbelNoise:
    """Logits processor: argmax(logits + Gumbel noise) is a sample of softmax(logits).

    Each row has a generator of its own, which `generate(do_sample=True)` cannot give.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """(rows, tokens), (rows, vocabulary) -> (rows, vocabulary)."""
        import torch

        waits = torch.stack(
            [torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self._generators]
        )
        return scores - waits.log().to(scores.device)


def cut_explanation(text: str) -> str:
    """`text` up to the first stop, on one line, cut to at most five complete sentences."""
    explanation = re.split("|".join(map(re.escape, STOPS)), text.strip())[0]
    return " ".join(sentences(" ".join(explanation.split()))[:MAX_SENTENCES])
