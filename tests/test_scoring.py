"""Scores do not depend on batch size, order, neighbours or the tokenizer's padding side."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tokenizer
from made_decisions import candidate_decision, label_decision
from tiny_models import CAUSAL, encoder, mixed_rows, tiny_model

from dhrd_plugin.scoring import score

PAD = 257


@pytest.mark.parametrize("family", CAUSAL)
def test_batch_size_order_and_rationales_do_not_matter(family):
    model = tiny_model(family)
    rows = mixed_rows()
    expected = score(model, rows, batch_size=1, pad_token_id=PAD)
    for batch_size in (3, 8):
        got = score(model, rows, batch_size=batch_size, pad_token_id=PAD)
        assert got == [pytest.approx(values, abs=1e-5) for values in expected]
    reverse = score(model, rows[::-1], batch_size=3, pad_token_id=PAD)
    assert reverse[::-1] == [pytest.approx(values, abs=1e-5) for values in expected]
    plain = score(model, mixed_rows(rationales=False), batch_size=8, pad_token_id=PAD)
    assert plain == [pytest.approx(values, abs=1e-5) for values in expected]
    assert len({round(values[0], 3) for values in expected}) > 4  # the rows do differ


def test_identity_of_the_pad_token_does_not_matter():
    model = tiny_model()
    expected = score(model, mixed_rows(), batch_size=8, pad_token_id=PAD)
    got = score(model, mixed_rows(), batch_size=8, pad_token_id=3)
    assert got == [pytest.approx(values, abs=1e-5) for values in expected]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_of_the_tokenizer_does_not_matter(side):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = side
    decisions = [label_decision(), label_decision(context="Rain?"), candidate_decision()]
    rows = [encoder(tokenizer).encode(decision) for decision in decisions]
    got = score(tiny_model(), rows, batch_size=3, pad_token_id=PAD)
    one_by_one = [
        score(tiny_model(), [encoder().encode(decision)], batch_size=1, pad_token_id=PAD)[0]
        for decision in decisions
    ]
    assert got == [pytest.approx(values, abs=1e-5) for values in one_by_one]


def test_each_decision_gets_a_distribution_over_its_own_choices():
    scored = score(tiny_model(), mixed_rows(), batch_size=4, pad_token_id=PAD)
    assert [len(values) for values in scored] == [3, 2, 3, 3, 3, 2, 3, 3]
    for values in scored:
        assert torch.tensor(values).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_model_is_in_evaluation_mode_and_without_gradients():
    model = tiny_model().train()
    grad_modes = []
    model.trunk.register_forward_hook(lambda *_: grad_modes.append(torch.is_grad_enabled()))
    score(model, mixed_rows(), batch_size=8, pad_token_id=PAD)
    assert set(grad_modes) == {False}
    assert not model.training


def test_progress_counts_every_decision():
    done = []
    score(tiny_model(), mixed_rows(), batch_size=3, pad_token_id=PAD, on_batch=done.append)
    assert done == [3, 3, 2]


def test_nothing_to_score_is_nothing():
    assert score(tiny_model(), [], batch_size=3, pad_token_id=PAD) == []


def test_low_precision_is_used_when_asked_for():
    model = tiny_model()
    dtypes = []
    model.trunk.layers[0].mlp.up_proj.register_forward_hook(
        lambda _, __, output: dtypes.append(output.dtype)
    )
    rows = mixed_rows()[:1]
    score(model, rows, batch_size=1, pad_token_id=PAD, dtype=torch.bfloat16)
    score(model, rows, batch_size=1, pad_token_id=PAD)
    assert dtypes == [torch.bfloat16, torch.float32]
