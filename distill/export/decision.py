"""A linear-head student as a decision model of transformers 5.23: typed questions, probabilities.

`JevForDecision` is a trunk with one Linear, read at the token before a mark: the pooled head. Its
template writes the state, which is the whole input as the harness renders it, and then the mark.
The student knows one question, so that the template refuses every other: other options, or the same
in another order, would get the probabilities of something else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import pipeline

from dhrd_plugin.checkpoint import StudentConfig, TaskHead
from dhrd_plugin.errors import DHRDError
from distill.export.classifier import TaskClassifier, require_linear_head

CUTS_LONG_INPUTS = False  # the pipeline does not truncate, and a template knows no tokens
QUESTION_TYPES = ("noul", "score", "choice")

# Behind two lines that set `choices` and `prefix`; <|mark|> says where the head reads.
TEMPLATE = """\
{%- if question.type != "choice" or question.options != choices -%}
    {{- raise_exception("This model answers a choice between these, in this order: " ~ choices) -}}
{%- endif -%}
{%- if question.instructions or question.descriptions|select|list -%}
    {{- raise_exception("Its question is in the state: give no instructions or descriptions.") -}}
{%- endif -%}
{%- if state is not string -%}
    {{- raise_exception("The state is one text: the task's prompt.") -}}
{%- endif -%}
{{- prefix ~ state -}}<|mark|>
"""


def check(student: StudentConfig, head: TaskHead, dtype: str) -> None:
    if not hasattr(transformers, "JevForDecision"):
        raise DHRDError(
            "--to decision needs the decision models of transformers 5.23 or newer, and installed "
            f"is {transformers.__version__}: pip install -U transformers"
        )
    require_linear_head(student, "A decision model")
    if head.formulation != "labels":
        raise DHRDError(
            "--to decision: a decision model scores all options by one reading of the state, and "
            "this task's candidates are read one by one. Export it with --to seqcls or onnx."
        )


def write(folder: Path, classifier: TaskClassifier) -> None:
    """safetensors, config.json, tokenizer, decision.json and its template.

    Raises:
        DHRDError: a family whose trunk `AutoModel` loads as another class.
    """
    from transformers import JevConfig, JevForDecision
    from transformers.decision import DecisionConfig

    config = JevConfig(
        text_config=classifier.trunk.config,
        hidden_size=classifier.head.in_features,
        num_verbalizers=len(classifier.labels),
        offsets=dict.fromkeys(QUESTION_TYPES, 0),
    )
    with torch.device("meta"):  # its random weights are never made
        model = JevForDecision(config)
    if type(model.model) is not type(classifier.trunk):
        raise DHRDError(
            f"AutoModel loads the family {classifier.trunk.config.model_type!r} as "
            f"{type(model.model).__name__}, not as {type(classifier.trunk).__name__}, which the "
            "student was trained on. Export it with --to onnx."
        )
    model.model = classifier.trunk
    model.proj = _with_zero_bias(classifier.head)
    model.decision_config = DecisionConfig(
        labels={"choice": list(classifier.labels)},
        chat_template=_template(classifier),
        sanitize_control_tokens=False,  # the student reads control tokens in a text as such
    )
    model.eval().save_pretrained(folder)
    classifier.tokenizer.save_pretrained(folder)


def _with_zero_bias(head: Any) -> nn.Linear:
    """The same layer with the bias that the format has a tensor for."""
    layer = nn.Linear(head.in_features, head.out_features, dtype=head.weight.dtype)
    layer.weight = head.weight
    nn.init.zeros_(layer.bias)
    return layer.requires_grad_(False)


def _template(classifier: TaskClassifier) -> str:
    """Jinja's string literals are JSON's, as long as what is not ASCII stands there as it is."""
    known = {"choices": list(classifier.labels), "prefix": classifier.prefix}
    lines = [
        f"{{%- set {name} = {json.dumps(value, ensure_ascii=False)} -%}}\n"
        for name, value in known.items()
    ]
    return "".join(lines) + TEMPLATE


def logits(folder: Path, texts: Sequence[str]) -> list[list[float]]:
    decide: Any = pipeline("decision", model=str(folder), device="cpu")
    options = decide.decision_config.labels["choice"]
    question = {"type": "choice", "criteria": dict.fromkeys(options)}
    outputs = []
    for text in texts:
        answer = decide({"state": text, "questions": {"task": question}})["task"]
        probs = [answer["probabilities"][option] for option in options]
        outputs.append(torch.tensor(probs, dtype=torch.float64).log().tolist())
    return outputs


def usage(classifier: TaskClassifier) -> str:
    question = {"type": "choice", "criteria": dict.fromkeys(classifier.labels)}
    questions = json.dumps({classifier.task: question}, ensure_ascii=False)
    return f"""\
    transformers serve FOLDER --port 8000
    curl localhost:8000/v1/systemone -H "content-type: application/json" \\
      -d '{{"model": "FOLDER", "state": "TEXT", "questions": {questions}}}'

or, in Python, `pipeline("decision", model="FOLDER")` of the same `state` and `questions`. It
answers this question alone, its options in this order, and refuses others (the server with status
500). The wording of the question is part of the text. Nothing cuts long inputs: keep to the length
above.
"""
