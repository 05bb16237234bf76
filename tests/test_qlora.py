"""A backbone held in 4 bits: trained, saved, and scored as trained."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tokenizer, read_log
from made_decisions import label_decision
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from dhrd_plugin.batching import Encoder, collate
from dhrd_plugin.checkpoint import load_student
from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task, render_requests, split_docs
from dhrd_plugin.lm import DHRDLM
from dhrd_plugin.scoring import score
from distill.objective import Objective
from distill.train import train


@pytest.fixture(scope="module")
def four_bit_student(distill_config, tmp_path_factory):
    """Folder of a student on a Llama wide enough for bitsandbytes' kernels."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.1,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    output = tmp_path_factory.mktemp("four-bit")
    train(distill_config(output, backbone=str(folder), qlora=True, epochs=3, lora_dropout=0.0))
    return output


def test_backbone_is_in_four_bits_and_what_trains_is_not(four_bit_student):
    model, _, config = load_student(four_bit_student)
    assert config.quantized
    weights = {type(p).__name__ for p in model.lm.parameters() if not p.is_floating_point()}
    assert weights == {"Params4bit"}
    heads = load_file(four_bit_student / "head.safetensors")
    adapter = load_file(four_bit_student / "adapter_model.safetensors")
    assert {value.dtype for value in [*heads.values(), *adapter.values()]} == {torch.float32}
    log = read_log(four_bit_student)
    assert log[-1]["loss_reason"] < log[0]["loss_reason"] - 0.1


def test_evaluation_leaves_the_gradients_as_they_are(four_bit_student):
    """On some CPUs bitsandbytes would repack the weights for it, and train wrongly ever after."""
    model, tokenizer, _ = load_student(four_bit_student)
    decision = label_decision(choices=("no", "yes"))
    row = Encoder(tokenizer, [decision.task], 400).encode(decision, "Why. " * 20)
    trained = [p.requires_grad_() for name, p in model.named_parameters() if "lora_" in name]

    def gradients():
        losses = Objective({"cls": 1.0, "reason": 1.0}).losses(model.train(), collate([row], 257))
        return torch.autograd.grad(losses["cls"].sum() + losses["reason"].sum(), trained)

    before = gradients()
    score(model, [row], batch_size=1, pad_token_id=257)
    assert any(gradient.norm() > 0 for gradient in before)
    for got, expected in zip(gradients(), before, strict=True):
        torch.testing.assert_close(got, expected)


def test_harness_scores_the_student_that_was_trained(four_bit_student, made_tasks):
    task = load_task("made_weather", str(made_tasks))
    lm = DHRDLM(str(four_bit_student), include_path=str(made_tasks))
    docs = list(split_docs(task, "validation"))
    requests = [r for i, doc in enumerate(docs) for r in render_requests(task, doc, i)]
    got = [log_prob for log_prob, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    model, tokenizer, config = load_student(four_bit_student)
    decisions = load_decisions(task, "validation").decisions
    rows = [Encoder(tokenizer, list(config.tasks), 1024).encode(d) for d in decisions]
    expected = score(model, rows, batch_size=1, pad_token_id=257)
    assert got == pytest.approx([p for values in expected for p in values], abs=1e-5)


def test_merging_is_refused(four_bit_student):
    with pytest.raises(DHRDError, match=r"4-bit backbone.*merge=False"):
        load_student(four_bit_student, merge=True)
