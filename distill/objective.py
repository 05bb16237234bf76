"""The objective `L = β·L_cls + α·L_reason + γ·T²·KL`: which terms a batch has, from one forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dhrd_plugin.batching import Batch
from dhrd_plugin.errors import DHRDError
from distill.config import DistillConfig
from distill.data import TrainingData
from distill.losses import (
    label_cross_entropy,
    soft_label_kl,
    token_cross_entropy,
    token_divergence,
)
from distill.soft_targets import TokenTeacher, load_token_teacher

# The terms by what they are a mean over: all decisions of an optimizer step, or all its target
# tokens.
PER_DECISION = ("cls", "kd_label")
PER_TOKEN = ("reason", "kd_token")


@dataclass(frozen=True)
class Objective:
    """The loss's terms and their weights.

    Attributes:
        weights: by term, of those to compute: "cls" (L_cls), "reason" (L_reason), "kd_label" and
            "kd_token" (soft targets on either head; their weight holds the factor T²).
        temperature: T of the soft targets.
        divergence: between the token distributions: "forward", "reverse" or "jsd".
        token_teacher: needed for "kd_token".
    """

    weights: Mapping[str, float]
    temperature: float = 1.0
    divergence: str = "forward"
    token_teacher: TokenTeacher | None = None

    def with_alpha(self, alpha: float) -> Objective:
        """The same with another weight of the reasoning loss, if it has one."""
        if "reason" not in self.weights:
            return self
        return replace(self, weights={**self.weights, "reason": alpha})

    @property
    def reads_tokens(self) -> bool:
        """Whether the LM head takes part."""
        return any(term in self.weights for term in PER_TOKEN)

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Unreduced terms in nats: (D,) for those per decision, (N,) for those per target token."""
        teacher = self.token_teacher
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            pool_index=batch.pool_index,
            head_index=batch.head_index,
            targets=batch.targets if self.reads_tokens else None,
            token_loss=self._token_terms if self.reads_tokens else None,
            teacher_hidden=None if teacher is None else teacher.hidden_states(batch),
        )
        logits = batch.decision_logits(output.logits)
        terms = {"cls": label_cross_entropy(logits, batch.gold)}
        if "kd_label" in self.weights:
            terms["kd_label"] = soft_label_kl(logits, batch.label_probs, self.temperature)
        if output.token_losses is not None:
            names = [term for term in PER_TOKEN if term in self.weights]
            terms |= dict(zip(names, output.token_losses.unbind(dim=-1), strict=True))
        return terms

    def _token_terms(
        self, logits: Tensor, targets: Tensor, teacher_hidden: Tensor | None = None
    ) -> Tensor:
        """(N, V), (N,)[, (N, H')] -> (N, terms), in the order of `PER_TOKEN`."""
        terms = []
        if "reason" in self.weights:
            terms.append(token_cross_entropy(logits, targets))
        if teacher_hidden is not None and self.token_teacher is not None:
            theirs = self.token_teacher.logits(teacher_hidden)
            ours = logits[:, : theirs.shape[-1]]
            terms.append(token_divergence(ours, theirs, self.temperature, self.divergence))
        return torch.stack(terms, dim=-1)


def kd_terms(config: DistillConfig, data: TrainingData) -> tuple[str, ...]:
    """Terms of the soft targets that `config` asks for: "kd_label", "kd_token", both or none.

    Without --kd-target: labels where the records have distributions, tokens where a teacher is
    named.

    Raises:
        DHRDError: soft targets without the inputs for them.
    """
    if config.kd_temperature is None:
        return ()
    has_labels = any(decision.id in data.label_probs for decision in data.train)
    terms = []
    if config.kd_target in ("label", "both") or (config.kd_target is None and has_labels):
        terms.append("kd_label")
    if config.kd_teacher is not None:
        terms.append("kd_token")
    if not has_labels and (not terms or "kd_label" in terms):
        files = ", ".join(map(str, config.rationales)) or "no --rationales file"
        raise DHRDError(
            f"--kd-temperature {config.kd_temperature:g}: there is no teacher to take soft targets "
            f"from: no training row has `label_probs` in its record ({files}), which --kd-target "
            "label needs. Add them to the records, or name a local model of the backbone's "
            "vocabulary with --kd-target token --kd-teacher MODEL."
        )
    if "kd_token" in terms and not any(d.id in data.rationales for d in data.train):
        raise DHRDError(
            "--kd-teacher needs --rationales: its distributions are taken over input and rationale."
        )
    if "kd_label" in terms and config.control == "shuffle-pair":
        raise DHRDError(
            "--control shuffle-pair gives rows another row's label, but soft labels would still "
            "tell the true one. Leave --kd-temperature out, or use --kd-target token."
        )
    return tuple(terms)


def build_objective(
    config: DistillConfig,
    kd: tuple[str, ...],
    tokenizer: Any,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Objective:
    """The objective of a run with the soft targets `kd`; loads the token-level teacher."""
    weights = {"cls": config.beta}
    if config.has_reasoning:
        weights["reason"] = config.reasoning_weight
    temperature = config.kd_temperature or 1.0
    weights |= dict.fromkeys(kd, config.kd_weight * temperature**2)
    teacher = None
    if "kd_token" in kd and config.kd_teacher is not None:
        teacher = load_token_teacher(
            config.kd_teacher,
            tokenizer,
            max_length=config.max_length,
            dtype=dtype,
            device=device,
        )
    return Objective(
        weights=weights,
        temperature=temperature,
        divergence=config.kd_divergence,
        token_teacher=teacher,
    )
