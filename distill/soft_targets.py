"""A frozen local teacher of the student's vocabulary, for soft targets on the reasoning head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dhrd_plugin.backbones import load_causal_lm, load_tokenizer
from dhrd_plugin.batching import NO_TARGET, Batch
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.modeling import check_backbone, check_positions


class TokenTeacher:
    """Next-token distributions of a causal LM over the student's sequences.

    Args:
        lm: the teacher, frozen.
        vocab_size: tokens that teacher and student share; what an embedding matrix holds beyond
            them is padding and cut off.
    """

    def __init__(self, lm: Any, vocab_size: int) -> None:
        self.lm = lm.eval().requires_grad_(False)
        self.vocab_size = vocab_size

    @torch.no_grad()
    def hidden_states(self, batch: Batch) -> Tensor:
        """(B, L, H') last hidden states; rows without a target are left at zero, nobody reads them.

        Logits are made from them where they are needed, a chunk at a time: whole, they would be
        (B, L, V).
        """
        rows = (batch.targets != NO_TARGET).any(dim=1)
        shape = (*batch.input_ids.shape, self.lm.get_output_embeddings().in_features)
        dtype = self.lm.get_input_embeddings().weight.dtype
        hidden = torch.zeros(shape, dtype=dtype, device=batch.input_ids.device)
        if rows.any():
            real = batch.attention_mask[rows].bool()
            hidden[rows] = self.lm.base_model(
                input_ids=batch.input_ids[rows].masked_fill(
                    ~real, 0
                ),  # it may not know the padding
                attention_mask=real.long(),
                use_cache=False,
            ).last_hidden_state.to(dtype)
        return hidden

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """(N, H') -> (N, `vocab_size`)."""
        return self.lm.get_output_embeddings()(hidden)[:, : self.vocab_size]


def load_token_teacher(
    name: str, tokenizer: Any, *, max_length: int, dtype: torch.dtype, device: torch.device
) -> TokenTeacher:
    """The teacher `name`, if it reads the student's token ids as the student does.

    Raises:
        DHRDError: not loadable, another vocabulary (some of the differences are named), fewer
            positions than `max_length`, or a family whose logits are not its LM head's.
    """
    vocab_size = shared_vocabulary(name, load_tokenizer(name), tokenizer)
    lm = load_causal_lm(name, dtype=dtype)
    check_backbone(lm, vocab_size)
    check_positions(lm, name, max_length)
    return TokenTeacher(lm.to(device), vocab_size)


def shared_vocabulary(name: str, theirs: Any, ours: Any) -> int:
    """Number of tokens that both tokenizers know, under the same ids 0 … n - 1.

    Only padding may differ: a pad token of its own, which is never predicted.

    Raises:
        DHRDError: any other difference.
    """
    their_ids, our_ids = theirs.get_vocab(), ours.get_vocab()
    shared = their_ids.items() & our_ids.items()
    different = (their_ids.items() | our_ids.items()) - shared
    padding = {t.pad_token for t in (theirs, ours)} - {t.eos_token for t in (theirs, ours)}
    other = sorted(token for token, _ in different if token not in padding)
    if other or max(token_id for _, token_id in shared) >= len(shared):
        other = other or sorted(token for token, _ in different)
        raise DHRDError(
            f"--kd-teacher {name}: its vocabulary is not the student's ({len(their_ids)} and "
            f"{len(our_ids)} tokens; different, for one: {', '.join(map(repr, other[:4]))}). Token "
            "distributions can only be compared over the same tokens: use a larger model of the "
            "backbone's own family, or --kd-target label."
        )
    return len(shared)
