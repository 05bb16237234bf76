"""Settings that cannot work are refused before anything is loaded, by the flag's name."""

from __future__ import annotations

import pytest

from dhrd_plugin.errors import EXIT_BAD_INPUT, DHRDError
from distill.config import DistillConfig

NAN = float("nan")
INF = float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -1.0}, "--alpha -1 --beta 1: both are weights"),
        ({"beta": -0.5}, "--alpha 1 --beta -0.5: both are weights"),
        ({"alpha": 0, "beta": 0}, "--alpha 0 --beta 0: .*one must be above 0"),
        ({"alpha": NAN}, "--alpha nan"),
        ({"beta": NAN}, "--beta nan"),
        ({"alpha": INF}, "--alpha inf"),
        ({"rationales": ()}, "The reasoning loss needs --rationales"),
        ({"tasks": ()}, "--task names no task"),
        ({"tasks": ("cb", "rte", "cb")}, "--task cb,rte,cb: a task is named twice"),
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"grad_accum": -2}, "--grad-accum -2"),
        ({"max_steps": 0}, "--max-steps 0"),
        ({"save_steps": 0}, "--save-steps 0"),
        ({"dev_rows": 0}, "--dev-rows 0"),
        ({"warmup_steps": -1}, "--warmup-steps -1"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1"),
        ({"weight_decay": NAN}, "--weight-decay nan"),
        ({"max_grad_norm": 0.0}, "--max-grad-norm 0"),
        ({"max_grad_norm": NAN}, "--max-grad-norm nan"),
        ({"lora_dropout": 1.0}, "--lora-dropout 1"),
        ({"lora_dropout": -0.1}, "--lora-dropout -0.1"),
        ({"lr": 0.0}, "--lr 0"),
        ({"lr": NAN}, "--lr nan"),
        ({"lr": INF}, "--lr inf"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296"),
        ({"max_length": 15}, "--max-length 15: need at least 16"),
        ({"eval_steps": 0}, "--eval-steps 0"),
        ({"patience": 0}, "--patience 0"),
        ({"alpha_end": -0.1, "alpha_schedule": "step"}, "--alpha-end -0.1"),
        ({"alpha_end": 0.5}, "--alpha-end has no effect without --alpha-schedule"),
        ({"alpha": 0, "control": "noise"}, "--control has no effect .*rationales are not read"),
        ({"alpha": 0, "lm_span": "rationale"}, "--lm-span has no effect without an --alpha"),
        ({"sampling_temperature": 3.0}, "--sampling-temperature has no effect"),
        ({"full": True, "lora_dropout": 0.0}, "--lora-dropout has no effect .*--full"),
        ({"full": True, "lora_target": ("q_proj",)}, "--lora-target has no effect .*--full"),
        ({"full": True, "qlora": True}, "--full trains the weights that --qlora freezes"),
        (
            {"sampling_temperature": 0.0, "task_sampling": "temperature"},
            "--sampling-temperature 0: need",
        ),
        ({"kd_temperature": 0.0}, "--kd-temperature 0"),
        ({"kd_temperature": NAN}, "--kd-temperature nan"),
        ({"kd_temperature": 2.0, "kd_weight": 0.0}, "--kd-weight 0"),
        ({"kd_weight": 0.5}, "--kd-weight has no effect without --kd-temperature"),
        ({"kd_target": "label"}, "--kd-target has no effect without --kd-temperature"),
        ({"kd_teacher": "smollm2"}, "--kd-teacher has no effect without --kd-temperature"),
        ({"kd_divergence": "jsd"}, "--kd-divergence has no effect without --kd-teacher"),
        ({"kd_temperature": 2.0, "kd_target": "token"}, "--kd-target token needs --kd-teacher"),
        ({"kd_temperature": 2.0, "kd_target": "both"}, "--kd-target both needs --kd-teacher"),
        (
            {"kd_temperature": 2.0, "kd_target": "label", "kd_teacher": "smollm2"},
            "--kd-target label does not use --kd-teacher",
        ),
    ],
)
def test_impossible_setting_is_named(changes, message):
    with pytest.raises(DHRDError, match=message) as refusal:
        DistillConfig(**changes)
    assert refusal.value.exit_code == EXIT_BAD_INPUT
    assert len(str(refusal.value).splitlines()) < 6


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 0, "rationales": ()},
        {"beta": 0},
        {"epochs": 1, "batch_size": 1, "grad_accum": 1, "max_steps": 1, "save_steps": 1},
        {"dev_rows": 1, "warmup_steps": 0, "weight_decay": 0, "lora_dropout": 0, "max_length": 16},
        {"max_grad_norm": INF},
        {"alpha": 0, "kd_temperature": 0.5, "kd_weight": 2.0, "kd_target": "label"},
        {"kd_temperature": 2.0, "kd_teacher": "smollm2", "kd_divergence": "jsd"},
        {"eval_steps": 1, "patience": 1, "alpha_end": 0, "alpha_schedule": "cosine"},
        {"alpha": 0, "alpha_schedule": "linear", "alpha_end": 0.5, "control": "noise"},
        {"alpha": 0, "kd_temperature": 2.0, "kd_teacher": "m", "control": "only-label"},
    ],
)
def test_edge_of_what_is_possible_is_accepted(changes):
    DistillConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "kd", "setting"),
    [
        ({"alpha": 0, "seed": 3}, (), "pooled (α=0)"),
        ({"alpha": 0.5, "seed": 1}, (), "DHRD (α=0.5 β=1)"),
        ({"alpha_schedule": "linear"}, (), "DHRD (α=1→0 linear β=1)"),
        ({"lm_span": "rationale", "control": "noise"}, (), "DHRD (α=1 β=1, rationale span, noise)"),
        ({"alpha": 0, "kd_temperature": 2}, ("kd_label",), "pooled (α=0, label KD γ=1 T=2)"),
        ({"alpha": 0, "kd_temperature": 2}, ("kd_token",), "DHRD (α=0, token KD γ=1 T=2)"),
        (
            {"alpha": 0, "alpha_schedule": "linear", "alpha_end": 0.5},
            (),
            "DHRD (α=0→0.5 linear β=1)",
        ),
        (
            {"kd_temperature": 4, "kd_weight": 0.5, "kd_divergence": "jsd", "kd_teacher": "m"},
            ("kd_label", "kd_token"),
            "DHRD (α=1 β=1, label+token KD γ=0.5 T=4, jsd)",
        ),
    ],
)
def test_setting_names_what_was_trained_whatever_the_seed(changes, kd, setting):
    assert DistillConfig(**{"alpha": 1, **changes}).setting(kd) == setting


def test_alpha_follows_its_schedule():
    config = DistillConfig(alpha=2, alpha_schedule="linear", alpha_end=1)
    assert [config.alpha_at(step, 3) for step in (1, 2, 3)] == [2, 1.5, 1]
    assert DistillConfig(alpha=2).alpha_at(3, 3) == 2


def test_defaults_follow_the_backbones_size():
    small, large = (DistillConfig().for_backbone(n) for n in (135_000_000, 3_000_000_000))
    assert (small.alpha, small.lr) == (0.1, 1e-3)
    assert (large.alpha, large.lr) == (1.0, 2e-4)
    given = DistillConfig(alpha=0, lr=3e-5).for_backbone(3_000_000_000)
    assert (given.alpha, given.lr) == (0, 3e-5)


def test_weight_is_unknown_before_the_backbone():
    with pytest.raises(ValueError, match="for_backbone"):
        DistillConfig().setting()
