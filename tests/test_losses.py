"""Losses against hand-computed values; gradients stay finite whatever is masked."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from distill import losses
from distill.losses import label_cross_entropy, token_cross_entropy

INF = float("inf")


def gold(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_examples_in_docstrings_hold():
    result = doctest.testmod(losses)
    assert result.attempted >= 5
    assert result.failed == 0


def test_label_loss_of_one_gold_class_by_hand():
    logits = torch.tensor([[math.log(1), math.log(2), math.log(5)]])
    assert label_cross_entropy(logits, gold([0, 1, 0])).tolist() == pytest.approx([math.log(4)])


def test_label_loss_of_several_gold_classes_adds_their_probabilities():
    logits = torch.tensor([[math.log(1), math.log(2), math.log(5)]])
    assert label_cross_entropy(logits, gold([1, 1, 0])).tolist() == pytest.approx([math.log(8 / 3)])
    assert label_cross_entropy(logits, gold([1, 1, 1])).tolist() == pytest.approx([0], abs=1e-6)


def test_label_loss_gives_a_value_per_row():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    expected = [math.log(2), math.log(4)]
    assert label_cross_entropy(logits, gold([1, 0], [0, 1])).tolist() == pytest.approx(expected)


def test_columns_without_a_choice_change_neither_loss_nor_gradient():
    sliced = torch.tensor([[0.3, -1.2]], requires_grad=True)
    padded = torch.tensor([[0.3, -1.2, -INF, -INF]], requires_grad=True)
    loss = label_cross_entropy(sliced, gold([0, 1])).sum()
    padded_loss = label_cross_entropy(padded, gold([0, 1, 0, 0])).sum()
    assert padded_loss.item() == pytest.approx(loss.item())
    (loss + padded_loss).backward()
    assert padded.grad[0, :2].tolist() == pytest.approx(sliced.grad[0].tolist())
    assert padded.grad[0, 2:].tolist() == [0, 0]


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_label_gradient_is_finite(scale):
    logits = torch.tensor([[-scale, scale, 0.0, -INF]], requires_grad=True)
    label_cross_entropy(logits, gold([1, 0, 1, 0])).sum().backward()
    assert logits.grad.isfinite().all()
    # softmax minus its share among the gold classes
    probs = logits.detach().softmax(-1)
    among = (logits.detach() + torch.tensor([[0.0, -INF, 0.0, 0.0]])).softmax(-1)
    torch.testing.assert_close(logits.grad, probs - among)


def test_label_loss_is_computed_in_float32():
    logits = torch.tensor([[30.0, 29.9]], dtype=torch.bfloat16)
    loss = label_cross_entropy(logits, gold([1, 0]))
    assert loss.dtype == torch.float32
    exact = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0]))
    assert loss.item() == pytest.approx(exact.item(), abs=1e-6)


def test_token_loss_by_hand():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    expected = [math.log(4 / 3), math.log(2)]
    assert token_cross_entropy(logits, torch.tensor([0, 1])).tolist() == pytest.approx(expected)


def test_token_loss_of_no_tokens_is_empty_with_a_gradient():
    logits = torch.zeros(0, 8, requires_grad=True)
    loss = token_cross_entropy(logits, torch.zeros(0, dtype=torch.long))
    assert loss.shape == (0,)
    loss.sum().backward()
    assert logits.grad.shape == (0, 8)


def test_token_gradient_is_finite_and_computed_in_float32():
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = token_cross_entropy(logits, torch.tensor([1]))
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert logits.grad.isfinite().all()
