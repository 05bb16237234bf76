"""`dhrd-report diff` as it is seen: on the terminal, in a pager, and as a page."""

from __future__ import annotations

import json
import pydoc
import re

import pytest
from browser import Chromium, needs_chromium
from conftest import REPO
from result_files import labels_task, sample, student, task_result, with_text, write_results

from dhrd_plugin.report.diff.cli import main

HOSTILE = "[bold]Is {} odd?[/nope] \x1b[31m<script>alert(1)</script> &amp;"
A = [[0.7, 0.3], [0.2, 0.8], [0.6, 0.4], [0.999, 0.001]]
B = [[0.4, 0.6], [0.75, 0.25], [0.45, 0.55], [0.002, 0.998]]
GOLDS = [1, 1, 1, 1]  # fixed, broken, fixed, fixed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder holds two models, `a` and `b`, on two tasks, the texts of one of them
    hostile, and rationales."""
    monkeypatch.chdir(tmp_path)
    for side, name, probs in (("a", "pooled", A), ("b", "DHRD", B)):
        tasks = {
            "cb": labels_task(probs, GOLDS, ("no", "yes"), "Is {} odd?"),
            "rte": labels_task(probs, GOLDS, ("no", HOSTILE), HOSTILE),
        }
        write_results(tmp_path / side, tasks, config=student(name, 0))
    line = {"task": "rte", "split": "validation", "index": 0, "rationale": HOSTILE}
    other = {"task": "cb", "rationale": "Because.", "origin": "hinted", "teacher": {"model": "big"}}
    (tmp_path / "r.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(line | other)}\n")
    return tmp_path


def run(capsys, *arguments: str) -> str:
    assert main(["a", "b", *arguments]) == 0
    return capsys.readouterr().out


def test_output_that_is_no_terminal(folder, capsys, monkeypatch):
    """The first documents, by kind; the file is what one wants to see."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(capsys, "--task", "cb", "--rationales", "r.jsonl", "--limit", "2")
    lines = "".join(f"{line.rstrip()}\n" for line in shown.splitlines())
    assert lines == (REPO / "tests" / "golden" / "diff_80.txt").read_text()


def test_documents_can_be_chosen(folder, capsys):
    shown = run(capsys, "--only", "broken", "--task", "cb,rte")
    assert re.findall(r"^(fixed|broken|both wrong): (\w+ \d)", shown, flags=re.MULTILINE) == [
        ("broken", "cb 1"),
        ("broken", "rte 1"),
    ]
    assert "not shown: 6." in shown


def test_data_is_shown_and_not_obeyed(folder, capsys, monkeypatch):
    """Neither rich's markup nor terminal escapes, in question, choice and rationale."""
    monkeypatch.setenv("COLUMNS", "400")
    told = HOSTILE.replace("\x1b", "␛")
    shown = run(capsys, "--task", "rte", "--limit", "1", "--rationales", "r.jsonl")
    assert "\x1b" not in shown
    assert shown.count(told.format(3)) == 1 and shown.count(told) >= 2


def test_on_a_terminal_a_pager_gets_it_all(folder, capsys, monkeypatch):
    paged: list[str] = []
    monkeypatch.setattr(pydoc, "pager", paged.append)
    plain = run(capsys)
    assert not paged
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    monkeypatch.delenv("LESS", raising=False)
    assert run(capsys) == ""
    (text,) = paged
    assert "\x1b[" in text and re.sub(r"\x1b\[[\d;]*m", "", text) == plain
    assert "\x1b[" in run(capsys, "--no-pager") and len(paged) == 1


def test_a_page_takes_the_documents_off_the_terminal(folder, capsys):
    shown = run(capsys, "--html", "diff.html")
    assert "diff.html" in shown and "by right answer" in shown and "Is 0 odd?" not in shown
    page = (folder / "diff.html").read_text()
    assert page.count("<article") == 8 and "http" not in page.replace("http-equiv", "")


def test_a_page_escapes_its_data(folder, capsys):
    run(capsys, "--html", "diff.html", "--rationales", "r.jsonl")
    page = (folder / "diff.html").read_text()
    assert "<script>alert" not in page and "\x1b" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp;amp;") > 3


def test_decoded_texts_are_shown_on_both(folder, capsys):
    """No choices are known where both decoded."""
    for side, text, right in (("a", "No.\nFinal Answer: no", 0.0), ("b", "So: yes", 1.0)):
        line = sample(0, {"idx": 0}, "yes", {"exact_match": right}, "answer")
        made = task_result(
            [with_text(line, "Odd?", text, text.split()[-1])], {"exact_match,answer": right}
        )
        write_results(folder / "cot" / side, {"cb_cot": made}, config=student(side, 0))
    assert main(["cot/a", "cot/b"]) == main(["cot/a", "cot/b", "--html", "cot.html"]) == 0
    shown = capsys.readouterr().out
    for text in (shown, re.sub(r"\s*<[^>]+>", "", (folder / "cot.html").read_text())):
        assert re.search(r"right answer: ?yes", text, flags=re.IGNORECASE)
        assert re.search(r"No\. *\n *Final Answer: no", text) and "So: yes" in text


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["a", "absent"], "absent: no such file or folder"),
        ([".", "b"], "holds 2 results"),
        (["a", "b", "--task", "copa"], "--task: copa is not in both"),
        (["a", "b", "--rationales", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["a", "b", "--html", "no/folder.html"], "Cannot write no/folder.html: No such file"),
    ],
)
def test_wrong_input_is_said_and_exits_with_2(folder, capsys, arguments, says):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dhrd-report diff: ") and says in captured.err


@needs_chromium
def test_the_page_in_a_browser(folder, capsys):
    run(capsys, "--html", "diff.html", "--rationales", "r.jsonl")
    shown = (
        "[...document.querySelectorAll('article')].filter(a => a.checkVisibility()).map(a => a.id)"
    )
    choose = """(name, value) => {{
        const field = document.forms[0].elements[name]; field.value = value;
        field.dispatchEvent(new Event('input', {{bubbles: true}})); }}"""
    with Chromium() as browser:
        page = browser.open(folder / "diff.html")

        def narrow(name: str, value: str) -> list[str]:
            page.evaluate(f"({choose.format()})({json.dumps(name)}, {json.dumps(value)})")
            return page.evaluate(shown)

        assert len(page.evaluate(shown)) == 8
        assert narrow("kind", "broken") == ["cb-1", "rte-1"]
        assert narrow("task", "rte") == ["rte-1"]
        assert page.evaluate("document.querySelector('output').value") == "1 of 8 documents"
        assert not page.evaluate("document.getElementById('cb').checkVisibility()")
        page.evaluate("location.hash = '#cb-3'")  # a shared address shows its document
        assert any("cb-3" in page.evaluate(shown) for _ in range(100))
        assert narrow("gold", "yes") == ["cb-3", "cb-0", "cb-2", "cb-1"]
        assert narrow("text", "IS 2 odd") == ["cb-2"]
        assert page.complaints == []
        assert page.requests == [(folder / "diff.html").as_uri()]
