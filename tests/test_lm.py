"""`--model dhrd` in the harness: what it answers."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from conftest import STUDENT_TASKS as TASKS
from harness_runs import answers, evaluate, made_manager, requests
from lm_eval.tasks import TaskManager

from dhrd_plugin import lm as lm_module
from dhrd_plugin.batching import Encoder
from dhrd_plugin.checkpoint import load_student, read_student_config
from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task
from dhrd_plugin.lm import DHRDLM
from dhrd_plugin.scoring import score
from distill.train import train

LIMIT = 24


@pytest.fixture(scope="module")
def tasks(made_tasks):
    return made_manager(made_tasks)


@pytest.fixture(scope="module")
def model(student, made_tasks):
    return DHRDLM(str(student), batch_size=5, include_path=str(made_tasks))


@pytest.fixture(scope="module")
def results(model, tasks):
    return evaluate(model, *TASKS, task_manager=tasks, limit=LIMIT)


@pytest.mark.parametrize("task", TASKS)
def test_accuracy_is_that_of_the_scored_decisions(results, student, made_tasks, task):
    dual_head, tokenizer, config = load_student(student, merge=True)
    decisions = load_decisions(load_task(task, str(made_tasks)), "validation", LIMIT).decisions
    encoder = Encoder(tokenizer, list(config.tasks), config.max_length)
    scored = score(
        dual_head, [encoder.encode(d) for d in decisions], batch_size=3, pad_token_id=257
    )
    right = [
        values.index(max(values)) in decision.gold
        for values, decision in zip(scored, decisions, strict=True)
    ]
    assert results["results"][task]["acc,none"] == pytest.approx(sum(right) / len(right))
    got = answers(results, task)
    assert len(got) == len(decisions)
    for values, expected in zip(got, scored, strict=True):
        assert values == pytest.approx(expected, abs=1e-5)
        assert sum(map(math.exp, values)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_accuracy_is_that_of_the_logged_samples(results, task):
    samples = results["samples"][task]
    right = 0
    for sample in samples:
        values = [resp[0][0] for resp in sample["resps"]]
        greedy = [resp[0][1] for resp in sample["resps"]]
        assert greedy == [value == max(values) for value in values]
        right += values.index(max(values)) == int(sample["target"])
    assert results["results"][task]["acc,none"] == pytest.approx(right / len(samples))
    assert len({round(values[0], 4) for values in answers(results, task)}) > 4  # they do differ


def test_student_is_found_by_name_and_batch_size_does_not_matter(
    results, student, made_tasks, tasks
):
    by_name = evaluate(
        "dhrd",
        "scenes",
        "made_because",
        model_args={"pretrained": str(student), "include_path": str(made_tasks)},
        batch_size="auto",
        max_batch_size=7,
        device="cpu",
        task_manager=tasks,
        limit=LIMIT,
    )
    for task in ("scenes", "made_because"):
        for got, expected in zip(answers(by_name, task), answers(results, task), strict=True):
            assert got == pytest.approx(expected, abs=1e-5)


def test_automatic_batch_size_halves_until_it_fits(student, made_tasks, tasks, monkeypatch):
    sizes = []
    real = lm_module.score

    def fits_three(model, encoded, *, batch_size, **kwargs):
        sizes.append(batch_size)
        if batch_size > 3:
            raise RuntimeError("CUDA out of memory.")
        return real(model, encoded, batch_size=batch_size, **kwargs)

    monkeypatch.setattr(lm_module, "score", fits_three)
    auto = DHRDLM(str(student), batch_size="auto", max_batch_size=8, include_path=str(made_tasks))
    got = auto.loglikelihood(requests(tasks, "made_because"))
    assert sizes[-1] <= 3 and sizes[0] == 8
    assert len(got) == 16


def test_lm_head_never_runs_for_choices(student, made_tasks, tasks):
    model = DHRDLM(str(student), include_path=str(made_tasks))

    def fail(*_):
        raise AssertionError("the LM head ran")

    model.model.get_output_embeddings().register_forward_pre_hook(fail)
    assert len(model.loglikelihood(requests(tasks, "made_weather"))) == 16
    with pytest.raises(AssertionError, match="the LM head ran"):
        model.model(torch.tensor([[1, 2]]))


def test_unmerged_adapter_gives_the_logits_of_training(model, student, made_tasks, tasks):
    assert not [name for name, _ in model.dual_heads[0].named_parameters() if "lora" in name]
    model = DHRDLM(str(student), merge=False, batch_size=3, include_path=str(made_tasks))
    assert [name for name, _ in model.dual_heads[0].named_parameters() if "lora" in name]
    got = model.loglikelihood(requests(tasks, "made_weather"))
    dual_head, tokenizer, config = load_student(student)
    decisions = load_decisions(load_task("made_weather", str(made_tasks)), "validation").decisions
    encoded = [Encoder(tokenizer, list(config.tasks), 1024).encode(d) for d in decisions]
    scored = score(dual_head, encoded, batch_size=3, pad_token_id=257)
    assert [value for value, _ in got] == [value for values in scored for value in values]


def test_calibrated_answers_are_those_at_the_stored_temperature(
    model, student, made_tasks, tasks, tmp_path
):
    """Another temperature per task; which choice is the most probable stays as it is."""
    folder = shutil.copytree(student, tmp_path / "student")
    description = json.loads((folder / "dhrd.json").read_text())
    for task, temperature in (("made_weather", 2.0), ("made_because", 0.5)):
        description["tasks"][task]["temperature"] = temperature
    (folder / "dhrd.json").write_text(json.dumps(description))
    plain = DHRDLM(str(folder), include_path=str(made_tasks))
    calibrated = DHRDLM(str(folder), calibrated=True, include_path=str(made_tasks))
    for task, temperature in (("made_weather", 2.0), ("made_because", 0.5)):
        raw = model.loglikelihood(requests(tasks, task))
        same = [value for value, _ in plain.loglikelihood(requests(tasks, task))]
        assert same == pytest.approx([value for value, _ in raw], abs=1e-5)
        got = calibrated.loglikelihood(requests(tasks, task))
        assert [greedy for _, greedy in got] == [greedy for _, greedy in raw]
        values = torch.tensor([value for value, _ in raw]).view(-1, 2)
        expected = (values / temperature).log_softmax(-1).flatten().tolist()
        assert [value for value, _ in got] == pytest.approx(expected, abs=1e-4)
        assert not torch.allclose(torch.tensor(expected), values.flatten(), atol=1e-4)


def test_fully_trained_student_answers_too(distill_config, made_tasks, tmp_path, tasks):
    train(distill_config(tmp_path, full=True, head="linear", max_steps=2))
    model = DHRDLM(str(tmp_path), include_path=str(made_tasks))
    got = model.loglikelihood(requests(tasks, "made_weather"))
    dual_head, tokenizer, config = load_student(tmp_path)
    decisions = load_decisions(load_task("made_weather", str(made_tasks)), "validation").decisions
    encoded = [Encoder(tokenizer, list(config.tasks), 1024).encode(d) for d in decisions]
    scored = score(dual_head, encoded, batch_size=1, pad_token_id=257)
    assert [value for value, _ in got] == [value for values in scored for value in values]


def test_request_cache_is_refused(model, tasks, tmp_path):
    with pytest.raises(DHRDError, match="--use_cache"):
        evaluate(model, "scenes", task_manager=tasks, limit=2, use_cache=str(tmp_path / "cache"))


def test_predict_only_logs_the_distribution_and_no_metric(results, model, tasks):
    got = evaluate(model, "made_because", task_manager=tasks, limit=LIMIT, predict_only=True)
    assert not [key for key in got["results"]["made_because"] if "," in key]
    expected = answers(results, "made_because")
    assert answers(got, "made_because") == [pytest.approx(v, abs=1e-5) for v in expected]


# Decoding


def test_generation_runs_the_reasoning_head(model, tmp_path):
    """The harness decodes with the student's own language model, adapter included."""
    (tmp_path / "made_cot.yaml").write_text(
        f"""
task: made_cot
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {tmp_path}/rows.jsonl}}}}
output_type: generate_until
validation_split: validation
doc_to_text: "{{{{text}}}}"
doc_to_target: "no"
generation_kwargs: {{until: ["<eos>"], max_gen_toks: 6, do_sample: false}}
metric_list:
  - metric: exact_match
"""
    )
    (tmp_path / "rows.jsonl").write_text('{"text": "Here: Rain falls."}\n')
    calls = []
    handle = model.model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    got = evaluate(model, "made_cot", task_manager=manager)
    handle.remove()
    (sample,) = got["samples"]["made_cot"]
    ids = model.tokenizer("Here: Rain falls.", return_tensors="pt").input_ids
    for _ in range(6):
        with torch.no_grad():
            ids = torch.cat([ids, model.model(ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = model.tokenizer.decode(ids[0, -6:]).split("<eos>")[0]
    assert sample["resps"][0][0] == expected
    assert len(calls) > 0


def test_results_tell_who_the_student_is(results, student):
    config = read_student_config(student)
    facts = results["config"]["dhrd"]
    assert facts["fingerprint"] == config.fingerprint
    assert facts["setting"] == "DHRD (α=1 β=1)"
    assert facts["seed"] == 0
    assert facts["tasks"] == list(TASKS)
    assert facts["training"] == config.training
    assert results["config"]["model_num_parameters"] > 0
