"""What a student itself answers to given texts: the measure of its exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import make_tokenizer
from made_decisions import label_decision
from numpy.typing import NDArray
from tiny_models import tiny_lm
from torch import nn

from dhrd_plugin.batching import Encoder
from dhrd_plugin.checkpoint import load_student
from dhrd_plugin.modeling import DualHeadModel
from dhrd_plugin.scoring import score
from distill.export.classifier import TaskClassifier, cut_left_pad_right

# Ragged; with end of text, which pads, inside and at the end; the last one longer than is read.
TEXTS = (
    "Rain.",
    "Here: it pours, and the gutters run over. Is it wet?",
    "Sun burns <eos> dust flies. Is it wet?",
    "The text ends here.<eos>",
    "It ends twice.<eos><eos>",
    "Drops fall. " * 100 + "Is it wet?",
)
CHOICES = ("True", "False", "Neither")


def student_probs(
    folder: Path, task: str, texts: Sequence[str], temperature: float = 1.0
) -> NDArray:
    """(texts, K) softmax of a labels task's logits, by the student in `folder`."""
    model, tokenizer, config = load_student(folder)
    encoder = Encoder(tokenizer, list(config.tasks), config.max_length)
    return _probs(model, encoder, task, config.tasks[task].choices, texts, temperature)


def tiny_classifier(family: str = "Llama", bos: bool = False) -> tuple[TaskClassifier, NDArray]:
    """A random one of three labels, and its probabilities for TEXTS.

    Args:
        bos: whether the tokenizer puts <bos> before every text.
    """
    tokenizer = make_tokenizer()
    cut_left_pad_right(tokenizer, 400)
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
        )
    lm = tiny_lm(family)
    model = DualHeadModel(lm, head_kind="linear", n_outputs={"made": len(CHOICES)}).eval()
    nn.init.normal_(model.heads[0].weight, std=0.2)  # no probability near 0 or 1
    probs = _probs(model, Encoder(tokenizer, ["made"], 400), "made", CHOICES, TEXTS)
    prefix = "<bos>" if bos else ""
    return TaskClassifier(model.trunk, model.heads[0], tokenizer, prefix, "made", CHOICES), probs


def _probs(
    model: Any,
    encoder: Encoder,
    task: str,
    choices: Any,
    texts: Sequence[str],
    temperature: float = 1.0,
) -> NDArray:
    decisions = [label_decision(context=text, task=task, choices=choices) for text in texts]
    encoded = [encoder.encode(decision) for decision in decisions]
    pad = encoder.tokenizer.pad_token_id
    scaled = np.array(score(model, encoded, batch_size=1, pad_token_id=pad)) / temperature
    return np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
