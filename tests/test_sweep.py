"""How a sweep ranks what comes out, and what it keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scripted_training import scripted

from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from dhrd_plugin.significance import smallest_difference
from distill.sweep.display import worth
from distill.sweep.space import Range
from distill.sweep.study import independent_rows, run_sweep, run_trial
from distill.sweep.trials import Sweep, Trial, alone_in
from distill.train import NotFiniteError


def tried(number, score, nll=0.5, **params):
    return Trial(number, params, score=score, nll=nll, scores=[score], nlls=[nll])


def test_best_has_the_highest_score_and_of_equal_ones_the_highest_likelihood(tmp_path):
    sweep = Sweep(tmp_path, {}, independent_rows=100)
    failed = Trial(2, {"lr": 1.0}, failure="out of memory")
    sweep.add(failed)
    assert sweep.best is None
    for trial in (tried(3, 0.8, 0.9), tried(4, 0.8, 0.4), tried(5, 0.8, 7.0), tried(6, 0.799, 0.1)):
        sweep.add(trial)
    assert [trial.number for trial in sweep.ranked] == [4, 3, 5, 6, 2]
    assert sweep.best.number == 4
    assert json.loads((tmp_path / "sweep.json").read_text())["best"] == 4
    assert math.isnan(failed.value)


def test_sweep_killed_while_it_was_begun_begins_again(tmp_path):
    (tmp_path / "sweep.json.partial").write_text('{"sch')
    Sweep(tmp_path, {}, independent_rows=100)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_sweep_is_read_back_and_other_settings_are_refused(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    sweep = Sweep(folder, {"lr": "0.1,0.2", "seeds": 2}, independent_rows=10)
    sweep.add(tried(0, 0.5, lr=0.1))
    again = Sweep(folder, {"lr": "0.1,0.2", "seeds": 2}, independent_rows=10)
    assert again.trials == sweep.trials != []
    assert again.find({"lr": 0.1}) == sweep.trials[0] and again.find({"lr": 0.2}) is None
    with pytest.raises(DHRDError, match=r"old → new\): lr 0\.1,0\.2 → 0\.1,0\.3, seeds 2 → 1"):
        Sweep(folder, {"lr": "0.1,0.3", "seeds": 1}, independent_rows=10)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("holiday.jpg", "", "the folder holds other files"),
        ("sweep.json", "{", "cannot be read"),
        ("sweep.json", "[]", "cannot be read"),
        ("sweep.json", '{"method": "bayes"}', "cannot be read"),
        ("sweep.json", '{"schema": "dhrd.sweep/1", "settings": [1], "trials": []}', "cannot be"),
        ("sweep.json", '{"schema": "dhrd.sweep/1", "settings": {}}', "cannot be read"),
        ("sweep.json", '{"schema": "dhrd.sweep/0"}', "schema is 'dhrd.sweep/0'"),
    ],
)
def test_folder_of_other_origin_is_left_alone(tmp_path, name, content, why):
    (tmp_path / name).write_text(content)
    with pytest.raises(DHRDError, match=why):
        Sweep(tmp_path, {}, independent_rows=10)
    assert (tmp_path / name).read_text() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_process_that_does_not_write_begins_beside_one_that_does(tmp_path, monkeypatch):
    """Whatever the other has got to: here it begins just after this one has looked."""
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    Sweep(tmp_path, {}, independent_rows=10)
    assert Sweep(tmp_path, {}, independent_rows=10, write=False).trials == []


def test_two_sweeps_at_a_time_in_one_folder_are_refused(tmp_path):
    folder = tmp_path / "new" / "sweep"
    with alone_in(folder), pytest.raises(DHRDError, match="another sweep is at work"):
        alone_in(folder).__enter__()
    with alone_in(folder):  # free again
        pass


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "sweep").touch()
    with pytest.raises(DHRDError, match="cannot write there"):
        alone_in(tmp_path / "sweep").__enter__()


def test_what_the_best_score_is_worth(tmp_path):
    sweep = Sweep(tmp_path, {}, independent_rows=100)
    smallest = smallest_difference(100)
    for number, score in enumerate((0.9, 0.9 - smallest / 2, 0.9 - 2 * smallest)):
        sweep.add(tried(number, score, alpha=number / 10))
    text = worth(sweep, sweep.best)
    assert (
        text.startswith("Trial 0 (--alpha 0) has the best dev score of 3") and "optimistic" in text
    )
    assert f"100 dev rows show differences from {100 * smallest:.1f} points" in text
    assert "1 of the other 2 lie closer" in text
    (tmp_path / "3").mkdir()
    assert "cannot show any difference" in worth(
        Sweep(tmp_path / "3", {}, independent_rows=3), tried(0, 1.0)
    )


# Study


def test_trial_is_the_mean_over_its_seeds(distill_config, tmp_path):
    runs = [distill_config(tmp_path / f"seed-{seed}", seed=seed) for seed in (0, 1, 2)]
    trial = run_trial(7, {"lr": 0.1}, runs, scripted(lambda run: (0.5, 0.6, 0.8)[run.seed]))
    assert trial.score == pytest.approx(1.9 / 3) and trial.scores == [0.5, 0.6, 0.8]
    assert trial.half_width == pytest.approx(0.3795, abs=1e-4)  # t(2) = 4.303, s = 0.1528
    assert (trial.tokens, trial.wall_seconds, trial.nll) == (3 * 42, 4.5, 0.5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            NotFiniteError("Step 3 is not finite\nLower --lr", exit_code=EXIT_FAILED),
            "Step 3 is not",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "out of memory: CUDA"),
    ],
)
def test_settings_that_cannot_be_trained_with_make_a_failed_trial(
    distill_config, tmp_path, error, reason
):
    runs = [distill_config(tmp_path / f"seed-{seed}", seed=seed) for seed in (0, 1, 2)]
    train = scripted(lambda _: 0.5, lambda run: error if run.seed == 1 else None)
    trial = run_trial(0, {"lr": 0.1}, runs, train)
    assert trial.failure.startswith(f"seed 1: {reason}") and "\n" not in trial.failure
    assert trial.score is None and trial.scores == []
    assert not (tmp_path / "seed-2").exists()


@pytest.mark.parametrize(
    "error", [DHRDError("Cannot write", exit_code=EXIT_FAILED), RuntimeError("shapes differ")]
)
def test_anything_else_ends_the_sweep(distill_config, tmp_path, error):
    with pytest.raises(type(error), match=str(error)):
        run_trial(0, {}, [distill_config(tmp_path)], scripted(lambda _: 0.5, lambda _: error))


def test_more_trials_go_on_where_a_tpe_sweep_stopped(distill_config, tmp_path):
    """As if it had had them from the start; what is known is not trained again."""

    def run(folder, trials):
        trained = []
        sweep = run_sweep(
            distill_config(tmp_path / folder),
            {"alpha": (0.0, 1.0), "lr": Range(1e-4, 1e-2)},
            seeds=1,
            sampler="tpe",
            trials=trials,
            train=scripted(lambda run: trained.append(run) or -abs(math.log(run.lr / 2e-3))),
        )
        return len(trained), sweep.trials

    assert run("parts", 5)[0] == 5
    n_trained, in_parts = run("parts", 14)
    assert n_trained == 9
    assert run("whole", 14) == (14, in_parts)


def test_folder_is_held_while_students_are_trained(distill_config, tmp_path):
    def train(run):
        with alone_in(run.output.parent):
            raise AssertionError("held by nobody")

    with pytest.raises(DHRDError, match="another sweep is at work"):
        run_sweep(
            distill_config(tmp_path / "sweep"),
            {"lr": (1e-3, 1e-2)},
            seeds=1,
            sampler="grid",
            trials=None,
            train=train,
        )


def test_repeated_combination_is_trained_once(distill_config, tmp_path):
    sweep = run_sweep(
        distill_config(tmp_path / "sweep"),
        {"alpha": (0.0, 1.0), "beta": (1.0,)},
        seeds=1,
        sampler="tpe",
        trials=12,
        train=scripted(lambda run: run.alpha),
    )
    assert sorted(trial.params["alpha"] for trial in sweep.trials) == [0, 1]
    assert sorted(path.name for path in sweep.folder.iterdir()) == [
        "sweep.json",
        "trial-0",
        "trial-1",
    ]


def test_other_rows_or_records_are_another_sweep(distill_config, tmp_path):
    def run(**changes):
        return run_sweep(
            distill_config(tmp_path / "sweep", **changes),
            {"lr": (1e-3, 1e-2)},
            seeds=1,
            sampler="grid",
            trials=1,
            train=scripted(lambda _: 0.5),
        )

    run()
    records = (distill_config(tmp_path).rationales[0]).read_text().splitlines(keepends=True)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(records[1:]))
    with pytest.raises(DHRDError, match=r"old → new\): data \w+ → \w+, rationales \w+ → \w+\."):
        run(rationales=(fewer,))
    with pytest.raises(DHRDError, match=r"dev-rows 4 → 5"):
        run(dev_rows=5)


def test_dev_rows_of_one_passage_count_once_and_the_smallest_task_most():
    from types import SimpleNamespace

    def data(**docs):
        rows = [(task, doc) for task, of_task in docs.items() for doc in of_task]
        return SimpleNamespace(
            tasks=docs,
            dev=[SimpleNamespace(task=task) for task, _ in rows],
            dev_docs=[doc for _, doc in rows],
        )

    plain = [{"text": "a"}] * 30
    passages = [{"idx": {"passage": i // 3, "answer": i}} for i in range(30)]
    assert independent_rows(data(cb=plain)) == 30
    assert independent_rows(data(multirc=passages)) == 10
    assert independent_rows(data(a=plain, b=plain)) == 60
    assert independent_rows(data(cb=plain, multirc=passages)) == 30  # 4 / (1/30 + 1/10)
