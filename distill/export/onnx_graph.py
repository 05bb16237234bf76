"""A student, whatever its head, as an ONNX graph for onnxruntime."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from dhrd_plugin.checkpoint import StudentConfig, TaskHead
from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from distill.export.classifier import BATCH_SIZE, TaskClassifier

CUTS_LONG_INPUTS = True
GRAPH_FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask")
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def check(student: StudentConfig, head: TaskHead, dtype: str) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise DHRDError(f"--to onnx needs {', '.join(missing)}: pip install 'dhrd[onnx]'")
    if dtype == "bfloat16":
        raise DHRDError(
            "--dtype bfloat16: onnxruntime does not compute in it. Use float32 or float16."
        )


class PooledClassifier(nn.Module):
    """(B, L) right-padded ids and their mask -> (B, K) logits, float32, of the last tokens."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.trunk(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        rows = torch.arange(input_ids.shape[0], device=input_ids.device)
        return self.head(hidden[rows, attention_mask.sum(dim=1) - 1]).float()


def write(folder: Path, classifier: TaskClassifier) -> None:
    """model.onnx with its weights beside it, config.json (labels) and tokenizer.

    Raises:
        DHRDError: a family that torch cannot trace.
    """
    classifier.config().save_pretrained(folder)
    classifier.tokenizer.save_pretrained(folder)
    # Neither size may be 1, which is never dynamic; one tensor for both would become one input.
    sample = {name: torch.ones(2, 8, dtype=torch.long) for name in INPUTS}
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    # Otherwise it says of every operator of torchvision that this is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                PooledClassifier(classifier.trunk, classifier.head).eval(),
                kwargs=sample,
                f=folder / GRAPH_FILE,
                input_names=INPUTS,
                output_names=["logits"],
                dynamic_shapes=dict.fromkeys(INPUTS, shape),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise DHRDError(
            f"torch cannot write the family {classifier.trunk.config.model_type!r} as ONNX: "
            f"{str(error).strip().splitlines()[0]}",
            exit_code=EXIT_FAILED,
        ) from error


def logits(folder: Path, texts: Sequence[str]) -> list[list[float]]:
    session, tokenizer = open_session(folder), AutoTokenizer.from_pretrained(folder)
    outputs: list[list[float]] = []
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(
            list(texts[start : start + BATCH_SIZE]),
            padding=True,
            truncation=True,
            return_tensors="np",
        )
        outputs += session.run(["logits"], {name: batch[name] for name in INPUTS})[0].tolist()
    return outputs


def open_session(folder: Path, threads: int = 0) -> Any:
    """The graph in onnxruntime, on the CPU.

    Args:
        threads: within one operator; 0 for one per core.

    Raises:
        DHRDError: a graph in which tracing has fixed the batch's size or length.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        folder / GRAPH_FILE, options, providers=["CPUExecutionProvider"]
    )
    sizes = [size for tensor in session.get_inputs() for size in tensor.shape]
    if any(isinstance(size, int) for size in sizes):
        raise DHRDError(
            f"torch cannot write this backbone family as ONNX: its graph takes inputs of {sizes} "
            "and no others.",
            exit_code=EXIT_FAILED,
        )
    return session


def usage(classifier: TaskClassifier) -> str:
    labels = ", ".join(classifier.labels)
    meaning = f"softmax over them gives the probabilities of {labels}"
    if classifier.choices is None:
        meaning = "a text is the context followed by one candidate; softmax over the candidates"
    return f"""\
    import onnxruntime
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession("FOLDER/{GRAPH_FILE}")
    tokenizer = AutoTokenizer.from_pretrained("FOLDER")
    batch = tokenizer([text], padding=True, truncation=True, return_tensors="np")
    (logits,) = session.run(
        ["logits"], {{name: batch[name] for name in ("input_ids", "attention_mask")}}
    )

Logits are (batch, {len(classifier.labels)}); {meaning}.
Batches may have any size and are padded on the right. `{GRAPH_FILE}.data` holds the weights and
belongs beside `{GRAPH_FILE}`.
"""
