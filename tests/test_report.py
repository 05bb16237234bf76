"""The terminal table (golden text), Markdown, JSON, and the command's errors."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from result_files import accuracy_task, cb_task, cot_task, student, write_results
from rich.console import Console

from dhrd_plugin.report.cli import main
from dhrd_plugin.report.results import load_runs
from dhrd_plugin.report.summary import Summary, summarise
from dhrd_plugin.report.table import as_json, markdown, rich_report

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two settings with three seeds each, and a zero-shot model with its CoT twin on COPA."""
    folder = tmp_path_factory.mktemp("results")
    golds = np.arange(56) % 3
    for setting, wrong in (("DHRD α=1 β=1", (6, 8, 7)), ("pooled (α=0)", (20, 21, 23))):
        for seed, n_wrong in enumerate(wrong):
            preds = np.where(np.arange(56) < n_wrong, (golds + 1) % 3, golds)
            copa = accuracy_task([0] * (30 + seed) + [1] * (70 - seed))
            tasks = {
                "cb": cb_task(golds.tolist(), preds.tolist()),
                "copa": copa,
                "scenes": accuracy_task([0] * (100 + n_wrong) + [1] * (200 - n_wrong), "scenes"),
            }
            write_results(folder / setting / str(seed), tasks, config=student(setting, seed))
    tasks = {
        "cb": cb_task(golds.tolist(), [0] * 56),
        "copa": accuracy_task([1] * 55 + [0] * 45),
        "copa_cot": accuracy_task([1] * 9 + [0] * 91, metric="exact_match"),
    }
    config = {"model": "hf", "model_args": {"pretrained": "org/tiny"}}
    write_results(folder / "hf", tasks, config=config)
    return folder


@pytest.fixture(scope="module")
def summary(results) -> Summary:
    return summarise(load_runs([str(results)]), "pooled")


def printed(summary: Summary, width: int, **options) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, **options)
    console.print(rich_report(summary, console))
    return stripped(file.getvalue())


def stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def golden(width: int) -> str:
    return (GOLDEN / f"report_{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 140])
def test_golden_terminal_table(summary, width):
    assert printed(summary, width) == golden(width)


def test_colour_and_bold_only_on_a_terminal(summary):
    assert "\x1b" not in printed(summary, 140)
    bold = [
        part.split("\x1b[0m")[0]
        for part in printed(summary, 140, force_terminal=True).split("\x1b[1m")[1:]
    ]
    significant = [text for text in bold if "±" in text]
    assert significant and all(text.endswith(" *") for text in significant)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_no_number_is_cut_at_any_width(summary, width):
    text = printed(summary, width)
    assert "…" not in text
    assert "n=56" in text
    for row in summary.rows:
        for cell in row.cells.values():
            for score in cell.scores.values():
                assert f"{score.value:.1f}" in text


def test_markdown_holds_the_same_numbers(summary):
    lines = markdown(summary).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count(" | ") for line in table}) == 1
    assert len(table) == 2 + len(summary.rows) + sum(
        any(cell.differences for cell in row.cells.values()) for row in summary.rows
    )
    number = r"[+-]?\d+\.\d"
    assert sorted(re.findall(number, printed(summary, 200))) == sorted(
        re.findall(number, "\n".join(lines))
    )
    assert any("56" in line and line.startswith("- Smallest difference") for line in lines)


def test_json_holds_unrounded_numbers(summary):
    content = json.loads(as_json(summary))
    assert content["baseline"] == "pooled (α=0) · smollm2"
    assert content["average_over"] == ["cb", "copa"]
    assert content["columns"][0]["n"] == 56
    by_name = {row["name"]: row for row in content["rows"]}
    row = by_name["DHRD α=1 β=1 · smollm2"]
    assert row["cells"]["cb"]["scores"]["acc"]["value"] == pytest.approx(100 * 49 / 56)
    assert row["cells"]["cb"]["scores"]["acc"]["runs"] == 3
    assert row["cells"]["cb"]["differences"]["acc"]["significant"] is True
    assert row["cells"]["copa"]["differences"]["acc"]["significant"] is False
    assert row["average_difference"]["low"] < row["average_difference"]["value"]
    assert len(row["files"]) == 3
    assert content["notes"]


