"""One forward serves both heads, exactly, on every family that `check_backbone` lets through."""

from __future__ import annotations

import doctest

import pytest
import torch
from conftest import make_tokenizer
from made_decisions import candidate_decision, label_decision
from tiny_models import CAUSAL, RATIONALE, encoder, mixed_rows, tiny_lm, tiny_model

from dhrd_plugin import modeling
from dhrd_plugin.batching import NO_TARGET, collate
from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from dhrd_plugin.modeling import DualHeadModel, build_head, check_backbone, length_groups
from distill.losses import token_cross_entropy

PAD = 257  # eos, too
CLOSE = {"rtol": 0, "atol": 1e-5}


def run(model, batch, reasoning=False):
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pool_index=batch.pool_index,
        head_index=batch.head_index,
        targets=batch.targets if reasoning else None,
        token_loss=token_cross_entropy if reasoning else None,
    )


def forbid_lm_head(model):
    def fail(*_):
        raise AssertionError("the LM head ran")

    model.lm.get_output_embeddings().register_forward_pre_hook(fail)


def test_examples_in_docstrings_hold():
    result = doctest.testmod(modeling)
    assert result.attempted >= 2
    assert result.failed == 0


# One forward


@pytest.mark.parametrize("family", CAUSAL)
def test_rationale_behind_the_input_leaves_the_logits_as_they_are(family):
    model = tiny_model(family)
    check_backbone(model.lm, vocab_size=258)
    decisions = [label_decision(), candidate_decision(), label_decision(context="Rain?")]
    plain = collate([encoder().encode(d) for d in decisions], PAD)
    reasoned = collate([encoder().encode(d, RATIONALE) for d in decisions], PAD)
    assert reasoned.input_ids.shape[1] > plain.input_ids.shape[1]
    with torch.no_grad():
        expected = run(model, plain).logits
        torch.testing.assert_close(run(model, reasoned).logits, expected, **CLOSE)
        torch.testing.assert_close(run(model, reasoned, reasoning=True).logits, expected, **CLOSE)
    # Rows differ by far more than that, or equality would prove nothing.
    spread = [expected[rows, 0].std() for rows in ([0, 3], [1, 2])]
    assert min(spread) > 1e-3


def test_short_and_long_rows_apart_give_what_one_padded_pass_gives(monkeypatch):
    model = tiny_model()
    decisions = [candidate_decision(), label_decision(), candidate_decision()]
    texts = (RATIONALE, None, RATIONALE)
    pairs = zip(decisions, texts, strict=True)
    batch = collate([encoder().encode(d, text) for d, text in pairs], PAD)
    lengths = batch.attention_mask.sum(dim=1).tolist()
    (short, short_length), (long, long_length) = length_groups(lengths)
    assert sorted(short + long) == list(range(len(lengths)))
    assert short_length == max(lengths[row] for row in short) < min(lengths[row] for row in long)
    assert long_length == max(lengths)
    read = []
    model.trunk.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    with torch.no_grad():
        apart = run(model, batch, reasoning=True)
        assert len(read) == 2 and sum(read) < 0.8 * batch.input_ids.numel()
        monkeypatch.setattr(
            "dhrd_plugin.modeling.length_groups", lambda n: [(list(range(len(n))), max(n))]
        )
        whole = run(model, batch, reasoning=True)
    assert len(read) == 3
    torch.testing.assert_close(apart.logits, whole.logits, **CLOSE)
    # The order of the tokens is not part of the promise: they are summed.
    torch.testing.assert_close(
        apart.token_losses.sort().values, whole.token_losses.sort().values, **CLOSE
    )


@pytest.mark.parametrize("family", CAUSAL)
def test_logits_are_the_head_at_the_last_token_of_the_unpadded_input(family):
    model = tiny_model(family)
    rows = mixed_rows()
    with torch.no_grad():
        logits = run(model, collate(rows, PAD)).logits
        row = 0
        for decision in rows:
            for ids in decision.inputs:
                hidden = model.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
                expected = model.heads[decision.head](hidden)
                torch.testing.assert_close(logits[row, : len(expected)], expected, **CLOSE)
                row += 1
    assert row == len(logits)


