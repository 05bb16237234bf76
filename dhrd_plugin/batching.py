"""From decisions to padded tensors, the same way in training and at test time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dhrd_plugin.checkpoint import LMSpan
from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError

NO_TARGET = -100  # torch's ignore index
# The paper's <REASON> and <ANS>, rendered as text. A decoding prompt ends in the first.
REASON = "\nReasoning:"
ANSWER = "\nFinal Answer:\n"


@dataclass(frozen=True)
class EncodedDecision:
    """A decision as token ids.

    Attributes:
        inputs: ids of each input, special tokens included.
        suffix: ids of rationale and answer, behind input `suffix_row`; empty for none.
        first_target: position in that row of the first token that the reasoning head must predict.
        head: index of the task's head.
        n_choices: number of choices, over one input (labels) or over all of them (candidates).
        gold: gold choices; empty at test time.
        label_probs: a teacher's distribution over the choices, in training where there is one.
    """

    inputs: tuple[list[int], ...]
    head: int
    n_choices: int
    gold: frozenset[int] = frozenset()
    suffix: list[int] = field(default_factory=list)
    suffix_row: int = 0
    first_target: int = 1
    label_probs: tuple[float, ...] | None = None

    @property
    def length(self) -> int:
        """Longest row, in tokens: what padding is decided by."""
        rows = [len(ids) for ids in self.inputs]
        rows[self.suffix_row] += len(self.suffix)
        return max(rows)


@dataclass
class Batch:
    """Padded tensors of some decisions: B rows of L tokens, D decisions of up to C choices.

    Attributes:
        input_ids, attention_mask: (B, L), right-padded.
        pool_index: (B,) position of the last input token.
        head_index: (B,) which head reads the row.
        targets: (B, L) token that each position predicts, `NO_TARGET` for none.
        choice_row, choice_column: (D, C) where in the (B, K) logits each choice's logit is.
        is_choice: (D, C) False where a decision has fewer than C choices.
        gold: (D, C) bool.
        label_probs: (D, C) a teacher's distribution; a row of zeros where there is none.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pool_index: Tensor
    head_index: Tensor
    targets: Tensor
    choice_row: Tensor
    choice_column: Tensor
    is_choice: Tensor
    gold: Tensor
    label_probs: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})

    def decision_logits(self, row_logits: Tensor) -> Tensor:
        """(B, K) logits per row -> (D, C) logits per choice, -inf where there is no choice.

        For candidates a choice is a row with one logit; for labels it is a column.
        """
        logits = row_logits[self.choice_row, self.choice_column]
        return logits.masked_fill(~self.is_choice, float("-inf"))


