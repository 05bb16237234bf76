"""`dhrd-distill sweep` as typed, on students of a few steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import REPO, read_log, weights
from scripted_training import scripted

from dhrd_plugin.checkpoint import read_student_config
from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from distill.cli import main
from distill.config import DistillConfig
from distill.flags import FIELD_OF_FLAG
from distill.sweep.cli import build_parser
from distill.train import NotFiniteError


@pytest.fixture
def flags(made_tasks, tiny_backbone, tmp_path, monkeypatch):
    """Flags of a sweep of seconds, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return [
        *("sweep", "--task", "made_weather", "--include-path", str(made_tasks)),
        *("--rationales", str(made_tasks / "rationales.jsonl"), "--backbone", tiny_backbone),
        *("--max-steps", "4", "--save-steps", "2", "--dtype", "float32", "--dev-rows", "8"),
    ]


@pytest.fixture
def sweep(flags, capsys):
    """Runs the command; returns its exit code and what it wrote to stderr, on one line."""

    def command(text):
        code = main([*flags, *text.split()])
        return code, " ".join(capsys.readouterr().err.split())

    return command


@pytest.fixture
def training(monkeypatch):
    """Puts a stand-in for training into the command; takes what `scripted` does."""

    def replace(*script):
        train = scripted(*script)
        monkeypatch.setattr("distill.train.train", lambda run, report: train(run))

    return replace


def results(folder="dhrd-sweep"):
    """sweep.json without what a clock says."""
    content = json.loads(Path(folder, "sweep.json").read_text())
    for trial in content["trials"]:
        assert (trial.pop("wall_seconds") > 0) == (trial["failure"] is None)
    return content


# Runs


def test_grid_is_trained_ranked_and_drawn(sweep):
    code, text = sweep("--alpha 0,1 --beta 1 --lr 1e-2 --train-best")
    assert code == EXIT_OK
    assert "At most 2 students in all" in text
    content = results()
    for trial in content["trials"]:
        student = read_student_config(f"dhrd-sweep/trial-{trial['number']}")
        assert {name: student.training[name] for name in trial["params"]} == trial["params"]
        assert trial["score"] == student.training["dev"]["score"]
        assert trial["tokens"] == sum(
            entry["tokens"] for entry in read_log(f"dhrd-sweep/trial-{trial['number']}")
        )
    ranking = sorted(content["trials"], key=lambda t: (-t["score"], t["nll"]))
    assert content["best"] == ranking[0]["number"]
    assert f"Trial {content['best']} (--alpha" in text and "8 dev rows show differences" in text
    for kind in ("svg", "png"):
        assert Path(f"dhrd-sweep/alpha-beta.{kind}").stat().st_size > 1000
    best = read_student_config(f"dhrd-sweep/best-{content['best']}").training
    assert {n: best[n] for n in ranking[0]["params"]} == ranking[0]["params"]
    assert best["seed"] == 1
    before = {p: p.stat().st_mtime_ns for p in Path("dhrd-sweep").rglob("*.safetensors")}
    assert len(before) == 2 * 3
    assert sweep("--alpha 0,1 --beta 1 --lr 1e-2 --train-best")[0] == EXIT_OK
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_more_trials_may_find_another_best_one_to_train(sweep, training):
    training(lambda run: -1 if run.output.name == "trial-0" else 1)
    code, text = sweep("--lr 1e-2,2e-2 --trials 1 --train-best --output [/lr]")
    assert code == EXIT_OK and "[/lr]/best-0: dev score 1.000" in text
    code, text = sweep("--lr 1e-2,2e-2 --train-best --output [/lr]")
    assert code == EXIT_OK and "[/lr]/best-1: dev score 1.000" in text


def test_failed_trials_are_told_with_their_reason_and_the_rest_goes_on(sweep):
    code, text = sweep("--lr 1e30,1e-2 --warmup-steps 0 --alpha 1 --seeds 2")
    assert code == EXIT_OK
    failed, trained = sorted(results()["trials"], key=lambda trial: trial["params"]["lr"])[::-1]
    assert "is not finite" in failed["failure"] and "made_weather/train/" in failed["failure"]
    assert len(trained["scores"]) == 2 and trained["half_width"] >= 0
    assert f"Trial {failed['number']} (--alpha 1 --lr 1e+30) failed: seed 0: Step" in text
    assert "mean score" in text and " ".join(f"{score:.3f}" for score in trained["scores"]) in text


def test_sweep_without_any_result_fails(sweep, training):
    training(None, lambda _: NotFiniteError("Step 3 is not finite", exit_code=EXIT_FAILED))
    code, text = sweep("--lr 1e30,1e31 --train-best")
    assert code == EXIT_FAILED
    assert "Every trial failed" in text and "Traceback" not in text


