"""`dhrd-distill` as typed: flags, runs and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import REPO, read_log

from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from distill import cli
from distill.cli import build_parser, main
from distill.config import DistillConfig

# Flags


def test_every_setting_has_a_flag_and_its_default():
    arguments = vars(build_parser().parse_args([]))
    assert arguments.pop("task") == DistillConfig.tasks
    assert arguments.pop("tracker") == DistillConfig.trackers
    assert (arguments.pop("seeds"), arguments.pop("per_task")) == (1, False)
    settings = {f.name: f.default for f in fields(DistillConfig)}
    assert arguments == {k: v for k, v in settings.items() if k not in ("tasks", "trackers")}


def test_help_names_the_objective(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == EXIT_OK
    text = " ".join(capsys.readouterr().out.split())
    assert "L = beta * L_cls + alpha * L_reason" in text
    assert "it continues where it stopped" in text


@pytest.mark.parametrize(
    "argv",
    [
        ["--kd-temperature", "warm"],
        ["--kd-target", "labels"],
        ["--alpha-schedule", "quadratic"],
        ["--control", "shuffle"],
        ["--epoch", "2"],  # no abbreviations
        ["--head", "deep"],
        ["--alpha", "much"],
        ["--full", "yes"],
        ["stray"],
    ],
)
def test_unknown_flag_or_value_is_an_error(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == EXIT_BAD_INPUT
    assert argv[-1] in capsys.readouterr().err


def test_flags_reach_the_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "_run", lambda config, **_: seen.append(config) or EXIT_OK)
    argv = "--task cb,sglue_rte --rationales a.jsonl,b.jsonl --alpha 0.5 --beta 2 --head linear"
    argv += " --full --epochs 7 --max-steps 9 --batch-size 3 --grad-accum 4 --lr 3e-4 --seed 5"
    argv += " --dtype bfloat16 --save-steps 6 --dev-rows 8 --output out --resume"
    assert main(argv.split()) == EXIT_OK
    assert seen == [
        DistillConfig(
            tasks=("cb", "sglue_rte"),
            rationales=(Path("a.jsonl"), Path("b.jsonl")),
            alpha=0.5,
            beta=2,
            head="linear",
            full=True,
            epochs=7,
            max_steps=9,
            batch_size=3,
            grad_accum=4,
            lr=3e-4,
            seed=5,
            dtype="bfloat16",
            save_steps=6,
            dev_rows=8,
            output=Path("out"),
            resume=True,
        )
    ]


# Runs


def test_student_lands_in_the_default_folder(dhrd_distill):
    code, text = dhrd_distill()
    assert code == EXIT_OK
    assert "DHRD (α=0.1 β=1) student in" in text
    assert "lm_eval --model dhrd --model_args pretrained=dhrd-student --tasks made_weather" in text
    assert "step 2/2" in text
    assert read_student_config("dhrd-student").training["train_rows_with_rationale"] > 0


def test_nothing_but_our_own_words_is_printed(made_tasks, tiny_backbone, tmp_path):
    """In a process of its own: other libraries' bars and notices are set up when imported."""
    argv = f"--task made_weather --alpha 0 --backbone {tiny_backbone} --max-steps 1"
    argv += f" --include-path {made_tasks} --output {tmp_path / 'out'}"
    code = "import sys; from distill.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *argv.split()],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == EXIT_OK, done.stderr
    assert done.stdout == ""
    first, *others = done.stderr.splitlines()
    assert first.startswith("step 1/1 ")
    assert "pooled (α=0) student in" in others[0]
    assert not [line for line in others if "arning" in line or "%|" in line]


def test_pooled_baseline_needs_no_rationale_file(dhrd_distill):
    code, _ = dhrd_distill("--output", "pooled", rationales=None, alpha="0")
    assert code == EXIT_OK
    student = read_student_config("pooled")
    assert student.training["setting"] == "pooled (α=0)"
    assert student.training["train_rows_with_rationale"] == 0


