"""One task of a student as plain modules: what every format is written from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dhrd_plugin.batching import Encoder
from dhrd_plugin.checkpoint import StudentConfig, TaskHead, load_student
from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.scoring import rescale, score

BATCH_SIZE = 8  # rows per forward wherever a student or an export answers
CANDIDATE_LABEL = "logit"  # of a head that gives each candidate one number


@dataclass(frozen=True)
class TaskClassifier:
    """A trunk with one head, on the CPU.

    Attributes:
        trunk: the transformer without an LM head, adapters merged: hidden states (B, L, H).
        head: (B, H) hidden states of the last input tokens -> (B, K) logits.
        tokenizer: as in training; cuts on the left to the student's length, pads on the right.
        prefix: the token that stands before every input, as text ("" for none).
        task, choices: what is asked; choices are None for candidates, which have one logit each.
    """

    trunk: Any
    head: Any
    tokenizer: Any
    prefix: str
    task: str
    choices: tuple[str, ...] | None

    @property
    def labels(self) -> tuple[str, ...]:
        return (CANDIDATE_LABEL,) if self.choices is None else self.choices

    def config(self) -> Any:
        """The trunk's configuration as that of a classifier, as `transformers` writes it down.

        "regression" is its word for one number per text that no softmax or sigmoid goes over.
        """
        config = copy.deepcopy(self.trunk.config)
        config.id2label = dict(enumerate(self.labels))
        config.label2id = {label: i for i, label in enumerate(self.labels)}
        several = len(self.labels) > 1
        config.problem_type = "single_label_classification" if several else "regression"
        return config


def load_classifier(
    folder: Path,
    task: str,
    decisions: Sequence[Decision],
    *,
    dtype: str,
    calibrated: bool,
) -> tuple[TaskClassifier, list[list[float]]]:
    """The classifier in `dtype`, and the student's own log-probabilities (nats) for `decisions`.

    The student computes in float32, its adapter apart from the backbone's weights: below that, the
    rounding of training's precision would hide what an export changes.

    Args:
        calibrated: divide the logits by the temperature fitted in training, in both.
    """
    model, tokenizer, config = load_student(folder)
    model.lm.float()
    encoder = Encoder(tokenizer, list(config.tasks), config.max_length)
    encoded = [encoder.encode(decision) for decision in decisions]
    log_probs = score(model, encoded, batch_size=BATCH_SIZE, pad_token_id=tokenizer.pad_token_id)
    first_token = encoded[0].inputs[0][0]
    if config.adapter:
        model.lm = model.lm.merge_and_unload()
    head = model.heads[model.tasks.index(task)]
    if calibrated:
        temperature = config.tasks[task].temperature
        log_probs = [rescale(row, temperature) for row in log_probs]
        fold_temperature(head, temperature)
    precision = getattr(torch, dtype)
    trunk = model.trunk.to(precision).requires_grad_(False)
    trunk.config.dtype = precision
    trunk.config._name_or_path = ""  # the folder that the backbone was read from
    cut_left_pad_right(tokenizer, config.max_length)
    classifier = TaskClassifier(
        trunk=trunk,
        head=head.to(precision).requires_grad_(False),
        tokenizer=tokenizer,
        prefix=tokenizer.bos_token if first_token == tokenizer.bos_token_id else "",
        task=task,
        choices=config.tasks[task].choices,
    )
    return classifier, log_probs


@torch.no_grad()
def fold_temperature(head: nn.Module, temperature: float) -> None:
    """Divide the head's logits by `temperature`, in the weights of its last layer."""
    last = head[-1] if isinstance(head, nn.Sequential) else head
    for parameter in last.parameters():
        parameter.div_(temperature)


def cut_left_pad_right(tokenizer: Any, max_length: int) -> None:
    """Make `tokenizer(texts, padding=True, truncation=True)` what the student reads, once saved."""
    sides = {"truncation_side": "left", "padding_side": "right"}
    tokenizer.init_kwargs.update(sides)  # which is what is saved; the attributes are not
    for name, side in sides.items():
        setattr(tokenizer, name, side)
    tokenizer.model_max_length = max_length


def require_linear_head(student: StudentConfig, what: str) -> None:
    """Refuse an mlp head for a format that has room for one matrix.

    Raises:
        DHRDError: an mlp head.
    """
    if student.head != "linear":
        raise DHRDError(
            f"{what} holds one linear layer, and this student's head is an {student.head}. Train "
            "it with `dhrd-distill --head linear`, or export it with --to onnx."
        )


def chosen_task(student: StudentConfig, task: str | None, folder: Path) -> tuple[str, TaskHead]:
    """The task to export and its head; a student of one task needs no name.

    Raises:
        DHRDError: no such head, or several and none named.
    """
    names = list(student.tasks) if task is None else [task]
    if len(names) == 1 and names[0] in student.tasks:
        return names[0], student.tasks[names[0]]
    got = "no --task given" if task is None else f"--task {task}"
    raise DHRDError(
        f"{got}: an export holds one task, and {folder} has heads for {', '.join(student.tasks)}. "
        "Name one of them with --task."
    )
