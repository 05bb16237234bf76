"""On the demo task a student learns 32 rows by heart, with each loss switched on."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from accelerate import Accelerator
from conftest import REPO
from tiny_models import tiny_lm

from dhrd_plugin.backbones import load_tokenizer
from dhrd_plugin.batching import Encoder
from dhrd_plugin.modeling import DualHeadModel
from dhrd_plugin.scoring import score
from distill.data import load_training_data
from distill.objective import Objective
from distill.soft_targets import TokenTeacher
from distill.step import train_step
from distill.train import encode_rows

PAD = 257


@pytest.fixture(scope="module")
def scenes(tiny_backbone, tmp_path_factory):
    """32 rows of `scenes` with rationales and a teacher's distribution, as token ids."""
    lines = [json.loads(line) for line in (REPO / "tasks/scenes/rationales.jsonl").open()]
    docs = [json.loads(line) for line in (REPO / "tasks/scenes/data/train.jsonl").open()]
    for line in lines:
        probs = [0.1, 0.1, 0.1]
        probs[docs[line["index"]]["label"]] = 0.8
        line["label_probs"] = probs
    path = tmp_path_factory.mktemp("scenes") / "r.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = load_training_data(("scenes",), (path,), dev_rows=60, seed=0)
    tokenizer = load_tokenizer(tiny_backbone)
    rows = encode_rows(Encoder(tokenizer, ["scenes"], 1024), data, with_suffix=True)[:32]
    assert set(Counter(min(row.gold) for row in rows)) == {0, 1, 2}
    return rows


@pytest.mark.parametrize("extra", ["none", "reason", "kd_label", "kd_token"])
def test_student_learns_rows_by_heart(scenes, extra):
    torch.manual_seed(0)
    model = DualHeadModel(tiny_lm(), head_kind="mlp", n_outputs={"scenes": 3})
    teacher = TokenTeacher(tiny_lm("GPT2"), 258) if extra == "kd_token" else None
    weights = {"cls": 1.0} | ({} if extra == "none" else {extra: 1.0})
    objective = Objective(weights, temperature=2.0, token_teacher=teacher)
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        result = train_step(
            model,
            scenes,
            accelerator=accelerator,
            optimizer=optimizer,
            objective=objective,
            batch_size=32,
            max_grad_norm=1.0,
            pad_token_id=PAD,
        )
        if result.losses["loss_cls"] < 0.1:
            break
    log_probs = score(model, scenes, batch_size=32, pad_token_id=PAD)
    predicted = [values.index(max(values)) for values in log_probs]
    assert predicted == [min(row.gold) for row in scenes], result.losses
