"""Fixtures: a random two-layer Llama with a byte-level tokenizer, and made tasks. No network."""

from __future__ import annotations

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO.parent / "shared" / "data"

needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(),
    reason="reads real SuperGLUE rows, which may not be copied into the project",
)


def make_tokenizer(eos: str = "<eos>"):
    """Byte-level tokenizer: 256 byte symbols, <bos>, `eos`; no merges, no unknown tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: i for i, symbol in enumerate([*alphabet, "<bos>", eos])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token=eos, pad_token=eos
    )


def read_log(output: Path) -> list[dict]:
    """The lines of a run's train_log.jsonl."""
    lines = (Path(output) / "train_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def interrupt_at(step: int):
    """A `report` for `distill.train.train` that presses Ctrl-C after `step`."""

    def report(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def weights(folder: Path) -> dict[str, bytes]:
    """A student's weight files."""
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> str:
    """Folder of a random two-layer Llama (hidden size 32) and its byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def untied_backbone(tmp_path_factory) -> str:
    """Folder of a tiny Llama (512 positions) whose LM head is a parameter of its own."""
    from tiny_models import tiny_lm

    folder = tmp_path_factory.mktemp("tiny-untied-llama")
    tiny_lm(tie_word_embeddings=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def made_tasks(tmp_path_factory) -> Path:
    """Folder of the tasks made_weather, made_because and made_untaught, and rationales.jsonl."""
    from made_harness_tasks import write_made_tasks

    folder = tmp_path_factory.mktemp("made-tasks")
    write_made_tasks(folder)
    return folder


@pytest.fixture(scope="session")
def distill_config(made_tasks, tiny_backbone):
    """Makes the settings of a training run of seconds; keyword arguments change some of them."""
    from distill.config import DistillConfig

    def make(output: Path, **changes) -> DistillConfig:
        settings = {
            "tasks": ("made_weather",),
            "rationales": (made_tasks / "rationales.jsonl",),
            "backbone": tiny_backbone,
            "output": Path(output),
            "alpha": 1.0,
            "epochs": 2,
            "batch_size": 8,
            "lr": 1e-2,
            "dev_rows": 4,
            "dtype": "float32",
            "include_path": str(made_tasks),
        }
        return DistillConfig(**settings | changes)

    return make


STUDENT_TASKS = ("scenes", "made_weather", "made_because")


@pytest.fixture(scope="session")
def student(distill_config, tmp_path_factory) -> Path:
    """Folder of a student of a shipped task and of two of a user's own, trained for a few steps."""
    from distill.train import train

    folder = tmp_path_factory.mktemp("student")
    train(distill_config(folder, tasks=STUDENT_TASKS, max_steps=6, dev_rows=2))
    return folder


@pytest.fixture
def dhrd_distill(made_tasks, tiny_backbone, tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns its exit code and what it wrote to stderr."""
    monkeypatch.chdir(tmp_path)
    common = {
        "--task": "made_weather",
        "--rationales": str(made_tasks / "rationales.jsonl"),
        "--backbone": tiny_backbone,
        "--include-path": str(made_tasks),
        "--max-steps": "2",
        "--dtype": "float32",
    }

    def command(*flags, **changes):
        options = common | {f"--{key.replace('_', '-')}": value for key, value in changes.items()}
        argv = [part for flag, value in options.items() for part in (flag, value) if value]
        from distill.cli import main

        code = main([*argv, *flags])
        return code, capsys.readouterr().err

    return command
