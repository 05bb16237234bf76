"""Markdown, LaTeX, CSV and JSON: the same numbers, each in its own syntax."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from result_files import accuracy_task, rows, write_results, write_study

from dhrd_plugin.report.exports import as_json, latex, markdown, tidy_csv
from dhrd_plugin.report.summary import Row, Summary
from dhrd_plugin.report.table import grid, notes

NASTY = r"a_b & c|d * 50% #1 $x$ {y} ~^\ <z> `q` [l] α→β"


@pytest.fixture(scope="module")
def summary(tmp_path_factory) -> Summary:
    return rows(write_study(tmp_path_factory.mktemp("results")), baseline="pooled")[0]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Summary:
    """A row and a task with all the characters that some format reserves."""
    folder = tmp_path_factory.mktemp("nasty")
    task = {"my_task": accuracy_task([1, 0], "copa")}
    write_results(folder, task, config={"model": "hf"})
    return rows(f"{NASTY}={folder}", folder, baseline="hf")[0]


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"[+-]?\d+\.\d", text))


def test_markdown_and_latex_hold_the_numbers_of_the_table(summary):
    lines = [line for _, cells in grid(summary).rows for cell in cells for line in cell]
    expected = numbers("\n".join([*(line.text for line in lines), *notes(summary)]))
    assert numbers(markdown(summary)) == expected
    assert numbers(latex(summary).replace("$-$", "-").replace("--", "–")) == expected
    strong = sum(line.strong for line in lines)
    assert markdown(summary).count(r" \***") == latex(summary).count(" *}") == strong > 0


def test_csv_and_json_hold_all_numbers_unrounded(summary):
    """An empty field of CSV is null in JSON."""
    content = json.loads(as_json(summary))
    lines = list(csv.DictReader(tidy_csv(summary).splitlines()))
    differences = 0
    for row, in_json in zip(summary.rows, content["rows"], strict=True):
        for task, metric, n, score, difference in estimates(row):
            cell = in_json["cells"].get(task)
            assert vars(score) == (cell["scores"][metric] if cell else in_json["average"])
            expected = {"row": row.name, "task": task, "metric": metric, "n": n} | vars(score)
            if difference is not None:
                differences += 1
                found = cell["differences"][metric] if cell else in_json["average_difference"]
                assert found == {**vars(difference), "significant": difference.significant}
                names = {"difference": "value", "difference_low": "low", "difference_high": "high"}
                names |= {"p": "p_value"}
                names |= {k: k for k in ("relative", "test", "p_adjusted", "significant")}
                expected |= {"baseline": summary.baseline}
                expected |= {name: found[key] for name, key in names.items()}
            line = lines.pop(0)
            assert line == {
                key: "" if expected.get(key) is None else str(expected[key]) for key in line
            }
    assert not lines and differences == sum(len(row.differences) for row in summary.rows) > 0
    assert content["notes"] == notes(summary) and content["average_over"] == ["cb", "copa"]
    assert content["columns"][0]["n"] == 56 and len(content["rows"][0]["files"]) == 3


def estimates(row: Row) -> Iterator[tuple]:
    """(task, metric, documents, score, difference) as the table has them, the average last."""
    for task, cell in row.cells.items():
        for metric, score in cell.scores.items():
            yield task, metric, cell.n, score, cell.differences.get(metric)
    if row.average is not None:
        yield "SuperGLUE", "average", None, row.average, row.average_difference


def test_markdown_cells_stay_cells_whatever_the_names(nasty):
    table = [line for line in markdown(nasty).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}
    assert r"c\|d \* 50%" in markdown(nasty) and r"\<z> \`q\` \[l]" in markdown(nasty)


def test_latex_escapes_whatever_has_a_meaning(nasty):
    text = latex(nasty)
    escaped = (
        r"a\_b \& c\textbar{}d * 50\% \#1 \$x\$ \{y\} \textasciitilde{}\textasciicircum{}"
        r"\textbackslash{} \textless{}z\textgreater{} `q` [l] $\alpha$$\to$$\beta$"
    )
    assert f"\n{escaped} & 50.0" in text
    assert r" & my\_task \\" in text
    assert {line.count(" & ") for line in text.splitlines() if line.endswith(r" \\")} == {1}


def test_latex_takes_no_name_for_an_argument_of_the_row_above(tmp_path):
    write_results(tmp_path, {"copa": accuracy_task([1, 0])}, config={"model": "hf"})
    text = latex(rows(f"[v2]={tmp_path}", f"*={tmp_path}")[0])
    assert "\n{}[v2] & 50.0" in text and "\n{}* & 50.0" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(summary, nasty, tmp_path):
    bodies = [latex(summary), latex(nasty)]
    captions = [line[2:] for body in bodies for line in body.splitlines() if line.startswith("% ")]
    content = "\n\n".join([*bodies, *(c for c in captions if not c.startswith("Needs"))])
    source = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{content}"
    (tmp_path / "report.tex").write_text(source + "\n\\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,  # it asks for files that it does not find
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_summary_without_baseline_or_average_has_no_columns_for_them(tmp_path):
    write_results(tmp_path, {"copa": accuracy_task([1, 0])}, config={"model": "hf"})
    summary, _ = rows(tmp_path)
    assert "rel." not in latex(summary) and "Δ" not in markdown(summary)
    (line,) = csv.DictReader(tidy_csv(summary).splitlines())
    assert (line["value"], line["difference"], line["significant"]) == ("50.0", "", "")
