"""The command: what it writes, and its errors."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench_files import side as bench_side
from bench_files import write_bench
from result_files import accuracy_task, labels_task, student, write_results, write_study

from dhrd_plugin.report.cli import main


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("results"))


def test_the_command_writes_every_format_at_once(results, tmp_path, capsys):
    files = {name: tmp_path / f"table.{name}" for name in ("markdown", "latex", "csv", "json")}
    arguments = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    assert main([str(results), "--baseline", "pooled", *arguments]) == 0
    assert "SuperGLUE" in capsys.readouterr().out
    written = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    assert written["markdown"].startswith("|  | cb")
    assert written["latex"].endswith("\\end{tabular}\n")
    assert len(list(csv.DictReader(written["csv"].splitlines()))) == 15
    assert len(json.loads(written["json"])["rows"]) == 4


def test_bench_logs_and_audits_go_into_the_page_and_the_pictures(tmp_path, capsys):
    student_config = student("pooled (α=0)", 0, tasks=["copa"])
    write_results(
        tmp_path, {"copa": labels_task([[0.7, 0.2, 0.1]] * 20, [0, 1] * 10)}, config=student_config
    )
    write_bench(tmp_path / "bench_1.json", bench_side("pooled", student_config, 40.0))
    log = tmp_path / "pooled" / "train_log.jsonl"
    log.parent.mkdir()
    log.write_text('{"step": 1, "loss_cls": 1.0}\n{"step": 2, "loss_cls": 0.5}\n')
    page, pictures, file = tmp_path / "page.html", tmp_path / "pictures", tmp_path / "table.json"
    drawn = ["--bench", str(tmp_path), "--train-log", str(log.parent), "--plots", str(pictures)]
    assert main([str(tmp_path), *drawn, "--html", str(page), "--json", str(file)]) == 0
    captured = capsys.readouterr()
    assert "Some CPU" in captured.out and "40" in captured.out
    assert "not drawn: histogram of rationales" in captured.err
    assert {"training.svg", "throughput-copa.png"} <= {path.name for path in pictures.iterdir()}
    assert page.read_text(encoding="utf-8").count("<svg") == len(list(pictures.glob("*.svg")))
    (row,) = json.loads(file.read_text())["rows"]
    assert row["throughput"]["queries_per_second"] == 40

    assert main([str(tmp_path), "--train-log", str(log)]) == 2
    assert "--plots" in capsys.readouterr().err


def test_diff_is_a_command_of_its_own(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["diff", "--help"])
    assert stop.value.code == 0
    assert "dhrd-report diff" in capsys.readouterr().out


def test_a_second_evaluation_is_noted_once(tmp_path, capsys):
    for date in (1, 2, 3):
        task = {"copa": accuracy_task([1, 0] * date)}
        write_results(tmp_path, task, config={"model": "dummy"}, date=date)
    assert main([str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("note: 2 result(s) left out") == 1
    assert "n=6" in captured.out


def test_files_are_written_whoever_reads_the_table(results, tmp_path):
    file = tmp_path / "table.csv"
    code = "import sys; from dhrd_plugin.report.cli import main; sys.exit(main(sys.argv[1:]))"
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does, sooner or later
    done = subprocess.run(
        [sys.executable, "-c", code, str(results), "--csv", str(file)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert file.is_file() and "Traceback" not in done.stderr


def test_pictures_and_page_take_any_name(results, tmp_path, capsys):
    """Control characters are no XML, and dollars are no mathematics."""
    name = "a $\\frac$ <b> \x01\x1b[31m _x_"
    outputs = ["--html", str(tmp_path / "page.html"), "--plots", str(tmp_path / "pictures")]
    assert main([f"{name}={results / 'hf'}", *outputs]) == 0
    assert "a $\\frac$ &lt;b&gt; ␁␛[31m _x_" in (tmp_path / "page.html").read_text("utf-8")
    assert (tmp_path / "pictures" / "tasks.png").is_file()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["{empty}"], "no results_"),
        (["{empty}/absent"], "no such file or folder"),
        (["{results}", "--baseline", "nobody"], "Rows: 'DHRD α=1 β=1 · smollm2'"),
        (["{results}", "--csv", "{empty}/no/folder.csv"], "Cannot write"),
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
    for flag in ("--picture", "--mark"):
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
