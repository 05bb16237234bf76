"""Which students `--model dhrd` answers from: one, a folder of them, and tasks that none has."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from harness_runs import answers, evaluate, made_manager, requests
from lm_eval.models.huggingface import HFLM

from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.lm import DHRDLM
from dhrd_plugin.students import find_students
from distill.train import train

UNTAUGHT = "made_untaught"  # a task that no student here has a head for


@pytest.fixture(scope="module")
def tasks(made_tasks):
    return made_manager(made_tasks)


@pytest.fixture(scope="module")
def per_task(distill_config, tmp_path_factory):
    """What `dhrd-distill --per-task` leaves behind; the heads differ in kind and length."""
    folder = tmp_path_factory.mktemp("per-task")
    changes = {"made_weather": {"head": "linear"}, "made_because": {"max_length": 300, "seed": 1}}
    for task, settings in changes.items():
        train(distill_config(folder / task, tasks=(task,), max_steps=4, **settings))
    (folder / "summary.json").write_text("[]")
    return folder


def said_by(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "dhrd_plugin.lm"]


# One student


def test_default_student_is_named_by_the_environment_or_lies_here(student, tmp_path, monkeypatch):
    monkeypatch.delenv("DHRD_STUDENT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DHRDError, match=r"No student named[\s\S]*dhrd-teach --teacher hf:smollm2 && dhrd-distill"
    ):
        find_students(None)
    shutil.copytree(student, tmp_path / "dhrd-student")
    assert find_students(None).members[0].folder.resolve() == tmp_path / "dhrd-student"
    monkeypatch.setenv("DHRD_STUDENT", str(student))
    (found,) = find_students(None).members
    assert (found.folder, found.config) == (student, read_student_config(student))
    assert DHRDLM().students == find_students(str(student))


@pytest.mark.parametrize("named", ["argument", "environment"])
def test_named_student_that_is_not_there_is_an_error(tmp_path, monkeypatch, student, named):
    missing = str(tmp_path / "missing")
    monkeypatch.chdir(student.parent)
    monkeypatch.setenv("DHRD_STUDENT", missing if named == "environment" else str(student))
    with pytest.raises(DHRDError, match=rf"No DHRD student in {missing}"):
        DHRDLM(missing if named == "argument" else None)


@pytest.mark.parametrize(
    "argument", ["dtype", "peft", "tokenizer", "add_bos_token", "revision", "backend"]
)
def test_what_the_student_determines_cannot_be_given(student, argument):
    with pytest.raises(DHRDError, match=f"--model_args {argument}=.*determines it"):
        DHRDLM(str(student), **{argument: "other"})


# A folder of students


def test_each_task_is_scored_by_the_student_that_has_its_head(per_task, made_tasks, tasks):
    together = DHRDLM(str(per_task), batch_size=3, include_path=str(made_tasks))
    mixed = [
        request
        for pair in zip(
            requests(tasks, "made_because"), requests(tasks, "made_weather"), strict=True
        )
        for request in pair
    ]
    got = together.loglikelihood(mixed)
    for task in ("made_because", "made_weather"):
        alone = DHRDLM(
            str(per_task / task), merge=False, batch_size=3, include_path=str(made_tasks)
        )
        expected = alone.loglikelihood(requests(tasks, task))
        own = [reply for reply, r in zip(got, mixed, strict=True) if r.task_name == task]
        assert own == expected
    assert got[::2] != got[1::2]


def test_results_tell_who_the_students_are(per_task, made_tasks, tasks):
    got = evaluate(
        "dhrd",
        "made_weather",
        model_args={"pretrained": str(per_task), "include_path": str(made_tasks)},
        device="cpu",
        task_manager=tasks,
    )
    about = got["config"]["dhrd"]
    assert about["zero_shot"] == []
    for facts, task in zip(about["students"], ("made_because", "made_weather"), strict=True):
        config = read_student_config(per_task / task)
        assert facts["tasks"] == [task]
        assert facts["fingerprint"] == config.fingerprint
        assert facts["training"] == config.training


COT = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {folder}/rows.jsonl}}}}
output_type: generate_until
validation_split: validation
doc_to_text: "{{{{text}}}}"
doc_to_target: "no"
generation_kwargs: {{until: ["<eos>"], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


def test_words_come_from_the_student_of_the_task_whose_questions_are_asked(per_task, tmp_path):
    names = ("made_weather_cot", "made_because_cot", "made_because_cot_sampled", "made_other_cot")
    for name in names:
        (tmp_path / f"{name}.yaml").write_text(COT.format(name=name, folder=tmp_path))
    rows = [{"text": f"Here: {text} Is it wet?"} for text in ("Rain falls.", "Sun burns.")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manager = made_manager(tmp_path)

    def replies(model, *names):
        samples = evaluate(model, *names, task_manager=manager)["samples"]
        return {name: [s["resps"][0][0] for s in samples[name]] for name in names}

    together = DHRDLM(str(per_task))
    got = replies(together, *names[:3])
    for name in names[:3]:
        twin = name.removesuffix("_sampled").removesuffix("_cot")
        assert got[name] == replies(DHRDLM(str(per_task / twin), merge=False), name)[name]
    assert got["made_weather_cot"] != got["made_because_cot"]
    with pytest.raises(DHRDError, match="made_other_cot is answered in words, and no student"):
        replies(together, "made_other_cot")


def changed(folder, name, **changes):
    path = folder / name / "dhrd.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"base_model": "smollm2"}, r"differ in base_model \(made_because: smollm2, made_weather:"),
        ({"dtype": "bfloat16"}, r"differ in dtype \(made_because: bfloat16, made_weather: float32"),
        ({"quantized": True}, "differ in quantized"),
        ({"adapter": False}, "made_because trained with --full.*score these alone"),
    ],
)
def test_students_that_cannot_share_a_backbone_are_refused(per_task, tmp_path, changes, says):
    folder = shutil.copytree(per_task, tmp_path / "mixed")
    changed(folder, "made_because", **changes)
    with pytest.raises(DHRDError, match=says):
        find_students(str(folder))


def test_two_students_for_one_task_are_refused(per_task, tmp_path):
    """What `--seeds 2` leaves behind."""
    for seed in ("seed-0", "seed-1"):
        shutil.copytree(per_task / "made_weather", tmp_path / seed)
    with pytest.raises(DHRDError, match="both seed-0 and seed-1 have a head for task made_weather"):
        find_students(str(tmp_path))


def test_one_student_per_task_may_be_linked_out_of_several_seeds(per_task, tmp_path):
    for task in ("made_weather", "made_because"):
        shutil.copytree(per_task / task, tmp_path / "runs" / task / "seed-0")
    with pytest.raises(
        DHRDError, match=r"two folders down: .*made_because/seed-0, .*links will do"
    ):
        find_students(str(tmp_path / "runs"))
    (tmp_path / "chosen").mkdir()
    for task in ("made_weather", "made_because"):
        (tmp_path / "chosen" / task).symlink_to(tmp_path / "runs" / task / "seed-0")
    assert find_students(str(tmp_path / "chosen")).heads.keys() == {"made_weather", "made_because"}


# Tasks without a head


@pytest.mark.parametrize("folder", ["student", "per_task"])
def test_task_without_a_head_fails_before_any_forward(folder, request, made_tasks, tasks):
    folder = request.getfixturevalue(folder)
    model = DHRDLM(str(folder), include_path=str(made_tasks))

    def fail(*_):
        raise AssertionError("a forward")

    model.model.get_input_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(DHRDError, match=rf"No head for task everyday, {UNTAUGHT};") as error:
        evaluate(model, "made_weather", "everyday", UNTAUGHT, limit=2, task_manager=tasks)
    assert "made_weather" in str(error.value) and str(folder) in str(error.value)
    assert f"--task everyday,{UNTAUGHT}`" in str(error.value)
    assert "missing=zero_shot" in str(error.value)


@pytest.mark.parametrize("folder", ["student", "per_task"])
def test_missing_head_is_made_up_for_by_log_likelihood(
    folder, request, tiny_backbone, made_tasks, tasks, caplog
):
    """The reasoning head's of a single student, the bare backbone's where there are several."""
    path = request.getfixturevalue(folder)
    model = DHRDLM(str(path), missing="zero_shot", include_path=str(made_tasks))
    alone = {"peft": str(path)} if folder == "student" else {}
    reference = HFLM(pretrained=tiny_backbone, device="cpu", dtype="float32", **alone)
    with caplog.at_level(logging.WARNING, logger="dhrd_plugin.lm"):
        got = evaluate(model, UNTAUGHT, "made_weather", task_manager=tasks)
        evaluate(model, UNTAUGHT, task_manager=tasks)
    expected = evaluate(reference, UNTAUGHT, task_manager=tasks)
    for values, others in zip(answers(got, UNTAUGHT), answers(expected, UNTAUGHT), strict=True):
        assert values == pytest.approx(others, abs=1e-4)
    assert got["results"][UNTAUGHT]["acc,none"] == expected["results"][UNTAUGHT]["acc,none"]
    assert got["config"]["dhrd"]["zero_shot"] == [UNTAUGHT]
    (warning,) = said_by(caplog)
    assert f"No head for task {UNTAUGHT}: scored by the log-likelihood" in warning
    assert ("reasoning head" if folder == "student" else "backbone, without") in warning
    with_heads_only = evaluate(
        DHRDLM(str(path), include_path=str(made_tasks)), "made_weather", task_manager=tasks
    )
    assert answers(got, "made_weather") == answers(with_heads_only, "made_weather")
    assert with_heads_only["config"]["dhrd"]["zero_shot"] == []


def test_misspelt_way_to_score_missing_heads_is_an_error(student):
    with pytest.raises(DHRDError, match=r"missing=zeroshot: use one of error, zero_shot"):
        DHRDLM(str(student), missing="zeroshot")