def test_same_command_again_has_nothing_to_do(dhrd_distill):
    assert dhrd_distill()[0] == EXIT_OK
    before = Path("dhrd-student/train_log.jsonl").stat().st_mtime_ns
    for flags in ((), ("--resume",)):
        code, text = dhrd_distill(*flags)
        assert code == EXIT_OK
        assert "dhrd-student is finished: nothing was left to train" in text
        assert Path("dhrd-student/train_log.jsonl").stat().st_mtime_ns == before


def test_other_settings_in_the_same_folder_are_refused(dhrd_distill):
    assert dhrd_distill()[0] == EXIT_OK
    fingerprint = read_student_config("dhrd-student").fingerprint
    code, text = dhrd_distill(alpha="0.5", lr="0.1")
    assert code == EXIT_BAD_INPUT
    assert "dhrd-student holds a run with other settings (old → new): alpha 0.1 → 0.5" in text
    assert "lr 0.001 → 0.1" in text
    assert read_student_config("dhrd-student").fingerprint == fingerprint


def test_interrupted_run_is_continued_by_the_same_command(dhrd_distill, monkeypatch):
    real = cli._run

    def interrupted(config, **runs):
        from distill.display import TrainingDisplay

        show = TrainingDisplay.update

        def update(self, progress):
            show(self, progress)
            if progress.step == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(TrainingDisplay, "update", update)
            return real(config, **runs)

    monkeypatch.setattr(cli, "_run", interrupted)
    code, text = dhrd_distill("--resume", max_steps="4", save_steps="2")  # starts afresh
    assert code == EXIT_INTERRUPTED == 130
    assert "the same command continues from the last checkpoint" in text
    monkeypatch.setattr(cli, "_run", real)
    code, _ = dhrd_distill(max_steps="4", save_steps="2")
    assert code == EXIT_OK
    assert [entry["step"] for entry in read_log("dhrd-student")] == [1, 2, 3, 4]
    assert list(Path("dhrd-student").glob("checkpoint-*")) == []


def test_failure_while_training_has_its_own_code(dhrd_distill):
    """A learning rate far too high ends in numbers that are none."""
    code, text = dhrd_distill(lr="1e30", max_steps="6", warmup_steps="0")
    assert code == EXIT_FAILED
    assert "is not finite" in text and "made_weather/train/" in text
    assert "Traceback" not in text


def test_seeds_and_tasks_get_students_of_their_own_and_a_summary(dhrd_distill):
    tasks = "made_weather,made_because"
    code, text = dhrd_distill("--per-task", task=tasks, seeds="2", max_steps="1")
    assert code == EXIT_OK
    folders = [f"{task}/seed-{seed}" for task in tasks.split(",") for seed in (0, 1)]
    students = [read_student_config(Path("dhrd-student", folder)) for folder in folders]
    assert [(list(s.tasks), s.training["seed"]) for s in students] == [
        (["made_weather"], 0),
        (["made_weather"], 1),
        (["made_because"], 0),
        (["made_because"], 1),
    ]
    summary = json.loads(Path("dhrd-student/summary.json").read_text())
    assert [part["tasks"] for part in summary] == [["made_weather"], ["made_because"]]
    scores = [student.training["dev"]["score"] for student in students[:2]]
    assert summary[0]["mean"] == pytest.approx(sum(scores) / 2)
    assert text.count("95% interval") == 2
    before = {path: path.stat().st_mtime_ns for path in Path("dhrd-student").rglob("*.safetensors")}
    code, text = dhrd_distill("--per-task", task=tasks, seeds="2", max_steps="1")
    assert code == EXIT_OK and text.count("is finished: nothing was left to train") == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_control_is_part_of_what_the_student_is(dhrd_distill):
    code, text = dhrd_distill(control="shuffle-rationale")
    assert code == EXIT_OK
    assert "DHRD (α=0.1 β=1, shuffle-rationale) student" in text
    training = read_student_config("dhrd-student").training
    assert training["control"] == "shuffle-rationale"
    code, text = dhrd_distill()
    assert code == EXIT_BAD_INPUT and "control shuffle-rationale → None" in text


def test_summary_shows_metric_temperature_and_reliability(dhrd_distill):
    code, text = dhrd_distill()
    assert code == EXIT_OK
    for part in ("made_weather: acc", "temperature", "ece, calibrated", "brier, calibrated"):
        assert part in text
