"""`dhrd-distill export --to seqcls`, and what all exports have in common: equal, or not there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from exported import CHOICES, TEXTS, student_probs, tiny_classifier
from safetensors.torch import load_file, save_file
from tiny_models import tiny_lm
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from dhrd_plugin.checkpoint import CONFIG_FILE
from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, DHRDError
from dhrd_plugin.harness import load_task
from distill.export import seqcls
from distill.export.classifier import TaskClassifier
from distill.export.cli import main
from distill.export.parity import choice_log_probs, compare, require_equal

TEMPERATURE = 2.5


@pytest.fixture(scope="module")
def linear_student(distill_config, tmp_path_factory):
    """A linear-head student of two tasks, with a temperature for one of them."""
    from distill.train import train

    folder = tmp_path_factory.mktemp("linear")
    tasks = ("made_weather", "made_because")
    train(distill_config(folder, tasks=tasks, head="linear", max_steps=2, dev_rows=2))
    described = json.loads((folder / CONFIG_FILE).read_text())
    described["tasks"]["made_weather"]["temperature"] = TEMPERATURE
    (folder / CONFIG_FILE).write_text(json.dumps(described))
    return folder


@pytest.fixture
def export(linear_student, made_tasks, tmp_path, capsys):
    """Runs the command on the linear-head student; its exit code, and stdout and stderr."""

    def run(*flags, student=linear_student, to="seqcls"):
        argv = [str(student), "--to", to, "--include-path", str(made_tasks)]
        code = main([*argv, "--output", str(tmp_path / "out"), *flags])
        return code, "".join(capsys.readouterr())

    return run


def all_probs(folder, texts, **settings):
    """(texts, K) from the pipeline, in the order of the labels."""
    classify = pipeline("text-classification", model=str(folder), truncation=True, **settings)
    answers = classify(list(texts), top_k=None)
    index = classify.model.config.label2id
    return np.array(
        [[a["score"] for a in sorted(one, key=lambda a: index[a["label"]])] for one in answers]
    )


def test_pipeline_and_plain_batches_answer_as_the_student_does(export, linear_student, tmp_path):
    killed = tmp_path / ".out.partial"  # by an earlier run
    killed.mkdir()
    (killed / "junk").touch()
    code, text = export("--task", "made_weather")
    assert code == EXIT_OK, text
    assert "Largest difference in probability on 8 rows" in text
    folder = tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (folder / "junk").exists()

    expected = student_probs(linear_student, "made_weather", TEXTS)
    assert expected.std(axis=0).min() > 0.05  # the texts are told apart
    np.testing.assert_allclose(all_probs(folder, TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(all_probs(folder, TEXTS, batch_size=4), expected, atol=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        plain = model(**batch).logits.softmax(dim=-1).numpy()
    np.testing.assert_allclose(plain, expected, atol=1e-5)

    assert model.config.id2label == {0: "no", 1: "yes"}
    assert model.config.problem_type == "single_label_classification"
    assert model.config.pad_token_id not in (model.config.eos_token_id, None)
    outside = {name for name in load_file(folder / "model.safetensors") if "model." not in name}
    assert outside == {"score.weight"}


def test_calibrated_export_has_the_temperature_in_its_weights(export, linear_student, tmp_path):
    code, text = export("--task", "made_weather", "--calibrated")
    assert code == EXIT_OK, text
    calibrated = all_probs(tmp_path / "out", TEXTS)
    expected = student_probs(linear_student, "made_weather", TEXTS, TEMPERATURE)
    np.testing.assert_allclose(calibrated, expected, atol=1e-5)
    plain = student_probs(linear_student, "made_weather", TEXTS)
    assert np.abs(calibrated - plain).max() > 0.05
    assert "the temperature 2.500 is folded" in (tmp_path / "out" / "README.md").read_text()


def test_candidates_get_one_logit_each(export, made_tasks, tmp_path):
    code, text = export("--task", "made_because")
    assert code == EXIT_OK, text  # compared by the softmax over each row's candidates
    task = load_task("made_because", str(made_tasks))
    inputs = load_decisions(task, "validation").decisions[0].inputs
    logits = all_probs(tmp_path / "out", inputs)
    assert logits.shape == (2, 1)
    assert not 0 < logits[0] < 1 or not 0 < logits[1] < 1  # neither softmax nor sigmoid


@pytest.mark.parametrize("family", ["Llama", "GPT2", "GPTNeoX", "Gemma3Text"])
def test_families_keep_their_answers(family, tmp_path):
    classifier, expected = tiny_classifier(family, bos=True)
    seqcls.write(tmp_path, classifier)
    logits = torch.tensor(seqcls.logits(tmp_path, TEXTS))
    np.testing.assert_allclose(logits.softmax(dim=-1), expected, atol=1e-5)


def test_family_without_a_classifier(tmp_path):
    trunk = tiny_lm("Mamba").base_model
    classifier = TaskClassifier(trunk, nn.Linear(32, 3, bias=False), None, "", "made", CHOICES)
    with pytest.raises(DHRDError, match=r"'mamba'. Export it with --to onnx"):
        seqcls.write(tmp_path, classifier)


def test_a_planted_difference_is_found_and_nothing_is_kept(export, tmp_path, monkeypatch):
    write = seqcls.write

    def write_another(folder, classifier):
        write(folder, classifier)
        path = folder / "model.safetensors"
        weights = load_file(path)
        weights["score.weight"][0] *= 1.1
        save_file(weights, path, metadata={"format": "pt"})

    monkeypatch.setattr(seqcls, "write", write_another)
    code, text = export("--task", "made_weather")
    assert code == EXIT_FAILED
    assert "not the student: on row made_weather/validation/" in text
    assert list(tmp_path.iterdir()) == []
    code, text = export("--task", "made_weather", "--tolerance", "1")
    assert code == EXIT_OK, text


def test_largest_difference_counts_every_choice_and_what_is_no_number(made_tasks):
    task = load_task("made_because", str(made_tasks))
    rows = load_decisions(task, "validation", limit=2).decisions
    logits = [[0.0], [0.0], [float("nan")], [1.0]]
    exported = list(choice_log_probs(rows, logits))
    assert exported[0] == pytest.approx([np.log(0.5)] * 2)
    found = compare(rows, np.log([[0.7, 0.3], [0.5, 0.5]]).tolist(), exported)
    assert (found.rows, found.row) == (2, "made_because/validation/1")
    with pytest.raises(DHRDError, match="--dtype float32"):
        require_equal(found, 1e-3, "bfloat16")
    found = compare(rows[:1], np.log([[0.7, 0.3]]).tolist(), exported[:1])
    assert found.difference == pytest.approx(0.2)


def test_interrupted_export_leaves_nothing(export, tmp_path, monkeypatch):
    def interrupted(folder, texts):
        assert (folder / "model.safetensors").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(seqcls, "logits", interrupted)
    code, text = export("--task", "made_weather")
    assert (code, list(tmp_path.iterdir())) == (EXIT_INTERRUPTED, [])
    assert "nothing was kept" in text


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ((), ["no --task given", "made_weather, made_because"]),
        (("--task", "cb"), ["--task cb", "made_weather, made_because"]),
    ],
)
def test_task_must_be_one_of_the_students(export, flags, parts):
    code, text = export(*flags)
    assert code == EXIT_BAD_INPUT
    assert all(part in text for part in parts)


def test_output_that_holds_something_is_left_alone(export, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    code, text = export("--task", "made_weather")
    assert code == EXIT_BAD_INPUT and "Name a new or an empty folder" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"head": "mlp"}, ["--head linear", "--to onnx"]),
        ({"quantized": True}, ["4 bits", "without --qlora"]),
        ({"version": "0.9"}, ["version 1.0", "version 0.9", "--include-path"]),
    ],
)
def test_students_that_are_refused(export, linear_student, tmp_path, changes, parts):
    described = json.loads((linear_student / CONFIG_FILE).read_text())
    if "version" in changes:
        described["tasks"]["made_weather"] |= changes
    else:
        described |= changes
    other = tmp_path / "other"
    other.mkdir()  # without weights: those are loaded later
    (other / CONFIG_FILE).write_text(json.dumps(described))
    code, text = export("--task", "made_weather", student=other)
    assert code == EXIT_BAD_INPUT
    assert all(part in text for part in parts), text
    assert list(tmp_path.iterdir()) == [other]
