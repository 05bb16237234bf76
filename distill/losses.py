"""Losses: pure functions of tensors that return one value per example or per token, in nats.

They are reduced in one place (`distill.train`), with one denominator for examples and one for
tokens over the whole optimizer step.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def label_cross_entropy(logits: Tensor, gold: Tensor) -> Tensor:
    """`-log sum_{c in gold} softmax(z)_c`, in nats. (B, C), (B, C) bool -> (B,).

    With one gold class this is cross-entropy (DHRD, arXiv 2509.21487, L_cls); with several (ReCoRD
    names an entity more than once) any of them counts as right. Classes that a row does not have
    carry the logit -inf and no gold mark.

    >>> import torch
    >>> z = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    >>> gold = torch.tensor([[True, False, False, False]])
    >>> round(label_cross_entropy(z, gold).item(), 4)  # log 4
    1.3863
    """
    log_probs = F.log_softmax(logits.float(), dim=-1)
    return -log_probs.masked_fill(~gold, float("-inf")).logsumexp(dim=-1)


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """`-log softmax(z_t)[v_t]` per token, in nats. (N, V), (N,) int -> (N,).

    The summand of DHRD's L_reason; positions without a target are not passed in at all.

    >>> import torch
    >>> round(token_cross_entropy(torch.zeros(1, 8), torch.tensor([3])).item(), 4)  # log 8
    2.0794
    """
    return F.cross_entropy(logits.float(), targets, reduction="none")
