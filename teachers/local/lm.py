"""A causal language model on this machine: sampling in batches, and exact scores of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DynamicCache,
    LogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from teachers.prompts import Message


class LocalLM:
    """A causal LM and its tokenizer.

    Args:
        lm: an `AutoModelForCausalLM` in evaluation mode.
        tokenizer: with a pad token, which may be the end token: masks come from lengths.
    """

    def __init__(self, lm: Any, tokenizer: Any) -> None:
        self.lm = lm
        self.tokenizer = tokenizer

    @property
    def max_length(self) -> int | None:
        """Most tokens that the model has positions for; None where positions are relative."""
        return getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)

    def chat(self, messages: Sequence[Message]) -> str:
        """The text up to where the reply begins: the model's own chat form, or the plain turns."""
        if not self.tokenizer.chat_template:
            return "".join(f"{message['content']}\n\n" for message in messages)
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that begins with `chat`."""
        # A chat template writes the special tokens itself.
        return self.tokenizer.encode(text, add_special_tokens=not self.tokenizer.chat_template)

    def encode_behind(self, stem: str, text: str) -> list[int]:
        """Token ids of `text` where it follows `stem`.

        Encoded alone, a text would get what some tokenizers put before the first word.
        """
        whole, before = (
            self.tokenizer.encode(part, add_special_tokens=False) for part in (stem + text, stem)
        )
        return whole[len(before) :]

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[list[int]],
        *,
        seeds: Sequence[int],
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        is_over: Callable[[str], bool],
    ) -> list[list[int]]:
        """What the model writes behind each prompt, as token ids.

        Args:
            prompts: token ids, not empty.
            seeds: one per prompt: what is sampled does not depend on the rest of the batch (up to
                the rounding of batched kernels).
            temperature: 0 takes the likeliest token (greedy).
            top_p: sample from the fewest tokens that have this probability together.
            is_over: whether a text written so far need not be continued.
        """
        input_ids, mask = self._padded(prompts, side="left")
        prompt_length = input_ids.shape[1]
        pad = self.tokenizer.pad_token_id
        sampling: list[LogitsProcessor] = []
        if temperature > 0:
            warpers = TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)
            sampling = [*warpers, SeededSampling(seeds, input_ids.device)]
        output = self.lm.generate(
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            do_sample=False,
            logits_processor=sampling,
            stopping_criteria=[StopWhen(is_over, self.tokenizer, prompt_length)],
        )
        written = output[:, prompt_length:].tolist()
        for ids in written:
            while ids and ids[-1] == pad:  # rows that ended before the longest one
                ids.pop()
        return written

    @torch.inference_mode()
    def mean_log_probs(
        self, prefixes: Sequence[list[int]], options: Sequence[Sequence[list[int]]]
    ) -> list[list[float]]:
        """Mean log-probability per token, in nats, of every option behind its prefix.

        For an option of tokens o_1 … o_n: 1/n · Σ_i log p(o_i | prefix, o_1 … o_{i-1}). The mean
        makes options of different lengths comparable.

        Args:
            prefixes: token ids, not empty.
            options: for each prefix, the token ids of its options, none of them empty.
        """
        if self._shares_prefixes:
            groups = [self._logits_behind_cache(prefixes, options)]
        else:
            groups = [self._logits(*row) for row in zip(prefixes, options, strict=True)]
        rows = (row for logits in groups for row in logits)
        tokens = (ids for some in options for ids in some)
        means = torch.stack(
            [
                -cross_entropy(row[: len(ids)].float(), torch.tensor(ids, device=row.device))
                for row, ids in zip(rows, tokens, strict=True)
            ]
        )
        scores = iter(means.tolist())
        return [list(islice(scores, len(some))) for some in options]

    @cached_property
    def _shares_prefixes(self) -> bool:
        """Whether a prefix need be run only once for all its options.

        It is so where positions can be given and the past is every token's keys and values, seen
        whole or through a window. A recurrent state is something else, and so is what subclasses of
        these layers may keep besides; both are left to full forwards.
        """
        if "position_ids" not in inspect.signature(self.lm.forward).parameters:
            return False
        token = torch.zeros(1, 1, dtype=torch.long, device=self.lm.device)
        cache = getattr(self.lm(input_ids=token, use_cache=True), "past_key_values", None)
        return isinstance(cache, DynamicCache) and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers
        )

    def _logits_behind_cache(
        self, prefixes: Sequence[list[int]], options: Sequence[Sequence[list[int]]]
    ) -> Tensor:
        """(options of all prefixes, tokens of the longest, vocabulary) next-token logits."""
        # Padded on the left, so that options follow their prefix directly in the cache, and a
        # sliding window counts no padding between them.
        input_ids, mask = self._padded(prefixes, side="left")
        output = self.lm(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=_positions(mask),
            use_cache=True,
            logits_to_keep=1,
        )
        repeated = torch.tensor([i for i, some in enumerate(options) for _ in some])
        # The prefix's last token predicts an option's first one, so its last one is never run.
        run = [ids[:-1] for some in options for ids in some]
        steps = max(map(len, run))
        logits = output.logits[repeated]
        if not steps:
            return logits
        output.past_key_values.batch_select_indices(repeated)
        input_ids, option_mask = self._padded(run)
        mask = torch.cat([mask[repeated], option_mask], dim=1)
        further = self.lm(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=_positions(mask)[:, -steps:],
            past_key_values=output.past_key_values,
            use_cache=True,
        ).logits
        return torch.cat([logits, further], dim=1)

    def _logits(self, prefix: list[int], options: Sequence[list[int]]) -> Tensor:
        """(options, tokens of the longest, vocabulary) next-token logits, by one full forward."""
        # Padded on the right: what follows a token cannot change it.
        input_ids, mask = self._padded([prefix + ids[:-1] for ids in options])
        return self.lm(
            input_ids=input_ids,
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=max(map(len, options)),
        ).logits

    def _padded(
        self, rows: Sequence[list[int]], side: Literal["left", "right"] = "right"
    ) -> tuple[Tensor, Tensor]:
        """(rows, longest) token ids padded on one side, and the mask that is 0 on padding."""
        tokens = [torch.tensor(ids, dtype=torch.long) for ids in rows]
        real = [torch.ones_like(ids) for ids in tokens]
        pad = self.tokenizer.pad_token_id
        input_ids = pad_sequence(tokens, batch_first=True, padding_value=pad, padding_side=side)
        mask = pad_sequence(real, batch_first=True, padding_side=side)
        return input_ids.to(self.lm.device), mask.to(self.lm.device)


def _positions(mask: Tensor) -> Tensor:
    """(rows, tokens) 0, 1, 2, … over the tokens that are no padding."""
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


class SeededSampling(LogitsProcessor):
    """Leaves one token per row, drawn from softmax(logits) by the row's own generator.

    `generate(do_sample=True)` has one generator for all rows: draws would depend on the batch.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:  # type: ignore[override]
        """(rows, tokens), (rows, vocabulary) -> (rows, vocabulary), -inf but for the token."""
        probs = scores.float().softmax(dim=-1)
        drawn = [
            row.multinomial(1, generator=generator)
            for row, generator in zip(probs, self._generators, strict=True)
        ]
        return torch.full_like(scores, -torch.inf).scatter(1, torch.stack(drawn), 0.0)


class StopWhen(StoppingCriteria):
    """Ends a row as soon as `is_over` says so of the text behind its prompt."""

    def __init__(self, is_over: Callable[[str], bool], tokenizer: Any, prompt_length: int) -> None:
        self._is_over = is_over
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """(rows, tokens) -> (rows,) bool."""
        written = input_ids[:, self._prompt_length :]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return torch.tensor([self._is_over(text) for text in texts], device=input_ids.device)