def test_linear_head_is_the_reference_library_classifier():
    from transformers import LlamaForSequenceClassification

    lm = tiny_lm()
    model = DualHeadModel(lm, head_kind="linear", n_outputs={"made": 3})
    lm.config.num_labels = 3
    lm.config.pad_token_id = 255  # the reference finds the last token by looking for padding
    reference = LlamaForSequenceClassification(lm.config).eval()
    reference.model.load_state_dict(lm.model.state_dict())
    reference.score.load_state_dict(model.heads[0].state_dict())
    texts = ["Rain?", "A longer scene.\nAnswer:"]
    batch = collate([encoder().encode(label_decision(context=text)) for text in texts], 255)
    with torch.no_grad():
        expected = reference(batch.input_ids, attention_mask=batch.attention_mask).logits
        torch.testing.assert_close(run(model, batch).logits, expected, **CLOSE)


def test_columns_of_other_heads_are_minus_infinity():
    batch = collate(
        [encoder().encode(label_decision()), encoder().encode(candidate_decision())], PAD
    )
    logits = run(tiny_model(), batch).logits
    assert logits.isinf().tolist() == [[False] * 3, [False, True, True], [False, True, True]]


def test_head_without_rows_is_part_of_the_graph():
    """Distributed training stops at a parameter that gets no gradient."""
    model = tiny_model()
    batch = collate([encoder().encode(label_decision(context="Rain?"))], PAD)
    run(model, batch).logits.sum().backward()
    missing = [name for name, p in model.heads.named_parameters() if p.grad is None]
    assert missing == []
    assert all(not p.grad.any() for p in model.heads[1].parameters())
    assert all(p.grad.any() for p in model.heads[0].parameters())


def test_head_computes_in_float32_whatever_the_trunk_does():
    model = tiny_model()
    model.lm.bfloat16()
    batch = collate(mixed_rows(), PAD)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.trunk(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        logits = run(model, batch).logits
    pooled = hidden[torch.arange(len(hidden)), batch.pool_index]
    assert pooled.dtype == torch.bfloat16
    with torch.no_grad():
        expected = model.classify(pooled.float(), batch.head_index)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, **CLOSE)


def test_heads_are_the_papers_mlp_or_one_bias_free_layer():
    mlp, linear = build_head("mlp", 32, 3), build_head("linear", 32, 3)
    assert [type(layer).__name__ for layer in mlp] == ["LayerNorm", "Linear", "GELU", "Linear"]
    assert mlp(torch.randn(2, 32)).shape == linear(torch.randn(2, 32)).shape == (2, 3)
    assert [name for name, _ in linear.named_parameters()] == ["weight"]


# The LM head


def test_inference_never_runs_the_lm_head():
    model = tiny_model()
    forbid_lm_head(model)
    batch = collate(mixed_rows(), PAD)
    with torch.no_grad():
        assert run(model, batch).token_losses is None
        with pytest.raises(AssertionError, match="the LM head ran"):
            run(model, batch, reasoning=True)


def test_lm_head_sees_only_positions_with_a_target():
    model = tiny_model()
    seen = []
    model.lm.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0].shape))
    )
    batch = collate(mixed_rows(), PAD)
    losses = run(model, batch, reasoning=True).token_losses
    n_targets = int((batch.targets != NO_TARGET).sum())
    assert seen == [(n_targets, 32)]
    assert losses.shape == (n_targets,)
    assert n_targets < batch.attention_mask.sum()  # rows without a rationale have none


@pytest.mark.parametrize("family", CAUSAL)
def test_token_losses_are_the_reference_librarys(family):
    """The same mean loss and the same gradients as transformers' own, on every token of one row."""
    row = encoder().encode(label_decision(), RATIONALE)
    batch = collate([row], PAD)
    model = tiny_model(family, chunk_size=10)
    run(model, batch, reasoning=True).token_losses.mean().backward()
    ours = {name: p.grad for name, p in model.lm.named_parameters()}
    reference = tiny_lm(family)
    loss = reference(batch.input_ids, labels=batch.input_ids).loss
    loss.backward()
    losses = run(model, batch, reasoning=True).token_losses
    torch.testing.assert_close(losses.mean(), loss, **CLOSE)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("chunk_size", [1, 7, 100_000])