class Encoder:
    """Tokenises decisions.

    The input and what follows it are tokenised apart and joined as ids, so that the last input
    token is the same with and without a rationale behind it.

    Args:
        tokenizer: a transformers tokenizer.
        tasks: task names in the order of the heads.
        max_length: most tokens per row. The rationale is cut first, then the left of the input.
        lm_span: what the reasoning head learns: "full" (paper: input, rationale and answer) or
            "rationale" (what is behind the input).
    """

    def __init__(
        self,
        tokenizer: Any,
        tasks: Sequence[str],
        max_length: int,
        lm_span: LMSpan = "full",
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.lm_span = lm_span
        self._heads = {task: index for index, task in enumerate(tasks)}
        # What the tokenizer itself puts first (Llama: <s>); never an eos at the end, behind which
        # no rationale could follow.
        own = tokenizer("").input_ids
        self._prefix = [token for token in own[:1] if token == tokenizer.bos_token_id]

    def encode(
        self,
        decision: Decision,
        rationale: str | None = None,
        label_probs: tuple[float, ...] | None = None,
    ) -> EncodedDecision:
        """Token ids of `decision`, followed by `rationale` and the answer when there is one.

        An empty rationale leaves the answer alone behind the input.

        Raises:
            DHRDError: an input without any token.
        """
        inputs = tuple(self._input_ids(text) for text in decision.inputs)
        if not all(inputs):
            raise DHRDError(f"{decision.id}: an input is empty. There is nothing to classify.")
        row = decision.label if decision.formulation == "candidates" and decision.gold else 0
        suffix: list[int] = []
        if rationale is not None:
            suffix = self._suffix_ids(rationale, decision.label_text, len(inputs[row]))
        return EncodedDecision(
            inputs=inputs,
            head=self._heads[decision.task],
            n_choices=len(decision.choices),
            gold=decision.gold,
            suffix=suffix,
            suffix_row=row,
            label_probs=label_probs,
            first_target=1 if self.lm_span == "full" else len(inputs[row]),
        )

    def _input_ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._prefix + ids[-(self.max_length - len(self._prefix)) :]

    def _suffix_ids(self, rationale: str, label_text: str, input_length: int) -> list[int]:
        """Eos ends a decoded answer. What comes behind the opening is tokenised apart, as it is
        behind a decoding prompt."""

        def tokens(text: str) -> list[int]:
            return self.tokenizer(text, add_special_tokens=False).input_ids

        answer = [*tokens(f"{ANSWER}{label_text}"), self.tokenizer.eos_token_id]
        room = self.max_length - input_length - len(answer)
        if room <= 0:  # no rationale fits: the row trains the classification head alone
            return []
        reasoning = [*tokens(REASON), *tokens(f"\n{rationale}")] if rationale else []
        return reasoning[:room] + answer


def collate(decisions: Sequence[EncodedDecision], pad_token_id: int) -> Batch:
    """Stack decisions into one right-padded batch."""
    n_choices = max(d.n_choices for d in decisions)
    shape = (len(decisions), n_choices)
    choice_row = torch.zeros(shape, dtype=torch.long)
    choice_column = torch.zeros(shape, dtype=torch.long)
    is_choice = torch.zeros(shape, dtype=torch.bool)
    gold = torch.zeros(shape, dtype=torch.bool)
    label_probs = torch.zeros(shape)
    sequences: list[list[int]] = []
    pool_index: list[int] = []
    head_index: list[int] = []
    first_target: list[int | None] = []
    for d, decision in enumerate(decisions):
        first_row, k = len(sequences), decision.n_choices
        one_row = len(decision.inputs) == 1
        choice_row[d, :k] = first_row if one_row else torch.arange(first_row, first_row + k)
        choice_column[d, :k] = torch.arange(k) if one_row else 0
        is_choice[d, :k] = True
        gold[d, list(decision.gold)] = True
        if decision.label_probs is not None:
            label_probs[d, :k] = torch.tensor(decision.label_probs)
        for row, ids in enumerate(decision.inputs):
            suffix = decision.suffix if row == decision.suffix_row else []
            sequences.append(ids + suffix)
            pool_index.append(len(ids) - 1)
            head_index.append(decision.head)
            first_target.append(decision.first_target if suffix else None)
    length = max(map(len, sequences))
    input_ids = torch.full((len(sequences), length), pad_token_id)
    attention_mask = torch.zeros((len(sequences), length), dtype=torch.long)
    targets = torch.full((len(sequences), length), NO_TARGET)
    for row, ids in enumerate(sequences):
        tokens = torch.tensor(ids)
        input_ids[row, : len(ids)] = tokens
        attention_mask[row, : len(ids)] = 1
        first = first_target[row]
        if first is not None:
            targets[row, first - 1 : len(ids) - 1] = tokens[first:]
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        pool_index=torch.tensor(pool_index),
        head_index=torch.tensor(head_index),
        targets=targets,
        choice_row=choice_row,
        choice_column=choice_column,
        is_choice=is_choice,
        gold=gold,
        label_probs=label_probs,
    )


def batches_by_length(
    lengths: Sequence[int], batch_size: int, batch_tokens: int | None = None
) -> Iterator[list[int]]:
    """Indices in batches, longest first: little padding, and out of memory shows at once.

    Args:
        lengths: in tokens.
        batch_size: most of them in a batch.
        batch_tokens: most tokens in a batch, padding included; what is longer goes alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = batch_size
        if batch_tokens is not None:
            size = max(1, min(batch_size, batch_tokens // lengths[order[start]]))
        yield order[start : start + size]
        start += size
