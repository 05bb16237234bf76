"""What the table's cells and notes say, as far as it applies."""

from __future__ import annotations

import numpy as np
from result_files import (
    DHRD,
    HF,
    POOLED,
    accuracy_task,
    cb_task,
    cot_task,
    rows,
    student,
    write_results,
    write_study,
)

from dhrd_plugin.report.summary import Summary
from dhrd_plugin.report.table import grid, notes


def texts(summary: Summary) -> list[str]:
    heads, body = grid(summary)
    cells = [line.text for _, cells in body for cell in cells for line in cell]
    return [*(text for head in heads for text in head), *cells, *notes(summary)]


def test_the_relative_change_stands_beside_the_average(tmp_path):
    summary, by_name = rows(write_study(tmp_path), baseline="pooled")
    heads, body = grid(summary)
    assert heads[-2:] == [["SuperGLUE", "average"], ["rel."]]
    relative = {name: cells[-1][0].text for name, cells in body if name != "  Δ"}
    assert set(relative.values()) == {""}
    ours, theirs = (by_name[f"{setting} · smollm2"].average.value for setting in (DHRD, POOLED))
    assert body[2][0] == "  Δ"
    assert body[2][1][-1][0].text == f"{100 * (ours / theirs - 1):+.1f}%"
    assert body[-1][1][-1][0].text == "–"  # the CoT row has no average


def test_notes_say_what_was_tested_and_corrected(tmp_path):
    golds = (np.arange(60) % 3).tolist()
    right = {"base": 30, "other": 40}
    for name, n in right.items():
        tasks = {
            "cb": cb_task(golds, golds[:n] + [2] * (60 - n)),
            "copa": accuracy_task([1] * n + [0] * (60 - n)),
        }
        write_results(tmp_path / name, tasks, config={"model": name})
    summary, _ = rows(tmp_path, baseline="base")
    (note,) = [note for note in notes(summary) if note.startswith("*:")]
    assert "(4: every row, task and metric, and the average)" in note
    assert "exact McNemar" in note and "bootstrap" in note and "t-test" not in note
    assert not any(note.startswith(("*", "Δ")) for note in notes(rows(tmp_path)[0]))


def test_partial_evaluations_are_marked(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=HF, n_total=100)
    partial = {"copa": accuracy_task([1, 0])}
    write_results(tmp_path / "b", partial, config={"model": "dummy"}, n_total=100)
    found = texts(rows(tmp_path)[0])
    assert "n=3 of 100" in found and "n=2" in found
    assert found[-1].endswith("copa (n=3) none at all.")


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
    text = " ".join(notes(rows(tmp_path)[0]))
    row = "DHRD · smollm2"
    assert (
        "Answers that name no choice, counted as wrong, in percent: "
        f"{row} (CoT): copa 33.3, wic 66.7; {row} (CoT, sampled): copa 0.0."
    ) in text
    assert "(zero-shot): tasks the student has no head for" in text
    del tasks["copa_cot"], tasks["copa_cot_sampled"], tasks["wic_cot"]
    write_results(tmp_path / "pooled", tasks, config=student("DHRD", 1))
    text = " ".join(notes(rows(tmp_path / "pooled")[0]))
    assert "name no choice" not in text and "(zero-shot)" not in text
