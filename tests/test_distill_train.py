"""What trains, and whole runs of seconds."""

from __future__ import annotations

import itertools

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from conftest import make_tokenizer, read_log
from safetensors.torch import load_file
from tiny_models import tiny_lm
from transformers.models.llama.modeling_llama import LlamaMLP

from dhrd_plugin.backbones import load_tokenizer
from dhrd_plugin.batching import Encoder
from dhrd_plugin.checkpoint import load_student
from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, DHRDError
from dhrd_plugin.scoring import score
from distill import objective
from distill import train as training
from distill.data import load_training_data
from distill.dev import DevSet
from distill.objective import build_objective
from distill.step import train_step
from distill.student import build_student, load_backbone, resolve_dtype
from distill.train import encode_rows, step_seed, train

PAD = 257


# What trains


def train_two_steps(config):
    """(parameters before, after, those meant to train) of two steps without weight decay."""
    data = load_training_data(
        config.tasks,
        config.rationales,
        dev_rows=4,
        seed=0,
        include_path=config.include_path,
    )
    tokenizer = load_tokenizer(config.backbone)
    lm = load_backbone(config, len(tokenizer), torch.float32)
    config = config.for_backbone(lm.num_parameters())
    model = build_student(lm, config, data.heads)
    rows = encode_rows(Encoder(tokenizer, list(data.heads), 400), data, with_suffix=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):  # LoRA's A moves once its B has left zero
        train_step(
            model,
            rows[:8],
            accelerator=Accelerator(cpu=True),
            optimizer=optimizer,
            objective=build_objective(config, (), tokenizer, dtype=None, device=None),
            batch_size=8,
            max_grad_norm=1,
            pad_token_id=PAD,
        )
    after = dict(model.named_parameters())
    return {name for name, value in before.items() if not torch.equal(after[name], value)}, after


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({}, lambda name: "lora_" in name or name.startswith("heads.")),
        ({"head": "linear"}, lambda name: "lora_" in name or name.startswith("heads.")),
        ({"full": True}, lambda _: True),
        ({"full": True, "untied": True, "alpha": 0}, lambda name: name != "lm.lm_head.weight"),
        ({"full": True, "untied": True}, lambda _: True),
    ],
)
def test_exactly_the_parameters_meant_to_train_change(
    distill_config, untied_backbone, tmp_path, changes, meant
):
    if changes.pop("untied", False):
        changes |= {"backbone": untied_backbone, "max_length": 512}
    changed, parameters = train_two_steps(distill_config(tmp_path, **changes))
    expected = {name for name in parameters if meant(name)}
    assert changed - expected == set(), "changed, though frozen"
    assert expected - changed == set(), "meant to train, and did not"
    assert {name for name, p in parameters.items() if p.requires_grad} == expected


@pytest.mark.parametrize(
    ("family", "adapters"), [("GPT2", 2 * 4), ("GPTNeoX", 2 * 4), ("Mamba", 2 * 1)]
)
def test_lora_finds_the_layers_of_other_families(distill_config, tmp_path, family, adapters):
    tiny_lm(family).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    config = distill_config(tmp_path / "out", backbone=str(tmp_path), max_length=512)
    changed, parameters = train_two_steps(config)
    assert changed == {n for n in parameters if "lora_" in n or n.startswith("heads.")}
    assert len([name for name in changed if "lora_" in name]) == 2 * adapters  # A and B


def test_lora_targets_may_be_named(distill_config, tmp_path):
    changed, _ = train_two_steps(distill_config(tmp_path, lora_target=("q_proj", "v_proj")))
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in changed if "lora_" in name}
    assert adapted == {"q_proj", "v_proj"}


def test_lora_target_that_is_not_there_is_an_error(distill_config, tmp_path):
    with pytest.raises(DHRDError, match="--lora-target c_attn: ") as refusal:
        train(distill_config(tmp_path, lora_target=("c_attn",)))
    assert refusal.value.exit_code == EXIT_BAD_INPUT


