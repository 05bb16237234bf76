"""`dhrd-distill export --to onnx` and `--to decision`: the student's answers in other programs."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from exported import CHOICES, TEXTS, student_probs, tiny_classifier

from dhrd_plugin.checkpoint import TaskHead
from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_OK, DHRDError
from distill.export import decision, onnx_graph
from distill.export.cli import main

MISSING = [name for name in onnx_graph.NEEDED if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"--to onnx needs {', '.join(MISSING)}")
needs_decisions = pytest.mark.skipif(
    not hasattr(transformers, "JevForDecision"),
    reason=f"transformers {transformers.__version__} has no decision models",
)
QUESTION = {"type": "choice", "criteria": dict.fromkeys(CHOICES)}


@needs_onnx
def test_onnx_of_an_mlp_head_on_batches_of_any_size(student, made_tasks, tmp_path, capsys):
    flags = ["--task", "made_weather", "--include-path", str(made_tasks)]
    code = main([str(student), "--to", "onnx", *flags, "--output", str(tmp_path / "out")])
    assert code == EXIT_OK, capsys.readouterr().err
    assert "Largest difference in probability on 8 rows" in capsys.readouterr().out
    session = onnx_graph.open_session(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    expected = student_probs(student, "made_weather", TEXTS)
    for start, stop in ((0, 1), (0, 3), (1, 6), (5, 6)):  # ragged, and none as it was traced
        batch = tokenizer(
            list(TEXTS[start:stop]), padding=True, truncation=True, return_tensors="np"
        )
        inputs = {name: batch[name] for name in onnx_graph.INPUTS}
        (logits,) = session.run(["logits"], inputs)
        probs = torch.tensor(logits).softmax(dim=-1)
        np.testing.assert_allclose(probs, expected[start:stop], atol=1e-5)


@needs_onnx
def test_graph_of_one_size_is_refused(tmp_path):
    from onnx import TensorProto, helper, save

    ids, logits = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", 8])
        for name in ("input_ids", "logits")
    )
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input_ids"], ["logits"])], "fixed", [ids], [logits]
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, ir_version=10, opset_imports=[opset])
    save(model, tmp_path / onnx_graph.GRAPH_FILE)
    with pytest.raises(DHRDError, match=r"inputs of \['batch', 8\] and no others"):
        onnx_graph.open_session(tmp_path)


def test_onnx_refusals(student, monkeypatch, tmp_path, capsys):
    argv = [str(student), "--to", "onnx", "--task", "scenes", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(onnx_graph, "NEEDED", ("onnx_of_the_future",))
    assert main(argv) == EXIT_BAD_INPUT
    assert "needs onnx_of_the_future: pip install 'dhrd[onnx]'" in capsys.readouterr().err
    monkeypatch.setattr(onnx_graph, "NEEDED", ())
    assert main([*argv, "--dtype", "bfloat16"]) == EXIT_BAD_INPUT
    assert "float32 or float16" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@needs_decisions
@pytest.mark.parametrize("bos", [False, True])
def test_decision_pipeline_has_the_students_probabilities(bos, tmp_path):
    classifier, expected = tiny_classifier(bos=bos)
    decision.write(tmp_path, classifier)
    texts = TEXTS[:-1]  # the last one is longer than the student reads, and is not cut
    logits = torch.tensor(decision.logits(tmp_path, texts))
    np.testing.assert_allclose(logits.exp(), expected[:-1], atol=1e-5)


@needs_decisions
@pytest.mark.parametrize(
    "question",
    [
        {"type": "choice", "criteria": dict.fromkeys(reversed(CHOICES))},
        {"type": "choice", "criteria": dict.fromkeys(CHOICES[:2])},
        QUESTION | {"instructions": "Is it dry?"},
        {"type": "choice", "criteria": dict.fromkeys(CHOICES, "a description")},
        {"type": "noul"},
    ],
)
def test_decision_model_refuses_other_questions(question, tmp_path):
    classifier, _ = tiny_classifier()
    decision.write(tmp_path, classifier)
    decide = transformers.pipeline("decision", model=str(tmp_path))
    with pytest.raises(Exception, match=r"answers a choice|instructions or descriptions"):
        decide({"state": TEXTS[0], "questions": {"q": question}})


@needs_decisions
def test_served_decision_has_the_students_probabilities(tmp_path):
    pytest.importorskip("fastapi", reason="`transformers serve` needs fastapi")
    from fastapi.testclient import TestClient
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.systemone import SystemOneHandler
    from transformers.cli.serving.utils import GenerationState

    classifier, expected = tiny_classifier()
    decision.write(tmp_path, classifier)
    manager, state = ModelManager(device="cpu", force_model=str(tmp_path)), GenerationState()
    handler = SystemOneHandler(manager, state)
    app = build_server(manager, None, None, None, None, handler, state)
    body = {"model": str(tmp_path), "state": TEXTS[2], "questions": {"weather": QUESTION}}
    with TestClient(app) as client:
        reply = client.post("/v1/systemone", json=body)
    assert reply.status_code == 200, reply.text
    probs = reply.json()["answers"]["weather"]["probabilities"]
    assert list(probs) == list(CHOICES)
    np.testing.assert_allclose(list(probs.values()), expected[2], atol=1e-5)


def test_decision_refusals(monkeypatch):
    linear = SimpleNamespace(head="linear")
    labels = TaskHead("labels", CHOICES, "1.0", "")
    old = SimpleNamespace(__version__="5.18.0")
    new = SimpleNamespace(JevForDecision=object)
    monkeypatch.setattr(decision, "transformers", old)
    with pytest.raises(DHRDError, match=r"installed is 5\.18\.0: pip install -U transformers"):
        decision.check(linear, labels, "float32")
    monkeypatch.setattr(decision, "transformers", new)
    decision.check(linear, labels, "float32")
    with pytest.raises(DHRDError, match="--head linear"):
        decision.check(SimpleNamespace(head="mlp"), labels, "float32")
    with pytest.raises(DHRDError, match="candidates are read one by one"):
        decision.check(linear, TaskHead("candidates", None, "1.0", ""), "float32")
