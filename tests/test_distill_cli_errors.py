"""`dhrd-distill` with wrong input: one message that says what to do, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from conftest import make_tokenizer
from tiny_models import tiny_lm

from dhrd_plugin.errors import EXIT_BAD_INPUT


def assert_one_message(code, text, *parts):
    assert code == EXIT_BAD_INPUT
    assert "Traceback" not in text
    message = text[text.index("dhrd-distill: ") :]
    assert len(message.splitlines()) < 6, message
    assert text.count("dhrd-distill: ") == 1
    for part in parts:
        assert part in message
    assert not Path("dhrd-student").exists()  # nothing is left behind


def test_soft_targets_without_a_teacher(dhrd_distill):
    code, text = dhrd_distill(kd_temperature="2")
    assert_one_message(code, text, "no teacher to take soft targets", "--kd-teacher MODEL")


def test_no_seeds(dhrd_distill):
    code, text = dhrd_distill(seeds="0")
    assert_one_message(code, text, "--seeds 0", "at least 1")


def test_unknown_tracker(dhrd_distill):
    code, text = dhrd_distill(tracker="paper")
    assert_one_message(code, text, "--tracker paper", "tensorboard")


def test_missing_rationale_file(dhrd_distill):
    code, text = dhrd_distill(rationales="nowhere.jsonl")
    assert_one_message(code, text, "nowhere.jsonl", "No such file", "dhrd-teach")


def test_default_rationale_file_that_is_not_there(dhrd_distill):
    code, text = dhrd_distill(rationales=None)
    assert_one_message(code, text, "rationales.jsonl", "No such file")


def test_rationale_file_that_is_a_folder(dhrd_distill, tmp_path):
    code, text = dhrd_distill(rationales=str(tmp_path))
    assert_one_message(code, text, str(tmp_path), "Is a directory")


def test_no_rationale_file_named(dhrd_distill):
    code, text = dhrd_distill("--rationales", "")
    assert_one_message(code, text, "needs --rationales FILE", "--alpha 0")


LINE = {"task": "made_weather", "split": "train", "index": 0, "rationale": "Drops."}


@pytest.mark.parametrize(
    ("second", "parts"),
    [
        ('{"task": "made_wea', ["r.jsonl:2", "not valid JSON", "repairs it"]),
        (json.dumps(LINE | {"input_sha": "0123456789abcdef"}), ["r.jsonl:2", "0123456789abcdef"]),
        (json.dumps(LINE | {"index": 999}), ["r.jsonl:2", "no row made_weather/train/999"]),
        (json.dumps(LINE | {"rationale": None}), ["r.jsonl:2", "'rationale' is None"]),
        ("[]", ["r.jsonl:2", "got list"]),
    ],
)
def test_line_that_cannot_be_used(dhrd_distill, second, parts):
    Path("r.jsonl").write_text(json.dumps(LINE) + "\n" + second)
    code, text = dhrd_distill(rationales="r.jsonl")
    assert_one_message(code, text, *parts)


def test_unknown_task(dhrd_distill):
    code, text = dhrd_distill(task="made_wether")
    assert_one_message(code, text, "'made_wether'", "made_weather")


def test_no_task(dhrd_distill):
    code, text = dhrd_distill("--task", ",")
    assert_one_message(code, text, "--task names no task")


def test_task_without_training_split(dhrd_distill):
    code, text = dhrd_distill(task="made_untaught")
    assert_one_message(code, text, "'made_untaught' has no train split", "training_split:")


def test_missing_include_path(dhrd_distill):
    code, text = dhrd_distill(include_path="nowhere")
    assert_one_message(code, text, "--include-path nowhere: no such folder")


@pytest.mark.parametrize("family", ["Bert", "T5", "Cohere"])
def test_backbone_that_is_no_plain_causal_lm(dhrd_distill, family, tmp_path):
    folder = tmp_path / "backbone"
    make_tokenizer().save_pretrained(folder)
    if family == "T5":
        transformers.T5Config(vocab_size=258, d_model=32).save_pretrained(folder)
    else:
        tiny_lm(family).save_pretrained(folder)
    code, text = dhrd_distill(backbone=str(folder), max_length="400")
    why = {"Bert": "not causal", "T5": "causal language model", "Cohere": "scales or caps"}
    assert_one_message(code, text, why[family])


@pytest.mark.parametrize("name", ["./nowhere", "nobody/nothing"])
def test_backbone_that_is_not_there(dhrd_distill, name):
    code, text = dhrd_distill(backbone=name)
    assert_one_message(code, text, name)


def test_impossible_setting(dhrd_distill):
    code, text = dhrd_distill(lr="-1")
    assert_one_message(code, text, "--lr -1")


def test_too_many_dev_rows(dhrd_distill):
    code, text = dhrd_distill(dev_rows="40")
    assert_one_message(code, text, "40 training rows, too few to keep 40 back", "--dev-rows")


def test_output_that_is_a_file(dhrd_distill):
    Path("taken").touch()
    code, text = dhrd_distill(output="taken")
    assert_one_message(code, text, "--output taken: cannot write there")