def test_partial_evaluations_are_marked(tmp_path):
    config = {"model": "hf", "model_args": {"pretrained": "org/tiny"}}
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=config, n_total=100)
    partial = {"copa": accuracy_task([1, 0])}
    write_results(tmp_path / "b", partial, config={"model": "dummy"}, n_total=100)
    text = printed(summarise(load_runs([str(tmp_path)])), 80)
    assert "n=3 of 100" in text
    assert "n=2\n" in text
    assert "copa (n=3) none at all" in text


def test_notes_say_how_answers_were_made_and_how_many_name_no_choice(tmp_path):
    tasks = {
        "copa": accuracy_task([1, 0, 1]),
        "copa_cot": cot_task([1, 0, 0], unparsable=[0, 0, 1]),
        "wic_cot": cot_task([1, 0, 0], unparsable=[0, 1, 1], dataset="wic"),
        "copa_cot_sampled": cot_task([1, 0, 0], unparsable=[0, 0, 0]),
        "boolq": accuracy_task([1, 0, 1], "boolq"),
    }
    config = student("DHRD", 0, zero_shot=["boolq"])
    write_results(tmp_path, tasks, config=config)
    text = printed(summarise(load_runs([str(tmp_path)])), 200)
    row = "DHRD · smollm2"
    assert (
        "Answers that name no choice, counted as wrong, in percent: "
        f"{row} (CoT): copa 33.3, wic 66.7; {row} (CoT, sampled): copa 0.0."
    ) in text
    assert "(zero-shot): tasks the student has no head for" in text
    del tasks["copa_cot"], tasks["copa_cot_sampled"], tasks["wic_cot"]
    write_results(tmp_path / "pooled", tasks, config=student("DHRD", 1))
    text = printed(summarise(load_runs([str(tmp_path / "pooled")])), 200)
    assert "name no choice" not in text and "(zero-shot)" not in text


def test_the_command_prints_and_writes(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    files = {"--markdown": tmp_path / "t.md", "--json": tmp_path / "t.json"}
    arguments = [str(part) for pair in files.items() for part in pair]
    assert main([str(results), "--baseline", "pooled", *arguments]) == 0
    out = capsys.readouterr().out
    assert stripped(out) == golden(140)
    assert files["--markdown"].read_text(encoding="utf-8").startswith("|  | cb")
    assert json.loads(files["--json"].read_text(encoding="utf-8"))["rows"]


def test_a_second_evaluation_is_noted_once(tmp_path, capsys):
    for date in (1, 2, 3):
        task = {"copa": accuracy_task([1, 0] * date)}
        write_results(tmp_path, task, config={"model": "dummy"}, date=date)
    assert main([str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("note: 2 result(s) left out") == 1
    assert "n=6" in captured.out


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["{empty}"], "no results_"),
        (["{empty}/absent"], "no such file or folder"),
        (["{results}", "--baseline", "nobody"], "Rows: 'DHRD α=1 β=1 · smollm2'"),
        (["{results}", "--json", "{empty}/no/folder.json"], "Cannot write"),
    ],
)
def test_wrong_input_is_one_short_message_and_exit_code_2(
    results, tmp_path, capsys, arguments, says
):
    filled = [argument.format(empty=tmp_path, results=results) for argument in arguments]
    assert main(filled) == 2
    message = capsys.readouterr().err
    assert says in message
    assert len(message.splitlines()) < 6 and "Traceback" not in message


def test_unknown_flags_are_refused(results, capsys):
    for flag in ("--plots", "--mark"):
        with pytest.raises(SystemExit) as stop:
            main([str(results), flag, "x"])
        assert stop.value.code == 2
        assert flag in capsys.readouterr().err


def test_help_and_report_load_neither_torch_nor_lm_eval(results):
    code = (
        "import sys; from dhrd_plugin.report.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'lm_eval', 'transformers')))"
    )
    for arguments in (["--help"], [str(results)]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
        assert done.returncode == 0
