"""A student's folder: what is in it, and that it answers as the trained model did."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from conftest import make_tokenizer
from tiny_models import mixed_rows

from dhrd_plugin.backbones import load_causal_lm
from dhrd_plugin.batching import collate
from dhrd_plugin.checkpoint import (
    StudentConfig,
    TaskHead,
    load_student,
    read_student_config,
    save_student,
)
from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from dhrd_plugin.modeling import DualHeadModel
from distill.train import train

PAD = 257
TASKS = {
    "made": TaskHead("labels", ("True", "False", "Neither"), "1.0", "0" * 16),
    "made_copa": TaskHead("candidates", None, "2.0", "1" * 16),
}


def untrained_student(backbone, *, full=False, head="mlp", dtype="float32"):
    """(model, its description), with an adapter that does something."""
    lm = load_causal_lm(backbone, dtype=getattr(torch, "float32" if full else dtype))
    torch.manual_seed(1)
    if not full:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False
        )
        lm = get_peft_model(lm, lora)
    config = StudentConfig(
        base_model=backbone, adapter=not full, head=head, dtype=dtype, max_length=400, tasks=TASKS
    )
    return DualHeadModel(lm, head_kind=head, n_outputs=config.n_outputs).eval(), config


@torch.no_grad()
def logits(model):
    batch = collate(mixed_rows(), PAD)
    return model(batch.input_ids, batch.attention_mask, batch.pool_index, batch.head_index).logits


@pytest.mark.parametrize("head", ["mlp", "linear"])
@pytest.mark.parametrize("full", [False, True])
def test_reloaded_student_gives_the_same_logits_bit_for_bit(tiny_backbone, tmp_path, full, head):
    model, config = untrained_student(tiny_backbone, full=full, head=head)
    if full:  # other weights than the backbone's
        with torch.no_grad():
            for parameter in model.lm.parameters():
                parameter.mul_(1.1)
    saved = save_student(tmp_path, model, make_tokenizer(), config)
    loaded, tokenizer, read = load_student(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert read == saved
    assert not loaded.training
    fresh = DualHeadModel(load_causal_lm(tiny_backbone), head_kind=head, n_outputs=read.n_outputs)
    fresh.heads.load_state_dict(model.heads.state_dict())
    assert not torch.allclose(logits(fresh.eval()), logits(model), atol=1e-3)  # the trunk counts
    assert tokenizer("Rain?").input_ids == make_tokenizer()("Rain?").input_ids


def test_merged_adapter_is_equal_up_to_rounding(tiny_backbone, tmp_path):
    model, config = untrained_student(tiny_backbone)
    save_student(tmp_path, model, make_tokenizer(), config)
    merged, _, _ = load_student(tmp_path, merge=True)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    torch.testing.assert_close(logits(merged), logits(model), rtol=0, atol=1e-4)


def test_low_precision_backbone_reloads_bit_for_bit(tiny_backbone, tmp_path):
    model, config = untrained_student(tiny_backbone, dtype="bfloat16")
    save_student(tmp_path, model, make_tokenizer(), config)
    loaded, _, _ = load_student(tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(logits(loaded), logits(model))


# What is in the folder


@pytest.fixture(scope="module")
def cached_backbone(tiny_backbone, tmp_path_factory):
    """The cache folder, in which the tiny backbone is known as smollm2."""
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(tiny_backbone, cache / "smollm2-135m-instruct")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DHRD_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="module")
def student(distill_config, cached_backbone, tmp_path_factory):
    """Folder of a trained student on two tasks, as `dhrd-distill` leaves it."""
    folder = tmp_path_factory.mktemp("student")
    tasks = ("made_weather", "made_because")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Could not find a config")  # PEFT, of an alias
        train(distill_config(folder, backbone="smollm2", max_steps=1, tasks=tasks))
    return folder


@pytest.fixture
def copy(student, tmp_path):
    for path in student.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_folder_holds_safetensors_json_and_text_only(student):
    names = {path.name for path in student.iterdir()}
    assert {"dhrd.json", "head.safetensors", "adapter_model.safetensors"} <= names
    assert {Path(name).suffix for name in names} <= {".json", ".jsonl", ".safetensors", ".md"}


def test_adapter_holds_lora_weights_only(student):
    from safetensors import safe_open

    with safe_open(student / "adapter_model.safetensors", framework="pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118 (no mapping)
    with safe_open(student / "head.safetensors", framework="pt") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"0", "1"}  # noqa: SIM118


def test_no_file_names_the_folder_that_the_backbone_was_read_from(student, cached_backbone):
    for path in student.iterdir():
        assert str(cached_backbone).encode() not in path.read_bytes(), path.name
    adapter = json.loads((student / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "smollm2"
    assert json.loads((student / "dhrd.json").read_text())["base_model"] == "smollm2"


def test_description_is_read_as_it_was_written(student):
    config = read_student_config(student)
    assert config.n_outputs == {"made_weather": 2, "made_because": 1}
    assert config.tasks["made_weather"].choices == ("no", "yes")
    assert config.tasks["made_because"].choices is None
    assert config.training["alpha"] == 1 and config.training["setting"] == "DHRD (α=1 β=1)"


def test_description_from_before_calibration_and_quantisation_is_read(copy):
    description = json.loads((copy / "dhrd.json").read_text())
    del description["quantized"]
    for head in description["tasks"].values():
        del head["temperature"]
    (copy / "dhrd.json").write_text(json.dumps(description))
    config = read_student_config(copy)
    assert not config.quantized
    assert {head.temperature for head in config.tasks.values()} == {1.0}


def test_fingerprint_is_that_of_the_trained_weights(tiny_backbone, tmp_path):
    prints = []
    for index, change in enumerate((0, 0, 1e-3)):
        model, config = untrained_student(tiny_backbone)
        with torch.no_grad():
            model.heads[1][3].bias.add_(change)
        saved = save_student(tmp_path / str(index), model, make_tokenizer(), config)
        prints.append(saved.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_card_says_what_the_student_is(student):
    card = (student / "README.md").read_text()
    assert card.startswith("---\nbase_model: smollm2\n")
    assert "`made_weather`: labels (no, yes), task version 1.0" in card
    assert "`made_because`: candidates, task version 1.0" in card
    assert "lm_eval --model dhrd --model_args pretrained=FOLDER" in card
    assert read_student_config(student).fingerprint in card
    assert "| alpha | 1.0 |" in card and "| lr | 0.01 |" in card


def test_student_on_a_relative_backbone_folder_is_found_from_anywhere(
    distill_config, tiny_backbone, tmp_path, monkeypatch
):
    monkeypatch.chdir(Path(tiny_backbone).parent)
    train(distill_config(tmp_path, max_steps=1, backbone=Path(tiny_backbone).name))
    monkeypatch.chdir(tmp_path)
    load_student(".")


# Odd folders


def test_folder_without_a_student_says_how_to_make_one(tmp_path):
    with pytest.raises(DHRDError, match=r"dhrd.json is missing[\s\S]*dhrd-distill --output") as no:
        read_student_config(tmp_path)
    assert no.value.exit_code == EXIT_BAD_INPUT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": "dhrd.st', "cannot be read"),
        ("[]", r"schema is None, this version reads 'dhrd\.student/1'"),
        ('"text"', "schema is None"),
        ('{"schema": "dhrd.student/9"}', r"schema is 'dhrd\.student/9'"),
        ('{"schema": "dhrd.student/1"}', "not a valid student description"),
    ],
)
def test_torn_or_foreign_description_is_an_error(tmp_path, text, message):
    (tmp_path / "dhrd.json").write_text(text)
    with pytest.raises(DHRDError, match=message):
        read_student_config(tmp_path)


def test_description_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "dhrd.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DHRDError, match="cannot be read"):
        read_student_config(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tasks", None),
        ("tasks", []),
        ("tasks", {"made_weather": {}}),
        ("tasks", {"made_weather": 3}),
        ("odd", 1),
    ],
)
def test_damaged_field_is_an_error(copy, field, value):
    raw = json.loads((copy / "dhrd.json").read_text())
    (copy / "dhrd.json").write_text(json.dumps(raw | {field: value}))
    with pytest.raises(DHRDError, match="not a valid student description"):
        read_student_config(copy)


@pytest.mark.parametrize("damage", ["missing", "torn", "other heads"])
def test_heads_that_do_not_fit_are_an_error(copy, damage):
    raw = json.loads((copy / "dhrd.json").read_text())
    heads = copy / "head.safetensors"
    if damage == "missing":
        heads.unlink()
    elif damage == "torn":
        heads.write_bytes(heads.read_bytes()[:100])
    else:
        raw["tasks"]["made_weather"]["choices"] = ["yes", "no", "maybe"]
    (copy / "dhrd.json").write_text(json.dumps(raw))
    with pytest.raises(DHRDError, match=r"head\.safetensors does not hold the heads"):
        load_student(copy)