def test_chunks_change_neither_losses_nor_gradients(chunk_size):
    batch = collate(mixed_rows(), PAD)
    results = []
    for size in (1024, chunk_size):
        model = tiny_model(chunk_size=size)
        chunks = []
        model.lm.get_output_embeddings().register_forward_pre_hook(
            lambda _, inputs, chunks=chunks: chunks.append(len(inputs[0]))
        )
        losses = run(model, batch, reasoning=True).token_losses
        losses.sum().backward()
        assert max(chunks) <= size
        results.append((losses, [p.grad for p in model.lm.parameters()]))
    (whole, whole_grads), (chunked, chunked_grads) = results
    torch.testing.assert_close(chunked, whole, **CLOSE)
    for expected, got in zip(whole_grads, chunked_grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_no_targets_at_all_give_an_empty_loss():
    batch = collate(mixed_rows(rationales=False), PAD)
    losses = run(tiny_model(), batch, reasoning=True).token_losses
    assert losses.shape == (0,)


# Which backbones


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", CAUSAL)
def test_causal_families_pass(family, dtype):
    lm = tiny_lm(family).to(dtype).train()
    check_backbone(lm, vocab_size=258)
    assert lm.training  # left as it was


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("Bert", {}, "'bert' is not causal"),
        ("XLNet", {}, "'xlnet' is not causal"),
        ("Cohere", {}, "'cohere' scales or caps its logits"),
        ("Granite", {"logits_scaling": 8.0}, "'granite' scales or caps its logits"),
        ("Gemma2", {"final_logit_softcapping": 2.0}, "'gemma2' scales or caps its logits"),
        ("Rwkv", {}, "'rwkv' rewrites its weights for evaluation"),
    ],
)
def test_families_that_break_the_premises_are_refused(family, changes, why):
    with pytest.raises(DHRDError, match=why) as refusal:
        check_backbone(tiny_lm(family, **changes), vocab_size=258)
    assert refusal.value.exit_code == EXIT_BAD_INPUT


def test_positions_counted_from_the_end_of_the_text_are_refused():
    """A family with them would be causal, and yet read a row otherwise in each batch."""
    lm = tiny_lm("GPT2")

    def count_from_the_end(_, args, kwargs):
        mask = kwargs["attention_mask"]
        positions = torch.arange(mask.shape[1]) + 400 - mask.sum(dim=1, keepdim=True)
        return args, kwargs | {"position_ids": positions}

    lm.base_model.register_forward_pre_hook(count_from_the_end, with_kwargs=True)
    with pytest.raises(DHRDError, match="'gpt2' is changed by padding"):
        check_backbone(lm, vocab_size=258)


def test_premise_of_the_refusal_of_rescaled_weights():
    """Without it, an adapter trained on the weights as they were would be tested on others."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False)
    lm = get_peft_model(tiny_lm("Rwkv", rescale_every=1), lora)
    ids = torch.arange(12).unsqueeze(0)
    with torch.no_grad():
        trained, tested = (lm.train(mode)(ids).logits for mode in (True, False))
    assert (trained - tested).abs().max() > 1e-2


def test_granite_that_does_not_scale_passes():
    """It is the fact that counts, not the family's name."""
    check_backbone(tiny_lm("Granite", logits_scaling=1.0), vocab_size=258)


def test_backbone_without_a_head_of_its_own_is_refused():
    with pytest.raises(DHRDError, match="no separate LM head"):
        check_backbone(tiny_lm().model, vocab_size=258)


def test_premise_of_the_bidirectional_refusal():
    """Without the refusal, a rationale would change what the classification head reads."""
    model = tiny_model("Bert")
    make = encoder(make_tokenizer()).encode
    plain, reasoned = (
        run(model, collate([make(label_decision(), text)], PAD)).logits
        for text in (None, RATIONALE)
    )
    assert (plain - reasoned).abs().max() > 1e-3
