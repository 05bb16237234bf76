"""The report as a page: what stands in it, that it needs no network, and how a browser runs it."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Chromium, Page, needs_chromium
from result_files import DHRD, POOLED, accuracy_task, student, write_results, write_study

from dhrd_plugin.report import html, plots
from dhrd_plugin.report.benches import Bench, Side
from dhrd_plugin.report.estimates import Difference, Estimate
from dhrd_plugin.report.html import html_report
from dhrd_plugin.report.results import load_runs
from dhrd_plugin.report.summary import Row, Summary, summarise
from dhrd_plugin.report.table import estimate_line, notes

HOSTILE = "<script>alert(1)</script> & url(http://a.example)"


@dataclass
class Cell:
    value: float | None
    text: str = ""
    strong: bool = False


class Reader(HTMLParser):
    """A page's tags with their attributes, its text, and its tables as rows of cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[Cell]]] = []
        self._cell = Cell(None)
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            value = dict(attrs).get("data-value")
            self._cell = Cell(float(value) if value else None)
            self.tables[-1][-1].append(self._cell)
        elif tag == "div" and self._cell.text:
            self._cell.text += "\n"
        elif tag == "strong":
            self._cell.strong = True

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._cell = Cell(None)

    def handle_data(self, data):
        shown = data.replace("\N{NO-BREAK SPACE}", " ")
        self.text += shown
        self._cell.text += shown

    def values(self, name: str) -> list[str]:
        """Of the attribute, wherever it stands."""
        return [attrs[name] for _, attrs in self.tags if attrs.get(name) is not None]


def side(kind, low: float, median: float, high: float) -> Side:
    speed = {"queries_per_second": median, "low": low, "high": high}
    return Side(kind=kind, name="any", recipe="", mark="", batch_size=8, **speed)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Summary, str]:
    """Three seeds of two settings, a zero-shot model and its CoT, and a row of a hostile name; with
    throughput, and with one picture twice."""
    folder = write_study(tmp_path_factory.mktemp("study"))
    write_results(folder / "other", {"copa": accuracy_task([1, 0] * 50)}, config={"model": "dummy"})
    parts = [str(folder / part) for part in (DHRD, POOLED, "hf")]
    runs = load_runs([*parts, f"{HOSTILE}={folder / 'other'}"])
    summary = summarise(runs, POOLED)
    bench = Bench(
        path=Path("bench.json"),
        date=0.0,
        task="copa",
        documents=100,
        settings={"repeats": 3, "batch_sizes": [8], "batch_tokens": 1024},
        hardware={"cpu": "CPU", "cores": 2, "threads": 2},
        versions={"torch": "2.6"},
        sides=(side("pooled", 1200, 1230, 1260), side("plain", 90, 96.2, 99)),
    )
    picture = plots.draw(summary)["tasks"]
    figures = {"tasks": picture, "throughput-copa": picture}
    return summary, html_report(summary, runs=runs, benches=[bench], figures=figures)


@pytest.fixture(scope="module")
def summary(study) -> Summary:
    return study[0]


@pytest.fixture(scope="module")
def page(study) -> str:
    return study[1]


def test_nothing_is_loaded_from_outside(page):
    reader = Reader(page)
    sources = [v for name in ("src", "srcset", "href", "xlink:href") for v in reader.values(name)]
    assert [source for source in sources if not source.startswith(("#", "data:"))] == []
    styles = [*re.findall("<style.*?</style>", page, re.S), *reader.values("style")]
    assert re.findall(r"@import|url\((?!#)", "".join(styles)) == []
    (policy,) = (value for value in reader.values("content") if "-src" in value)
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


def test_references_within_the_page_lead_to_one_place(page):
    reader = Reader(page)
    ids = reader.values("id")
    assert [tag for tag, _ in reader.tags].count("svg") == 2
    assert len(ids) == len(set(ids))
    references = {value[1:] for value in reader.values("xlink:href") if value.startswith("#")}
    references |= set(re.findall(r"url\(#([^)]*)\)", page))
    assert references
    assert references <= set(ids)