def test_gradient_checkpointing_recomputes_and_trains_the_same(
    distill_config, tmp_path, monkeypatch
):
    calls = []
    real = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: calls.append(1) or real(self, x))
    losses, n_calls = [], []
    for checkpointing in (False, True):
        calls.clear()
        folder = tmp_path / str(checkpointing)
        changes = {"gradient_checkpointing": checkpointing, "max_steps": 3, "lora_dropout": 0.0}
        train(distill_config(folder, **changes))
        losses.append([entry["loss"] for entry in read_log(folder)])
        n_calls.append(len(calls))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert n_calls[1] >= 1.4 * n_calls[0]  # the dev rows need no second pass


def test_sharded_training_is_refused(distill_config, tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "distributed_type", property(lambda _: DistributedType.FSDP))
    with pytest.raises(DHRDError, match=r"FSDP shards the weights.*--qlora"):
        train(distill_config(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_dropout_is_a_function_of_seed_step_and_process():
    seeds = {step_seed(*key) for key in itertools.product((0, 1, 2**32 - 1), (1, 2), (0, 1))}
    assert len(seeds) == 12 and all(0 <= seed < 2**64 for seed in seeds)
    for seed in seeds:
        torch.manual_seed(seed)


# Whole runs


@pytest.mark.parametrize("alpha", [0, 1])
def test_student_learns_the_task(distill_config, tmp_path, alpha):
    train(distill_config(tmp_path, alpha=alpha, epochs=12, lora_dropout=0.0))
    log = read_log(tmp_path)
    assert log[0]["loss_cls"] > 0.6
    assert log[-1]["loss_cls"] < 0.1
    if alpha:
        assert log[-1]["loss_reason"] < log[0]["loss_reason"] - 0.2
    else:
        assert not any("loss_reason" in entry for entry in log)


def test_log_has_a_line_per_step_and_dev_results_per_epoch(distill_config, tmp_path):
    reported = []
    student = train(distill_config(tmp_path, warmup_steps=4), report=reported.append)
    log = read_log(tmp_path)
    assert [entry["step"] for entry in log] == list(range(1, 11)) == [r.step for r in reported]
    assert [entry["epoch"] for entry in log] == pytest.approx([s / 5 for s in range(1, 11)])
    assert [entry["step"] for entry in log if "dev" in entry] == [5, 10]
    peak = max(entry["lr"] for entry in log)
    assert [entry["lr"] for entry in log[:4]] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert peak == 0.01 and log[-1]["lr"] == pytest.approx(0)
    assert all(entry["loss"] == entry["loss_cls"] + entry["loss_reason"] for entry in log)
    assert student.training["steps"] == 10 == reported[0].total_steps
    assert student.training["train_rows"] == 36 and student.training["dev_rows"] == 4


def test_max_steps_ends_a_run_with_a_dev_result(distill_config, tmp_path):
    student = train(distill_config(tmp_path, max_steps=3))
    assert [("dev" in entry) for entry in read_log(tmp_path)] == [False, False, True]
    assert student.training["dev"]["step"] == 3


def test_best_checkpoint_is_the_one_saved(distill_config, tmp_path, monkeypatch):
    """Higher score first, then likelihood; of equals the earlier one."""
    script = [(0.5, 0.1), (0.75, 0.9), (0.75, 0.4), (0.75, 0.4), (0.5, 0.0)]
    states = []
    real = training.score

    def score(model, *args, **kwargs):
        states.append({k: v.clone() for k, v in model.heads.state_dict().items()})
        return real(model, *args, **kwargs)

    def judge(self, log_probs):
        score, nll = script[len(states) - 1]
        return {"metrics": {"made_weather": {"acc": score}}, "score": score, "nll": nll}

    monkeypatch.setattr(training, "score", score)
    monkeypatch.setattr(DevSet, "judge", judge)
    student = train(distill_config(tmp_path, epochs=5))
    result = {key: student.training["dev"][key] for key in ("score", "nll", "step")}
    assert result == {"score": 0.75, "nll": 0.4, "step": 15}
    saved = load_file(tmp_path / "head.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in states[2].items())
    assert not any(torch.equal(states[2][name], value) for name, value in states[3].items())


def test_training_stops_when_the_dev_rows_have_had_enough(distill_config, tmp_path, monkeypatch):
    nlls = iter([0.5, 0.4, 0.4, 0.6, 0.1])
    monkeypatch.setattr(
        DevSet,
        "judge",
        lambda *_: {"metrics": {"made_weather": {"acc": 0.5}}, "score": 0.5, "nll": next(nlls)},
    )
    student = train(distill_config(tmp_path, epochs=9, eval_steps=3, patience=2))
    assert student.training["steps"] == 12 and student.training["dev"]["step"] == 6
    log = read_log(tmp_path)
    assert [entry["step"] for entry in log if "dev" in entry] == [3, 6, 9, 12] and len(log) == 12


def test_dev_result_is_that_of_the_saved_student(distill_config, made_tasks, tmp_path):
    config = distill_config(tmp_path, tasks=("made_weather", "made_because"), epochs=3)
    trained = train(config)
    model, tokenizer, student = load_student(tmp_path)
    data = load_training_data(
        config.tasks, config.rationales, dev_rows=4, seed=0, include_path=str(made_tasks)
    )
    rows = [Encoder(tokenizer, list(student.tasks), 1024).encode(d) for d in data.dev]
    log_probs = score(model, rows, batch_size=3, pad_token_id=PAD)
    dev = DevSet(data.tasks, rows, data.dev_docs)
    result = dev.judge(log_probs)
    expected = trained.training["dev"]
    assert result["metrics"] == expected["metrics"]
    assert result["nll"] == pytest.approx(expected["nll"], abs=1e-5)
    temperatures = {task: head.temperature for task, head in student.tasks.items()}
    fitted = {task: fit["temperature"] for task, fit in dev.calibrate(log_probs).items()}
    assert temperatures == pytest.approx(fitted, rel=1e-3)
    assert temperatures.keys() == student.training["calibration"].keys()


def test_every_epoch_reads_every_row_once(distill_config, tmp_path, monkeypatch):
    seen = []
    real = training.train_step

    def spy(model, rows, **kwargs):
        seen.append([tuple(row.inputs[0]) for row in rows])
        return real(model, rows, **kwargs)

    monkeypatch.setattr(training, "train_step", spy)
    train(distill_config(tmp_path, grad_accum=2))
    assert [len(window) for window in seen] == [16, 16, 4, 16, 16, 4]
    first, second = ([row for window in part for row in window] for part in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) and len(set(first)) == 36
    assert first != second


def test_two_runs_give_the_same_student_and_another_seed_another(distill_config, tmp_path):
    students = [
        train(distill_config(tmp_path / str(i), seed=seed, max_steps=2))
        for i, seed in enumerate((0, 0, 1))
    ]
    prints = [student.fingerprint for student in students]
    assert prints[0] == prints[1] != prints[2]


def test_low_precision_run_keeps_the_trained_weights_in_float32(distill_config, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)  # one precision per process
    try:
        student = train(distill_config(tmp_path, dtype="bfloat16", max_steps=2))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert student.dtype == "bfloat16"
    model, _, _ = load_student(tmp_path)
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    assert dtypes["lm.base_model.model.model.embed_tokens.weight"] == torch.bfloat16
    trained = [name for name in dtypes if "lora_" in name or name.startswith("heads")]
    assert trained and {dtypes[name] for name in trained} == {torch.float32}


def test_loss_that_is_not_finite_names_the_row(distill_config, tmp_path, monkeypatch):
    real = objective.label_cross_entropy
    calls = []

    def breaks_late(logits, gold):
        calls.append(1)
        losses = real(logits, gold)
        if len(calls) > 3 and len(losses) > 1:  # a whole batch; of single rows, the third only
            return losses * float("nan")
        return losses * (float("nan") if len(calls) == 4 + 3 else 1)

    monkeypatch.setattr(objective, "label_cross_entropy", breaks_late)
    message = r"Step 4 is not finite.*on rows made_weather/train/\d+\n"
    with pytest.raises(DHRDError, match=message) as failure:
        train(distill_config(tmp_path, save_steps=2))
    assert failure.value.exit_code == EXIT_FAILED
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_too_long_for_the_backbones_positions_is_refused(distill_config, untied_backbone, tmp_path):
    config = distill_config(tmp_path, backbone=untied_backbone, max_length=513)
    with pytest.raises(DHRDError, match=r"--max-length 513.*512 tokens") as refusal:
        train(config)
    assert refusal.value.exit_code == EXIT_BAD_INPUT


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_precision_is_bfloat16_where_the_cpu_has_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_dtype("auto") == dtype
    assert resolve_dtype("float32") == torch.float32
    assert resolve_dtype("bfloat16") == torch.bfloat16
