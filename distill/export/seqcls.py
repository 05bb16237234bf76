"""A linear-head student as a plain `AutoModelForSequenceClassification` folder.

Its pooling rule is "the last token that is not the pad token", whatever the attention mask says. It
is ours, the last input token, as long as no input ends in the pad token. Where padding and end of
text are one token, the export therefore gets a pad token of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, pipeline

from dhrd_plugin.checkpoint import StudentConfig, TaskHead
from dhrd_plugin.errors import DHRDError
from distill.export.classifier import BATCH_SIZE, TaskClassifier, require_linear_head

CUTS_LONG_INPUTS = True
PAD_TOKEN = "<|dhrd_pad|>"  # not to be met in a text, which would be read as it


def check(student: StudentConfig, head: TaskHead, dtype: str) -> None:
    require_linear_head(student, "*ForSequenceClassification")


def write(folder: Path, classifier: TaskClassifier) -> None:
    """safetensors, config.json and tokenizer; the head is one bias-free Linear named `score`."""
    model = _with_head(classifier)
    pad_token_id = _pad_apart(classifier.tokenizer)
    if pad_token_id >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(pad_token_id + 1, mean_resizing=False)
    model.config.get_text_config().pad_token_id = pad_token_id
    model.save_pretrained(folder)
    classifier.tokenizer.save_pretrained(folder)


def _with_head(classifier: TaskClassifier) -> Any:
    """The family's own class around trunk and head; its random weights are never made.

    Raises:
        DHRDError: a family without such a class, or one that reads the trunk otherwise.
    """
    config = classifier.config()
    family = config.model_type
    way_out = "Export it with --to onnx."
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise DHRDError(
            f"transformers has no sequence classification for the family {family!r}. {way_out}"
        ) from error
    prefix = model.base_model_prefix
    score = getattr(model, "score", None)
    fits = (
        type(getattr(model, prefix, None)) is type(classifier.trunk)
        and isinstance(score, nn.Linear)
        and score.bias is None
        and score.weight.shape == classifier.head.weight.shape
    )
    if not fits:
        raise DHRDError(
            f"{type(model).__name__} is not the family's transformer with one bias-free Linear "
            f"named `score` behind it. {way_out}"
        )
    setattr(model, prefix, classifier.trunk)
    model.score = classifier.head
    return model.eval()


def _pad_apart(tokenizer: Any) -> int:
    """Id of a pad token in which no input ends, a new one where there is none yet."""
    if tokenizer.pad_token_id in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return tokenizer.pad_token_id


def logits(folder: Path, texts: Sequence[str]) -> list[list[float]]:
    classify: Any = pipeline("text-classification", model=str(folder), device="cpu")
    answers = classify(
        list(texts),
        top_k=None,
        function_to_apply="none",
        truncation=True,
        batch_size=BATCH_SIZE,
    )
    index = classify.model.config.label2id
    scores = [{index[answer["label"]]: answer["score"] for answer in one} for one in answers]
    return [[by_index[i] for i in sorted(by_index)] for by_index in scores]


def usage(classifier: TaskClassifier) -> str:
    answer = "the label of highest probability, `top_k=None` those of all labels"
    if classifier.choices is None:
        answer = "the logit of a candidate behind its context; softmax over all candidates"
    return f"""\
    from transformers import pipeline

    classify = pipeline("text-classification", model="FOLDER", truncation=True)
    classify(text)

gives {answer}.
`truncation=True` cuts long inputs on the left, as the student does. In batches of your own use the
tokenizer with `padding=True, truncation=True`. The layout (one bias-free Linear, `score`) is also
that of vLLM's classification models: `vllm serve FOLDER --runner pooling`.
"""
