"""Training logs and audits of rationales: how they are read, and their pictures."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
from result_files import HF, accuracy_task, rows, write_results
from test_teachers_audit import SPLIT, audit, judged, record

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report import plots
from dhrd_plugin.report.audits import load_audits
from dhrd_plugin.report.plots import rationales, training
from dhrd_plugin.report.train_logs import load_train_logs
from teachers.audit.figures import figures
from teachers.audit.report import as_json
from teachers.audit.tables import Report


def write_log(folder: Path, reason: float = 1.0, steps: int = 40) -> Path:
    """A log whose dev rows are scored on every tenth step."""
    lines = []
    for step in range(1, steps + 1):
        entry = {"step": step, "loss_cls": 1 / step, "loss_reason": reason / step}
        if step % 10 == 0:
            entry["dev"] = {"score": step / 100, "nll": 1.0, "metrics": {"copa": {"acc": 0.5}}}
        lines.append(json.dumps(entry) + "\n")
    folder.mkdir(parents=True)
    (folder / "train_log.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def summary(tmp_path):
    write_results(tmp_path / "results", {"copa": accuracy_task([1, 0])}, config=HF)
    return rows(tmp_path / "results")[0]


def test_logs_are_named_after_their_setting(tmp_path):
    write_log(tmp_path / "dhrd" / "seed-0")
    write_log(tmp_path / "dhrd" / "seed-1")
    write_log(tmp_path / "a=b")
    pooled = write_log(tmp_path / "seed-x") / "train_log.jsonl"
    folder = str(tmp_path / "dhrd")
    logs = load_train_logs([folder, str(tmp_path / "a=b"), f"α=0={pooled}", str(pooled), folder])
    assert [log.name for log in logs] == ["dhrd", "dhrd", "a=b", "α=0"]
    assert list(logs[0].steps) == list(range(1, 41))
    named = load_train_logs([f"one={folder}"])
    assert [log.name for log in named] == ["one", "one"]
    assert [log.path.parent.name for log in named] == ["seed-0", "seed-1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 2, "lo', r"train_log\.jsonl:2: not a step"),
        ('{"loss_cls": 1.0}', r":2: not a step.*'step'"),
        ('{"step": 2, "loss_cls": null}', r":2: not a step.*TypeError"),
        ('{"step": 2, "dev": {"nll": 1.0}}', r":2: not a step.*'score'"),
        ("[]", r":2: not a step"),
    ],
)
def test_a_line_that_is_no_step_is_named(tmp_path, line, message):
    path = tmp_path / "train_log.jsonl"
    path.write_text(f'{{"step": 1, "loss_cls": 1.0}}\n{line}\n')
    with pytest.raises(DHRDError, match=message):
        load_train_logs([str(path)])


def test_no_log_and_an_empty_one(tmp_path):
    with pytest.raises(DHRDError, match=r"no train_log\.jsonl .*dhrd-distill --output"):
        load_train_logs([str(tmp_path)])
    with pytest.raises(DHRDError, match=r"no such file .*a train_log\.jsonl or"):
        load_train_logs([str(tmp_path / "none")])
    (tmp_path / "train_log.jsonl").touch()
    with pytest.raises(DHRDError, match="is empty"):
        load_train_logs([str(tmp_path)])


def test_training_curves(summary, tmp_path):
    paths = [write_log(tmp_path / "seed-0"), write_log(tmp_path / "seed-1")]
    pooled = write_log(tmp_path / "pooled", reason=0.0)
    logs = load_train_logs([*(f"hf tiny={path}" for path in paths), str(pooled)])
    drawn = plots.draw(summary, train_logs=logs)
    classification, reasoning, dev = drawn["training"].axes
    steps = np.arange(1, 41)
    for axes, n_runs in ((classification, 3), (reasoning, 2)):
        lines = axes.get_lines()
        assert len(lines) == 2 * n_runs
        assert lines[0].get_ydata() == pytest.approx(1 / steps)
        # Ten steps around step 20: from five before to four after.
        assert lines[1].get_ydata()[19] == pytest.approx(np.mean(1 / steps[14:24]))
        assert lines[0].get_alpha() < 0.5
    scores = {line.get_label(): list(line.get_ydata()) for line in dev.get_lines()}
    assert scores == {"hf tiny": [0.1, 0.2, 0.3, 0.4], "pooled": [0.1, 0.2, 0.3, 0.4]}
    assert [axes.get_ylabel().replace("\n", " ") for axes in drawn["training"].axes] == [
        "classification loss (nats)",
        "reasoning loss (nats)",
        "score on dev rows",
    ]
    row = next(line for line in drawn["tasks"].axes[0].get_lines() if line.get_label() == "hf tiny")
    assert dev.get_lines()[0].get_color() == row.get_color()
    (legend,) = drawn["training"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["hf tiny", "pooled"]


def test_examples_in_docstrings_hold():
    result = doctest.testmod(training)
    assert (result.attempted, result.failed) == (1, 0)


def write_audit(path: Path, lines) -> Path:
    """What `dhrd-teach audit --json` writes."""
    found = audit(lines)
    splits, total = figures(found, [SPLIT], {})
    report = Report(f"{path.stem}.jsonl", found, splits, total, dropped=None, notes=[])
    path.write_text(as_json(report))
    return path


def test_histograms_of_rationales(tmp_path):
    long = [record(i, rationale="Word " * (10 + i) + "here. So it is.") for i in range(30)]
    verified = [judged(i, input=0.2, rationale=0.35, both=0.95) for i in range(6)]
    paths = [write_audit(tmp_path / "long.json", long)]
    paths.append(write_audit(tmp_path / "verified.json", [*verified, record(6), record(7)]))
    audits = load_audits([str(paths[0]), f"mine={paths[1]}"])
    lengths, both, alone = rationales.draw(audits).axes
    outlines = [patch for patch in lengths.patches if not patch.get_fill()]
    assert [patch.get_label() for patch in outlines] == ["long.jsonl (n=30)", "mine (n=8)"]
    values, edges, _ = outlines[0].get_data()  # 14 to 43 words, beside 7: bins of two
    assert (edges[0], edges[-1]) == (14, 44)
    assert values == pytest.approx([100 * 2 / 30] * 15)
    values, edges, _ = outlines[1].get_data()
    assert (list(values), list(edges)) == ([100.0], [6, 8])
    for axes, tenth in ((both, 9), (alone, 3)):
        values, edges, _ = axes.patches[0].get_data()
        assert np.flatnonzero(values).tolist() == [tenth]
        assert values[tenth] == 100
        assert "probability of gold" in axes.get_xlabel()


def test_rationales_nobody_verified_have_one_histogram(summary, tmp_path):
    path = write_audit(tmp_path / "audit.json", [record(i) for i in range(9)])
    figure = plots.draw(summary, audits=load_audits([str(path)]))["rationales"]
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("words per rationale", "rationales (%)")
    empty = write_audit(tmp_path / "empty.json", [{"task": "made"}])
    assert "rationales" not in plots.draw(summary, audits=load_audits([str(empty)]))


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"all": {"rows": 3}}'])
def test_a_file_that_is_no_audit(tmp_path, text):
    path = tmp_path / "audit.json"
    path.write_text(text)
    with pytest.raises(DHRDError, match=r"not an audit .*dhrd-teach audit F\.jsonl --json"):
        load_audits([str(path)])
