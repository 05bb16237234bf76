"""Plain sequence classification of a backbone: transformers' own head, no harness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from dhrd_plugin.backbones import resolve_backbone


def load_plain(
    backbone: str, n_labels: int, dtype: torch.dtype, pad_token_id: int, device: str | torch.device
) -> Any:
    """`AutoModelForSequenceClassification`; its head is new, which costs the same time."""
    plain = AutoModelForSequenceClassification.from_pretrained(
        resolve_backbone(backbone), num_labels=n_labels, dtype=dtype
    )
    plain.config.pad_token_id = pad_token_id
    return plain.to(device).eval()


@torch.inference_mode()
def classify(
    plain: Any, tokenizer: Any, encoded: Sequence[list[int]], batches: Iterable[Sequence[int]]
) -> list[list[float]]:
    """Logits of every row of token ids, run in these batches of indices."""
    logits: list[list[float]] = [[] for _ in encoded]
    device = plain.device
    for indices in batches:
        batch = tokenizer.pad(
            {"input_ids": [encoded[i] for i in indices]}, padding_side="right", return_tensors="pt"
        ).to(device)
        with torch.autocast(device.type, dtype=plain.dtype, enabled=plain.dtype != torch.float32):
            outputs = plain(**batch, use_cache=False).logits.tolist()
        for i, row in zip(indices, outputs, strict=True):
            logits[i] = row
    return logits