def test_names_are_text(page):
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert reader.text.count(HOSTILE) >= 3  # scores, differences, files; and the picture's legend


def columns(summary: Summary, row: Row) -> Iterator[tuple[Estimate | None, Difference | None]]:
    """Score and difference per task and metric, then of the average."""
    for column in summary.columns:
        cell = row.cells.get(column.task)
        for metric in column.metrics:
            yield (cell.scores.get(metric), cell.differences.get(metric)) if cell else (None, None)
    yield row.average, row.average_difference


def test_every_score_and_difference_stands_in_its_cell(summary, page):
    reader = Reader(page)
    _, heads, *body = reader.tables[0]
    assert [head.text for head in heads] == ["Model", "F1", "acc", "acc", "acc", "average"]
    for row, (name, *cells) in zip(summary.rows, body, strict=True):
        assert name.text == row.name
        for cell, (score, difference) in zip(cells, columns(summary, row), strict=True):
            assert cell.value == (score and score.value)
            texts = [estimate_line(score).text]
            if difference is not None:
                texts.append(f"Δ {estimate_line(difference).text}")
            assert cell.text == "\n".join(texts)
            assert cell.strong == (difference is not None and difference.significant)
    assert all(note in reader.text for note in notes(summary))
    assert all(file in reader.text for row in summary.rows for file in row.files)


def test_every_test_stands_in_its_row(summary, page):
    base = [score for score, _ in columns(summary, summary.rows[0])]
    expected = [
        (row.name, theirs, score, difference)
        for row in summary.rows
        for theirs, (score, difference) in zip(base, columns(summary, row), strict=True)
        if difference is not None
    ]
    _, *body = Reader(page).tables[1]
    assert 0 < sum(difference.significant for *_, difference in expected) < len(expected)
    for (name, theirs, ours, d), cells in zip(expected, body, strict=True):
        assert cells[0].text == name
        numbers = [theirs.value, ours.value, d.value, d.low, d.relative, d.p_value, d.p_adjusted]
        assert [cell.value for cell in (*cells[3:8], *cells[9:])] == numbers
        assert cells[6].text == f"{d.low:+z.1f} to {d.high:+z.1f}"
        assert cells[5].text.endswith(" *") == d.significant
        assert cells[5].strong == cells[10].strong == d.significant


def test_throughput_is_sorted_by_its_numbers(page):
    _, *body = Reader(page).tables[2]
    assert [row[1].text for row in body] == ["1,230\n(1,200–1,260)", "96.2\n(90–99)"]
    assert [row[1].value for row in body] == [1230, 96.2]
    assert doctest.testmod(html).failed == 0


def test_without_baseline_bench_or_picture_their_sections_are_left_out(tmp_path):
    for seed, alpha in enumerate((0.5, 1.0)):
        config = student(f"DHRD α={alpha}", seed)
        config["dhrd"]["training"] = {"alpha": alpha, "lr": 1e-3, "tasks": ["copa"], "dev": {}}
        tasks = {"copa": accuracy_task([1, 0] * (1 + seed))}
        write_results(tmp_path / str(seed), tasks, config=config)
    runs = load_runs([str(tmp_path)])
    page = html_report(summarise(runs), runs=runs, benches=[], figures={})
    reader = Reader(page)
    scores, files, training = reader.tables
    assert (len(scores), len(files)) == (2 + 2, 1 + 2)
    assert scores[0][1].text == "copa n=4"
    assert scores[2][1].text.endswith("\nn=2")
    assert [[cell.text for cell in row[1:]] for row in training] == [["alpha"], ["0.5"], ["1"]]
    assert "All students, besides: lr 0.001, tasks copa." in reader.text
    assert re.findall("<h2>(.*)</h2>", page) == [
        "Scores",
        "How to read it",
        "Where the numbers come from",
    ]


