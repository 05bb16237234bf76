"""Several seeds and a student per task from one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from dhrd_plugin.checkpoint import StudentConfig
from dhrd_plugin.errors import DHRDError
from distill.config import DistillConfig
from distill.many import expand, summarise, write_summary


def folders(**runs):
    config = DistillConfig(tasks=("cb", "copa"), output=Path("out"), seed=3)
    return [(str(run.output), run.tasks, run.seed) for run in expand(config, **runs)]


def test_one_run_keeps_its_folder():
    assert folders() == [("out", ("cb", "copa"), 3)]


def test_seeds_count_up_in_folders_of_their_own():
    assert folders(seeds=2) == [
        ("out/seed-3", ("cb", "copa"), 3),
        ("out/seed-4", ("cb", "copa"), 4),
    ]


def test_every_task_gets_its_students():
    assert folders(seeds=2, per_task=True) == [
        ("out/cb/seed-3", ("cb",), 3),
        ("out/cb/seed-4", ("cb",), 4),
        ("out/copa/seed-3", ("copa",), 3),
        ("out/copa/seed-4", ("copa",), 4),
    ]
    assert [folder for folder, *_ in folders(per_task=True)] == ["out/cb", "out/copa"]


@pytest.mark.parametrize("seeds", [0, -1])
def test_no_seeds_are_an_error(seeds):
    with pytest.raises(DHRDError, match=f"--seeds {seeds}"):
        expand(DistillConfig(), seeds=seeds)


def student(score, nll=0.5):
    return StudentConfig(
        base_model="smollm2",
        adapter=True,
        head="mlp",
        dtype="float32",
        max_length=64,
        tasks={},
        training={"dev": {"score": score, "nll": nll}},
    )


def test_summary_has_mean_and_interval_per_task_list(tmp_path):
    runs = expand(DistillConfig(tasks=("cb", "copa"), output=tmp_path), seeds=3, per_task=True)
    scores = [0.5, 0.6, 0.8, 0.7, 0.7, 0.7]
    cb, copa = summarise([(run, student(s)) for run, s in zip(runs, scores, strict=True)])
    assert (cb.tasks, copa.tasks) == (("cb",), ("copa",))
    assert list(cb.scores.values()) == scores[:3]
    low, high = stats.t.interval(0.95, 2, loc=cb.mean, scale=stats.sem(scores[:3]))
    assert cb.mean == pytest.approx(1.9 / 3)
    assert cb.half_width == pytest.approx((high - low) / 2)
    assert copa.half_width == pytest.approx(0, abs=1e-9)
    write_summary(tmp_path, [cb, copa])
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written[0]["mean"] == cb.mean and written[1]["tasks"] == ["copa"]


def test_single_student_has_no_interval():
    (only,) = summarise([(DistillConfig(), student(0.5))])
    assert only.half_width is None and only.mean == 0.5
