"""Losses: pure functions of tensors that return one value per example or per token, in nats.

They are reduced in one place (`distill.step`), with one denominator for examples and one for
tokens over the whole optimizer step.
"""

from __future__ import annotations

import math

import torch
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


def soft_label_kl(logits: Tensor, target_probs: Tensor, temperature: float) -> Tensor:
    """`KL(p_T ‖ softmax(z / T))`, in nats, with `p_T ∝ p^(1/T)`. (B, C), (B, C) -> (B,).

    Knowledge distillation's soft targets (Hinton et al. 2015, arXiv 1503.02531) on the
    classification head, without the factor T² that makes up for gradients shrinking with 1/T².
    Unlike `label_cross_entropy` it also learns how the wrong classes compare. A row of zeros has no
    teacher and gives 0; a class of probability 0, one that a row does not have too, adds nothing.

    >>> import torch
    >>> z, p = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.9, 0.1]])
    >>> round(soft_label_kl(z, p, 1.0).item(), 4)  # log 2 - H(0.9, 0.1)
    0.3681
    >>> soft_label_kl(z, torch.zeros(1, 2), 1.0).tolist()
    [0.0]
    """
    has_teacher = target_probs.sum(dim=-1, keepdim=True) > 0
    target_probs = target_probs.float().where(has_teacher, torch.ones_like(target_probs))
    log_p = F.log_softmax(target_probs.log() / temperature, dim=-1)
    return _kl(log_p, F.log_softmax(logits.float() / temperature, dim=-1)).where(
        has_teacher.squeeze(-1), 0.0
    )


def token_divergence(
    logits: Tensor, teacher_logits: Tensor, temperature: float, divergence: str
) -> Tensor:
    """Divergence of two next-token distributions at temperature T, in nats. (N, V) ×2 -> (N,).

    With p the teacher's and q the student's distribution: `forward` is KL(p ‖ q) (Hinton et al.
    2015), which covers all the teacher might say; `reverse` is KL(q ‖ p) (MiniLLM, arXiv
    2306.08543), which keeps to what it most likely says; `jsd` is ½ KL(p ‖ m) + ½ KL(q ‖ m) with
    m = (p + q) / 2 (GKD, arXiv 2306.13649), bounded by log 2. Without the factor T².

    >>> import torch
    >>> q, p = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.9, 0.1]]).log()
    >>> [round(token_divergence(q, p, 1.0, d).item(), 4) for d in ("forward", "reverse", "jsd")]
    [0.3681, 0.5108, 0.1017]
    """
    log_p = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    log_q = F.log_softmax(logits.float() / temperature, dim=-1)
    if divergence == "forward":
        return _kl(log_p, log_q)
    if divergence == "reverse":
        return _kl(log_q, log_p)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`sum_c p_c (log p_c - log q_c)`; classes with p_c = 0 add nothing, nor a NaN gradient."""
    impossible = log_p == float("-inf")
    log_ratio = log_p.masked_fill(impossible, 0) - log_q.masked_fill(impossible, 0)
    return (log_p.exp() * log_ratio).sum(dim=-1)
