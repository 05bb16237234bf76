"""Losses against hand-computed values; gradients stay finite whatever is masked."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from distill import losses
from distill.losses import (
    label_cross_entropy,
    soft_label_kl,
    token_cross_entropy,
    token_divergence,
)

INF = float("inf")


def gold(*rows):
    return torch.tensor(rows, dtype=torch.bool)


def test_examples_in_docstrings_hold():
    result = doctest.testmod(losses)
    assert result.attempted >= 9
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


# Soft targets


def test_soft_label_kl_by_hand():
    """Student softmax(z/2) = (1/5, 4/5); teacher (16, 1)/17 softened to (4, 1)/5."""
    logits = torch.tensor([[0.0, 2 * math.log(4)]])
    probs = torch.tensor([[16 / 17, 1 / 17]])
    expected = 0.8 * math.log(0.8 / 0.2) + 0.2 * math.log(0.2 / 0.8)
    assert soft_label_kl(logits, probs, 2.0).tolist() == pytest.approx([expected])
    assert soft_label_kl(logits, probs, 2.0).item() != pytest.approx(
        soft_label_kl(logits, probs, 1.0).item()
    )


def test_soft_label_kl_is_the_librarys():
    torch.manual_seed(0)
    logits, probs = torch.randn(5, 4), torch.randn(5, 4).softmax(-1)
    expected = torch.nn.functional.kl_div(
        (logits / 3).log_softmax(-1), (probs.log() / 3).softmax(-1), reduction="none"
    ).sum(-1)
    torch.testing.assert_close(soft_label_kl(logits, probs, 3.0), expected)


def test_soft_label_kl_with_a_certain_teacher_is_cross_entropy():
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    certain = torch.tensor([[0.0, 1.0, 0.0]])
    torch.testing.assert_close(
        soft_label_kl(logits, certain, 1.0), label_cross_entropy(logits, gold([0, 1, 0]))
    )


def test_soft_label_kl_is_zero_where_the_student_agrees():
    probs = torch.tensor([[0.7, 0.2, 0.1]])
    assert soft_label_kl(probs.log() + 5, probs, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_soft_label_kl_of_padded_columns_is_that_of_the_slice():
    sliced = torch.tensor([[0.3, -1.2]], requires_grad=True)
    padded = torch.tensor([[0.3, -1.2, -INF]], requires_grad=True)
    probs = torch.tensor([[0.6, 0.4]])
    loss = soft_label_kl(sliced, probs, 2.0)
    padded_loss = soft_label_kl(padded, torch.tensor([[0.6, 0.4, 0.0]]), 2.0)
    torch.testing.assert_close(padded_loss, loss)
    (loss + padded_loss).sum().backward()
    torch.testing.assert_close(padded.grad[:, :2], sliced.grad)
    assert padded.grad[0, 2] == 0


def test_rows_without_soft_label_add_nothing():
    logits = torch.tensor([[5.0, -5.0, -INF], [1.0, 2.0, 3.0]], requires_grad=True)
    loss = soft_label_kl(logits, torch.zeros(2, 3), 2.0)
    assert loss.tolist() == [0, 0]
    loss.sum().backward()
    assert logits.grad.tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [
        ("forward", 0.8 * math.log(4) + 0.2 * math.log(1 / 4)),
        ("reverse", 0.2 * math.log(1 / 4) + 0.8 * math.log(4)),
        ("jsd", 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)),
    ],
)
def test_token_divergence_by_hand(divergence, expected):
    """At T = 2 the teacher's (16 : 1) is (0.8, 0.2) and the student's the other way round."""
    teacher = torch.tensor([[2 * math.log(4), 0.0]])
    student = torch.tensor([[0.0, 2 * math.log(4)]])
    got = token_divergence(student, teacher, 2.0, divergence)
    assert got.tolist() == pytest.approx([expected])


def test_forward_and_reverse_are_each_others_mirror():
    torch.manual_seed(0)
    ours, theirs = torch.randn(6, 9), torch.randn(6, 9)
    forward = token_divergence(ours, theirs, 1.5, "forward")
    torch.testing.assert_close(token_divergence(theirs, ours, 1.5, "reverse"), forward)
    assert not torch.allclose(token_divergence(ours, theirs, 1.5, "reverse"), forward)


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jsd"])
def test_token_divergence_is_finite_at_the_extremes_and_zero_between_equals(divergence):
    extreme = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = token_divergence(extreme, -extreme.detach(), 1.0, divergence)
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert extreme.grad.isfinite().all() and loss.isfinite().all()
    if divergence == "jsd":
        assert loss.item() <= math.log(2) + 1e-6
    same = torch.randn(3, 5)
    assert token_divergence(same, same + 1, 2.0, divergence).abs().max() < 1e-6


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jsd"])
def test_token_divergence_of_no_tokens_is_empty_with_a_gradient(divergence):
    logits = torch.zeros(0, 8, requires_grad=True)
    loss = token_divergence(logits, torch.zeros(0, 8), 2.0, divergence)
    assert loss.shape == (0,)
    loss.sum().backward()
    assert logits.grad.shape == (0, 8)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_factor_t_squared_keeps_the_gradients_size(temperature):
    """Hinton et al.: for small logits T² times the gradient is that of T = 1."""
    logits = torch.tensor([[1e-3, -1e-3]], requires_grad=True)
    teacher = torch.tensor([[2e-3, -3e-3]])
    loss = token_divergence(logits, teacher, temperature, "forward").sum()
    (temperature**2 * loss).backward()
    assert logits.grad[0, 0].item() == pytest.approx(-0.75e-3, rel=1e-2)