def test_killed_sweep_ends_like_one_that_was_not(flags, sweep):
    """kill -9 in the middle of the second trial, behind its checkpoint."""
    script = (
        "import sys; from distill.cli import main; from distill.display import TrainingDisplay\n"
        "def wait(self, progress):\n"
        "    if self.output.name == 'trial-1' and progress.step == 3:\n"
        "        print('here', flush=True); sys.stdin.read()\n"
        "TrainingDisplay.update = wait\n"
        "main(sys.argv[1:])\n"
    )
    searched = ["--lr", "1e-2,2e-2"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *flags, *searched],
        env=os.environ | {"PYTHONPATH": str(REPO)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert sweep(" ".join([*searched, "--output", "whole"]))[0] == EXIT_OK  # as that starts
        assert process.stdout.readline().strip() == "here"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [trial["number"] for trial in results()["trials"]] == [0]
    assert Path("dhrd-sweep/trial-1/checkpoint-2").is_dir()
    first = Path("dhrd-sweep/trial-0/dhrd.json").stat().st_mtime_ns

    code, text = sweep(" ".join(searched))
    assert code == EXIT_OK and "trial-0:" not in text
    assert Path("dhrd-sweep/trial-0/dhrd.json").stat().st_mtime_ns == first
    assert [entry["step"] for entry in read_log("dhrd-sweep/trial-1")] == [1, 2, 3, 4]
    assert results() == results("whole")
    assert weights(Path("dhrd-sweep/trial-1")) == weights(Path("whole/trial-1"))


def test_interrupted_sweep_says_how_to_go_on(sweep, monkeypatch):
    def interrupt(self, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr("distill.display.TrainingDisplay.update", interrupt)
    code, text = sweep("--lr 1e-2,2e-2")
    assert code == EXIT_INTERRUPTED
    assert "the same command continues" in text
    assert results()["trials"] == []


def test_other_values_in_the_same_folder_are_refused(sweep, training):
    training(lambda _: 0.5)
    assert sweep("--lr 1e-2,2e-2 --trials 1")[0] == EXIT_OK
    code, text = sweep("--lr 1e-2,3e-2 --trials 1 --head linear")
    assert code == EXIT_BAD_INPUT
    assert "lr 0.01,0.02 → 0.01,0.03" in text and "head mlp → linear" in text


def test_sweep_needs_no_matplotlib(sweep, training, monkeypatch):
    training(lambda _: 0.5)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, text = sweep("--alpha 0,1 --beta 1")
    assert code == EXIT_OK
    assert "No heat map" in text and "pip install 'dhrd[plots]'" in text
    assert not list(Path("dhrd-sweep").glob("alpha-beta.*"))


# Flags


def test_every_setting_is_a_flag_of_the_sweep_too():
    flags = {FIELD_OF_FLAG.get(name, name) for name in vars(build_parser().parse_args([]))}
    settings = {field.name for field in fields(DistillConfig)}
    assert flags - settings == {"sampler", "trials", "seeds", "train_best"}
    assert settings <= flags


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing to search"),
        ("--alpha 1 --lr 1e-3", "nothing to search"),
        ("--lr 1e-4:1e-3", "--lr 0.0001:0.001 is a range, which --sampler grid cannot"),
        ("--lr 0,1e-3", "--lr 0: need a learning rate above 0"),
        ("--alpha 0,1 --beta 0,1", "--alpha 0 --beta 0: both are weights"),
        ("--kd-temperature 0,1", "--kd-temperature 0: need a number above 0"),
        ("--lr 1e-4,1e-3 --trials 0", "--trials 0"),
        ("--lr 1e-4,1e-3 --seeds 0", "--seeds 0"),
        ("--kd-temperature 1,2", "there is no teacher to take soft targets from"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(sweep, text, why):
    code, error = sweep(text)
    assert code == EXIT_BAD_INPUT
    assert why in error
    assert not Path("dhrd-sweep").exists()


def test_bad_range_is_an_error_of_its_flag(sweep, capsys):
    with pytest.raises(SystemExit) as stop:
        sweep("--lr 1e-3:1e-4")
    assert stop.value.code == EXIT_BAD_INPUT
    assert "argument --lr: 1e-3:1e-4: a range is LOW:HIGH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"), [("--help", "sweep export"), ("sweep --help", "0,0.1,1 tpe --train-best")]
)
def test_help_names_the_subcommands_and_what_to_type(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv.split())
    assert stop.value.code == EXIT_OK
    text = capsys.readouterr().out
    assert all(word in text for word in words.split())
