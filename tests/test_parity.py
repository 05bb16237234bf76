"""Requests of another shape than trained on are refused; others are answered in any order."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from harness_runs import answers, evaluate, made_manager, requests
from lm_eval.tasks import TaskManager

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.lm import DHRDLM

CHAT_TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def tasks(made_tasks):
    return made_manager(made_tasks)


@pytest.fixture(scope="module")
def model(student, made_tasks):
    return DHRDLM(str(student), batch_size=5, include_path=str(made_tasks))


@pytest.fixture(scope="module")
def results(model, tasks):
    return evaluate(model, "made_weather", task_manager=tasks)


# Requests, as the harness hands them over


def test_order_and_repeated_requests_do_not_matter(model, tasks):
    asked = requests(tasks, "made_because") + requests(tasks, "made_weather")
    expected = model.loglikelihood(asked)
    mixed = [*asked[::-1], asked[-1], asked[-1], asked[0]]
    got = model.loglikelihood(mixed)
    for (value, greedy), (one, is_best) in zip(
        got, [*expected[::-1], expected[-1], expected[-1], expected[0]], strict=True
    ):
        assert value == pytest.approx(one, abs=1e-5)
        assert greedy is is_best


def test_no_requests_no_answers(model):
    assert model.loglikelihood([]) == []


@pytest.mark.parametrize("task", ["made_weather", "made_because"])
@pytest.mark.parametrize("position", [0, -1])
def test_missing_choice_is_an_error(model, tasks, task, position):
    asked = requests(tasks, task)
    missing = [request for request in asked if request.doc_id == 3][position]
    with pytest.raises(DHRDError, match=f"Task {task}, document 3: some of its choices"):
        model.loglikelihood([request for request in asked if request is not missing])


def test_other_label_words_are_refused(model, tasks):
    asked = requests(tasks, "made_weather")
    for request in asked:
        if request.doc_id == 3:
            request.arguments = (request.args[0], request.args[1].replace("yes", "maybe"))
    with pytest.raises(DHRDError, match=r"document 3: .*\['no', 'maybe'\].*\['no', 'yes'\]"):
        model.loglikelihood(asked)


def own_task(made_tasks, folder, *replacements):
    """made_weather with other lines in its YAML, in `folder`, and a TaskManager that finds it."""
    text = (made_tasks / "made_weather.yaml").read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    (folder / "made_weather.yaml").write_text(text)
    return TaskManager(include_path=str(folder), include_defaults=False)


def test_auxiliary_requests_stay_out_of_the_softmax(model, made_tasks, tmp_path, results):
    more = ("- metric: acc", "- metric: acc\n  - metric: acc_mutual_info")
    got = evaluate(model, "made_weather", task_manager=own_task(made_tasks, tmp_path, more))
    for sample, expected in zip(
        answers(got, "made_weather"), answers(results, "made_weather"), strict=True
    ):
        assert sample[:2] == pytest.approx(expected, abs=1e-5)
        assert sample[2:] == [0, 0]
    scores = got["results"]["made_weather"]
    assert scores["acc_mutual_info,none"] == scores["acc,none"]


# Questions of another shape


def test_few_shot_is_refused(student, made_tasks, tasks):
    model = DHRDLM(str(student), include_path=str(made_tasks))
    with pytest.raises(DHRDError, match=r"not the zero-shot one[\s\S]*Leave out --num_fewshot"):
        evaluate(model, "made_weather", task_manager=tasks, num_fewshot=1, limit=2)


def test_chat_template_is_refused(student, made_tasks, tmp_path, tasks):
    shutil.copytree(student, tmp_path / "chat")
    settings = json.loads((tmp_path / "chat" / "tokenizer_config.json").read_text())
    settings["chat_template"] = CHAT_TEMPLATE
    (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps(settings))
    model = DHRDLM(str(tmp_path / "chat"), include_path=str(made_tasks))
    assert model.tokenizer.chat_template == CHAT_TEMPLATE
    with pytest.raises(DHRDError, match=r"<user>[\s\S]*--apply_chat_template"):
        evaluate(model, "made_weather", task_manager=tasks, apply_chat_template=True, limit=2)


@pytest.mark.parametrize("change", [("version: 1.0", "version: 2.0"), ("Is it wet?", "Wet?")])
def test_other_version_of_a_task_is_refused(student, made_tasks, tmp_path, change):
    manager = own_task(made_tasks, tmp_path, change)
    model = DHRDLM(str(student), include_path=str(tmp_path))
    with pytest.raises(DHRDError, match=r"Task made_weather: its prompt is another one \(version"):
        evaluate(model, "made_weather", limit=2, task_manager=manager)


def test_other_prompt_under_the_trained_name_is_refused(student, made_tasks, tmp_path):
    manager = own_task(made_tasks, tmp_path, ("Is it wet?", "Wet?"))
    model = DHRDLM(str(student), include_path=str(made_tasks))
    with pytest.raises(DHRDError, match=r"Wet\?.*\nneeded\n.*Is it wet\?"):
        evaluate(model, "made_weather", limit=2, task_manager=manager)


def test_task_that_cannot_be_loaded_by_name_has_its_choices_compared(
    student, made_tasks, tmp_path, results, caplog, tasks
):
    model = DHRDLM(str(student))
    with caplog.at_level(logging.WARNING, logger="dhrd_plugin.parity"):
        got = evaluate(model, "made_weather", task_manager=tasks)
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "dhrd_plugin.parity"]
    assert "Task made_weather cannot be loaded by name (Unknown task" in warning
    assert "include_path=FOLDER" in warning
    for values, expected in zip(
        answers(got, "made_weather"), answers(results, "made_weather"), strict=True
    ):
        assert values == pytest.approx(expected, abs=1e-5)
    manager = own_task(made_tasks, tmp_path, ('["no", "yes"]', '["never", "ever"]'))
    with pytest.raises(DHRDError, match=r"its choices are \['never', 'ever'\]"):
        evaluate(model, "made_weather", limit=2, task_manager=manager)
