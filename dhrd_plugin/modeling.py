"""The dual-head model: one causal trunk, a pooled classification head, the LM's own head.

The classification head reads the hidden state at an explicit position (`pool_index`, the last input
token), never one inferred from padding: where pad and eos are the same token, or padding is on the
left, every mask-based rule picks a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dhrd_plugin.batching import NO_TARGET
from dhrd_plugin.checkpoint import HeadKind
from dhrd_plugin.errors import DHRDError

# logits (N, V), targets (N,) and, where given, teacher_hidden (N, H') -> (N,) or (N, terms)
TokenLoss = Callable[..., Tensor]


@dataclass
class DualHeadOutput:
    """What one forward gives.

    Attributes:
        logits: (B, K) classification logits, float32, K the most outputs of any head; the columns
            that a row's own head does not have are -inf.
        token_losses: what `token_loss` gave for the tokens that have a target, (N,) or (N, terms);
            None when it was not asked for.
    """

    logits: Tensor
    token_losses: Tensor | None = None


def build_head(kind: HeadKind, hidden_size: int, n_outputs: int) -> nn.Module:
    """`mlp`: LayerNorm, Linear, GELU, Linear (the paper's 2-layer MLP). `linear`: one Linear.

    The mlp normalises first because the hidden norms of some families swamp a fresh Linear. The
    linear head has no bias, which is what `*ForSequenceClassification` calls `score`.
    """
    if kind == "linear":
        return nn.Linear(hidden_size, n_outputs, bias=False)
    return nn.Sequential(
        nn.LayerNorm(hidden_size),
        nn.Linear(hidden_size, hidden_size),
        nn.GELU(),
        nn.Linear(hidden_size, n_outputs),
    )


class DualHeadModel(nn.Module):
    """A causal LM with one pooled classification head per task.

    Args:
        lm: an `AutoModelForCausalLM`, plain or wrapped by PEFT.
        head_kind: "mlp" or "linear".
        n_outputs: logits per task: the number of labels, or 1 for candidates.
        chunk_size: tokens whose vocabulary logits exist at a time in the reasoning loss.
    """

    def __init__(
        self,
        lm: Any,
        *,
        head_kind: HeadKind,
        n_outputs: Mapping[str, int],
        chunk_size: int = 1024,
    ) -> None:
        super().__init__()
        self.lm = lm
        self.head_kind = head_kind
        self.chunk_size = chunk_size
        hidden_size = lm.get_output_embeddings().in_features
        self.tasks = list(n_outputs)  # the order that `head_index` counts in
        self.max_outputs = max(n_outputs.values())
        self.heads = nn.ModuleList(
            build_head(head_kind, hidden_size, n) for n in n_outputs.values()
        )

    @property
    def trunk(self) -> nn.Module:
        """The LM without its head; PEFT's adapters are inside, since it works in place."""
        base = self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm
        return base.base_model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pool_index: Tensor,
        head_index: Tensor,
        targets: Tensor | None = None,
        token_loss: TokenLoss | None = None,
        teacher_hidden: Tensor | None = None,
    ) -> DualHeadOutput:
        """Run the trunk once over every row, for both heads.

        Under causal attention the hidden state of the last input token is the same with and without
        the rationale behind it, so one pass serves both heads.

        Args:
            input_ids: (B, L) right-padded.
            attention_mask: (B, L), 0 on padding.
            pool_index: (B,) position of the last input token.
            head_index: (B,) which head reads each row, as an index into `tasks`.
            targets: (B, L) the token that each position should predict, `NO_TARGET` for none.
                Without it the LM head is never touched.
            token_loss: what to compute from LM logits and targets.
            teacher_hidden: (B, L, H') a token-level teacher's hidden states, handed to `token_loss`
                for the positions that have a target.
        """
        pooled, to_predict = [], []
        aligned: list[tuple[Tensor, ...]] = []  # per group, what goes with `to_predict`
        groups = length_groups(attention_mask.sum(dim=1).tolist())
        for rows, length in groups:
            hidden = self.trunk(
                input_ids=input_ids[rows, :length],
                attention_mask=attention_mask[rows, :length],
                use_cache=False,
            ).last_hidden_state
            pooled.append(hidden[torch.arange(len(rows)), pool_index[rows]])
            if targets is not None:
                valid = targets[rows, :length] != NO_TARGET
                to_predict.append(hidden[valid])
                extra = () if teacher_hidden is None else (teacher_hidden[rows, :length][valid],)
                aligned.append((targets[rows, :length][valid], *extra))
        order = torch.tensor([row for rows, _ in groups for row in rows], device=input_ids.device)
        logits = self.classify(torch.cat(pooled)[order.argsort()], head_index)
        losses = None
        if targets is not None and token_loss is not None:
            together = [torch.cat(parts) for parts in zip(*aligned, strict=True)]
            losses = self._token_losses(token_loss, torch.cat(to_predict), *together)
        return DualHeadOutput(logits=logits, token_losses=losses)

    def classify(self, pooled: Tensor, head_index: Tensor) -> Tensor:
        """(B, H) pooled hidden states, (B,) -> (B, K) logits, in float32 also under autocast.

        Every head runs, if on no rows at all, so that all of them are part of the graph and
        distributed training finds no unused parameters.
        """
        pooled = pooled.float()
        logits = pooled.new_full((len(pooled), self.max_outputs), float("-inf"))
        with torch.autocast(device_type=pooled.device.type, enabled=False):
            for index, head in enumerate(self.heads):
                rows = (head_index == index).nonzero(as_tuple=True)[0]
                outputs = head(pooled[rows])
                logits[rows, : outputs.shape[-1]] = outputs
        return logits

    def _token_losses(self, token_loss: TokenLoss, hidden: Tensor, *aligned: Tensor) -> Tensor:
        """(N, H) and what goes with it -> (N, …), `chunk_size` vocabulary logits at a time."""
        lm_head = self.lm.get_output_embeddings()

        def chunk_loss(chunk: Tensor, *aligned_chunk: Tensor) -> Tensor:
            return token_loss(lm_head(chunk), *aligned_chunk)

        if len(hidden) <= self.chunk_size:
            return chunk_loss(hidden, *aligned)
        # Recomputed in the backward pass: otherwise every chunk's logits would be kept until then.
        chunks = zip(*(part.split(self.chunk_size) for part in (hidden, *aligned)), strict=True)
        return torch.cat([checkpoint(chunk_loss, *chunk, use_reentrant=False) for chunk in chunks])


def length_groups(lengths: Sequence[int], worthwhile: float = 0.2) -> list[tuple[list[int], int]]:
    """Rows that go through the trunk together, and the length they are cut to.

    Two groups, short rows and long ones, where that saves a `worthwhile` share of the padded
    tokens, else one: of a decision's candidates only one has a rationale behind it.

    >>> length_groups([10, 90, 12, 90])
    [([0, 2], 12), ([1, 3], 90)]
    >>> length_groups([80, 90])
    [([0, 1], 90)]
    """
    n, longest = len(lengths), max(lengths)
    by_length = sorted(range(n), key=lengths.__getitem__)
    cost, n_short = min(
        (k * lengths[by_length[k - 1]] + (n - k) * longest, k) for k in range(1, n + 1)
    )
    if cost > (1 - worthwhile) * n * longest:
        return [(list(range(n)), longest)]
    short, long = sorted(by_length[:n_short]), sorted(by_length[n_short:])
    return [(short, lengths[by_length[n_short - 1]]), (long, longest)]


def check_positions(lm: Any, name: str, max_length: int) -> None:
    """Refuse a model with positions for fewer than `max_length` tokens.

    Raises:
        DHRDError: such a model.
    """
    positions = getattr(lm.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise DHRDError(
            f"--max-length {max_length}: {name} has positions for {positions} tokens. Give "
            f"--max-length {positions} or less."
        )


@torch.no_grad()
def check_backbone(lm: Any, vocab_size: int, tolerance: float = 1e-3) -> None:
    """Refuse a backbone for which one forward would not serve both heads exactly.

    Four facts are checked on 96 tokens (recurrent families compute in chunks of 64), or as many as
    there are positions: neither later tokens nor padding change earlier hidden states; the LM's own
    logits are its head applied to the trunk's last hidden state (families that scale or cap their
    logits afterwards would otherwise be trained on something else than they decode with); and
    evaluation leaves the weights as they are (an adapter would no longer fit rescaled ones).

    Raises:
        DHRDError: a backbone that fails one of them.
    """
    family = lm.config.model_type
    trunk, lm_head = lm.base_model, lm.get_output_embeddings()
    if trunk is lm or lm_head is None:
        raise DHRDError(f"Backbone family {family!r} has no separate LM head: it cannot be split.")
    device = lm.get_input_embeddings().weight.device
    positions = getattr(lm.config, "max_position_embeddings", None) or -1
    length = min(96, positions) if positions > 0 else 96
    half = length // 2
    ids = torch.arange(length, device=device).remainder(vocab_size).unsqueeze(0)
    other_tail = ids.clone()
    other_tail[:, half:] = (ids[:, half:] + 1).remainder(vocab_size)
    # Of one length and each with a mask: kernels round alike only then.
    mask = (torch.arange(length, device=device) < length - 1).long().unsqueeze(0)
    no_tail = (torch.arange(length, device=device) < half).long().unsqueeze(0)

    def hidden_states(ids: Tensor, mask: Tensor) -> Tensor:
        return trunk(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state

    was_training = lm.training
    versions = [parameter._version for parameter in lm.parameters()]
    lm.eval()
    hidden = hidden_states(ids, mask)
    continued, padded = hidden_states(other_tail, mask), hidden_states(ids, no_tail)
    ours = lm_head(hidden.to(lm_head.weight.dtype))  # Mamba's residual stream is float32
    logits = lm(input_ids=ids, attention_mask=mask, use_cache=False).logits
    lm.train(was_training)

    def close(got: Tensor, expected: Tensor) -> bool:
        scale = expected.abs().max().item()
        return torch.allclose(got.float(), expected.float(), atol=tolerance * scale)

    if not close(continued[:, :half], hidden[:, :half]):
        raise DHRDError(
            f"Backbone family {family!r} is not causal: a rationale behind the input changes the "
            "input's hidden states. Use a decoder-only model with causal attention."
        )
    if not close(padded[:, :half], hidden[:, :half]):
        raise DHRDError(
            f"Backbone family {family!r} is changed by padding: a row's hidden states would depend "
            "on the other rows of its batch. Use another backbone."
        )
    if not close(ours, logits):
        raise DHRDError(
            f"Backbone family {family!r} scales or caps its logits after the LM head, "
            "which the reasoning loss does not reproduce yet. Use another backbone."
        )
    if versions != [parameter._version for parameter in lm.parameters()]:
        raise DHRDError(
            f"Backbone family {family!r} rewrites its weights for evaluation, so that what was "
            "trained would not be what is tested. Use another backbone."
        )
