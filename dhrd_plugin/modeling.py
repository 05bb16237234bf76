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

TokenLoss = Callable[[Tensor, Tensor], Tensor]  # logits (N, V), targets (N,) -> (N,)


@dataclass
class DualHeadOutput:
    """What one forward gives.

    Attributes:
        logits: (B, K) classification logits, float32, K the most outputs of any head; the columns
            that a row's own head does not have are -inf.
        token_losses: (N,) one value per token that has a target, or None when none was asked for.
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
        """
        pooled, to_predict, token_targets = [], [], []
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
                token_targets.append(targets[rows, :length][valid])
        order = torch.tensor([row for rows, _ in groups for row in rows], device=input_ids.device)
        logits = self.classify(torch.cat(pooled)[order.argsort()], head_index)
        losses = None
        if targets is not None and token_loss is not None:
            losses = self._token_losses(torch.cat(to_predict), torch.cat(token_targets), token_loss)
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

    def _token_losses(self, hidden: Tensor, targets: Tensor, token_loss: TokenLoss) -> Tensor:
        """(N, H), (N,) -> (N,), with at most `chunk_size` rows of vocabulary logits at a time."""
        lm_head = self.lm.get_output_embeddings()

        def chunk_loss(chunk: Tensor, chunk_targets: Tensor) -> Tensor:
            return token_loss(lm_head(chunk), chunk_targets)

        if len(targets) <= self.chunk_size:
            return chunk_loss(hidden, targets)
        # Recomputed in the backward pass: otherwise every chunk's logits would be kept until then.
        return torch.cat(
            [
                checkpoint(chunk_loss, h, t, use_reentrant=False)
                for h, t in zip(
                    hidden.split(self.chunk_size), targets.split(self.chunk_size), strict=True
                )
            ]
        )


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


@torch.no_grad()
def check_backbone(lm: Any, vocab_size: int, tolerance: float = 1e-3) -> None:
    """Refuse a backbone for which one forward would not serve both heads exactly.

    Two facts are checked on twelve tokens: later tokens do not change earlier hidden states, and
    the LM's own logits are its head applied to the trunk's last hidden state (families that scale
    or cap their logits afterwards would otherwise be trained on something else than they decode
    with).

    Raises:
        DHRDError: a backbone that fails one of them.
    """
    family = lm.config.model_type
    device = lm.get_input_embeddings().weight.device
    ids = torch.arange(12, device=device).remainder(vocab_size).unsqueeze(0)
    was_training = lm.training
    lm.eval()
    trunk = lm.base_model
    if trunk is lm or lm.get_output_embeddings() is None:
        raise DHRDError(f"Backbone family {family!r} has no separate LM head: it cannot be split.")
    other_tail = ids.clone()  # of the same length: kernels round alike only for equal shapes
    other_tail[:, 6:] = (ids[:, 6:] + 1).remainder(vocab_size)
    hidden = trunk(input_ids=ids, use_cache=False).last_hidden_state
    changed = trunk(input_ids=other_tail, use_cache=False).last_hidden_state
    logits = lm(input_ids=ids, use_cache=False).logits
    ours = lm.get_output_embeddings()(hidden)
    lm.train(was_training)
    scale = hidden.abs().max().item()
    if not torch.allclose(hidden[:, :6], changed[:, :6], atol=tolerance * scale):
        raise DHRDError(
            f"Backbone family {family!r} is not causal: a rationale behind the input changes the "
            "input's hidden states. Use a decoder-only model with causal attention."
        )
    if not torch.allclose(logits.float(), ours.float(), atol=tolerance * logits.abs().max().item()):
        raise DHRDError(
            f"Backbone family {family!r} scales or caps its logits after the LM head, "
            "which the reasoning loss does not reproduce yet. Use another backbone."
        )