@pytest.fixture(scope="module")
def browser():
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(page, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def shown(page: Page, table: int, column: int) -> list[str]:
    """A column's texts from top to bottom."""
    cells = f"document.querySelectorAll('table')[{table}].tBodies[0].rows"
    return page.evaluate(f"[...{cells}].map((row) => row.cells[{column}].textContent)")


def head(table: int, column: int) -> str:
    return f"section:nth-of-type({table + 1}) thead tr:last-child th:nth-child({column + 1})"


@needs_chromium
def test_opens_from_disk_in_silence_and_runs_no_other_script(browser, file):
    tab = browser.open(file)
    assert tab.complaints == []
    assert tab.requests == [file.as_uri()]
    tab.evaluate(
        "{ const script = document.createElement('script');"
        "script.textContent = 'window.ran = true'; document.body.append(script); }"
    )
    assert tab.evaluate("window.ran") is None
    assert "Content Security Policy" in str(tab.complaints)


@needs_chromium
def test_a_click_sorts_and_another_one_the_other_way_round(browser, file, summary):
    tab = browser.open(file)
    names = [row.name for row in summary.rows]
    f1 = {row.name: row.cells["cb"].scores["f1"].value for row in summary.rows if "cb" in row.cells}
    without = [name for name in names if name not in f1]
    assert len(without) == 2
    ascending = sorted(f1, key=f1.__getitem__)
    for order, expected in (("ascending", ascending), ("descending", ascending[::-1])):
        tab.click(f"{head(0, 1)} button")
        assert shown(tab, 0, 0) == expected + without  # in the order that they had
        assert tab.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
        assert tab.evaluate(f"document.querySelector('{head(0, 1)}').ariaSort") == order
    tab.click(f"{head(0, 0)} button")
    assert shown(tab, 0, 0) == sorted(names, key=str.casefold)
    assert tab.complaints == []


@needs_chromium
def test_sorting_is_stable_and_numeric(browser, file, summary):
    tab = browser.open(file)
    before = list(zip(shown(tab, 1, 1), shown(tab, 1, 0), strict=True))
    tab.click(f"{head(1, 1)} button")
    tab.click(f"{head(1, 1)} button")
    tasks = sorted({task for task, _ in before}, key=str.casefold, reverse=True)
    expected = [pair for task in tasks for pair in before if pair[0] == task]
    assert list(zip(shown(tab, 1, 1), shown(tab, 1, 0), strict=True)) == expected
    tab.click(f"{head(1, 10)} button")
    adjusted = [d.p_adjusted for row in summary.rows for d in row.differences]
    values = tab.evaluate(
        "[...document.querySelectorAll('section:nth-of-type(2) td:last-child')]"
        ".map((cell) => Number(cell.dataset.value))"
    )
    assert values == sorted(adjusted)


@needs_chromium
def test_the_keyboard_sorts_too(browser, file, summary):
    tab = browser.open(file)
    for _ in range(3):  # the table's region, its first head, its second
        tab.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "F1"
    tab.press("Enter")
    enter = shown(tab, 0, 1)
    tab.press(" ")
    assert shown(tab, 0, 1)[:3] == enter[:3][::-1]
    assert tab.evaluate("document.activeElement.closest('th').ariaSort") == "descending"


def luminance(color: str) -> float:
    """Relative, of "rgb(r, g, b)" (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_readable_light_and_dark_on_a_small_screen(browser, file, dark):
    tab = browser.open(file, width=400, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    style = "getComputedStyle(document.querySelector('{}')).{}"
    paper = luminance(tab.evaluate(style.format("body", "backgroundColor")))
    assert (paper < 0.5) == dark
    for selector in ("body", ".quiet", "caption", "figcaption"):
        ink = luminance(tab.evaluate(style.format(selector, "color")))
        lighter, darker = max(ink, paper), min(ink, paper)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector
