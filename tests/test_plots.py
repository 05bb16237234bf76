"""Pictures: what is drawn is what was given, nothing is cut off, and files are the same twice."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from result_files import (
    DHRD,
    HF,
    accuracy_task,
    labels_task,
    rows,
    student,
    write_results,
    write_study,
)

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report import plots
from dhrd_plugin.report.benches import Bench, Side
from dhrd_plugin.report.plots import style
from dhrd_plugin.report.results import load_runs
from distill.calibration import reliability

LONG = "a student of which somebody wanted to say everything in the name of its row, a file's too"


def draw(folder: Path, benches=()):
    summary, by_name = rows(folder)
    return plots.draw(summary, load_runs([str(folder)]), benches), by_name


def bench(task: str, by_name, rates: dict[str, float]) -> Bench:
    """Rates by row, in queries per second."""
    sides = [
        Side(
            kind="pooled",
            name=name,
            recipe=by_name[name].recipes[0],
            mark=by_name[name].mark,
            queries_per_second=rate,
            low=0.9 * rate,
            high=1.2 * rate,
        )
        for name, rate in rates.items()
    ]
    return Bench(Path("bench.json"), 0.0, task, 100, {}, {}, {}, tuple(sides))


def points(axes) -> dict[str, tuple[list[float], list[float]]]:
    """(x, y) by label."""
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


def spans(axes) -> list[np.ndarray]:
    """(intervals, end, coordinate) per row and direction, in the order of drawing."""
    return [np.array(collection.get_segments()) for collection in axes.collections]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("study"))
    return draw(folder)


def test_scores_and_intervals_by_task(study):
    figures, by_name = study
    axes = figures["tasks"].axes[0]
    groups = [label.get_text() for label in axes.get_yticklabels()]
    assert groups == ["cb\nF1", "cb\nacc", "copa\nacc", "scenes\nacc", "SuperGLUE\naverage"]
    assert list(points(axes)) == list(by_name)
    for row, segments in zip(by_name.values(), spans(axes), strict=True):
        cells = row.cells.items()
        scores = {
            f"{task}\n{m.upper() if m == 'f1' else m}": e
            for task, cell in cells
            for m, e in cell.scores.items()
        }
        scores |= {"SuperGLUE\naverage": row.average} if row.average else {}
        x, y = points(axes)[row.name]
        nearest = [groups[np.abs(axes.get_yticks() - value).argmin()] for value in y]
        assert dict(zip(nearest, x, strict=True)) == {g: e.value for g, e in scores.items()}
        drawn = {g: tuple(ends[:, 0]) for g, ends in zip(nearest, segments, strict=True)}
        assert drawn == {g: (e.low, e.high) for g, e in scores.items()}
    assert axes.get_xlabel() == "score (points), 95% interval"


def test_accuracy_over_throughput_is_by_task_where_a_row_has_no_average(study, tmp_path):
    _, by_name = study
    rates = {f"{DHRD} · smollm2": 400.0, "hf tiny (CoT)": 4.0}
    figures, _ = draw(write_study(tmp_path), [bench("copa", by_name, rates)])
    assert {name for name in figures if name.startswith("throughput")} == {"throughput-copa"}
    axes = figures["throughput-copa"].axes[0]
    scores = {name: by_name[name].cells["copa"].scores["acc"] for name in rates}
    assert points(axes) == {n: ([rate], [scores[n].value]) for n, rate in rates.items()}
    across, up = spans(axes)[:2]
    score = scores[f"{DHRD} · smollm2"]
    assert across[0] == pytest.approx(np.array([[360, score.value], [480, score.value]]))
    assert up[0] == pytest.approx(np.array([[400, score.low], [400, score.high]]))
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "queries per second on copa",
        "copa acc (points)",
    )


def test_the_average_is_over_the_throughput_on_one_task(study, tmp_path):
    """That of most rows; rates on another task are not mixed in."""
    _, by_name = study
    first, second, *_ = by_name
    benches = [
        bench("scenes", by_name, {first: 7.0}),
        bench("cb_cot", by_name, {first: 50.0, second: 60.0}),
    ]
    figures, _ = draw(write_study(tmp_path), benches)
    axes = figures["throughput"].axes[0]
    averages = {name: by_name[name].average.value for name in (first, second)}
    assert points(axes) == {
        first: ([50.0], [averages[first]]),
        second: ([60.0], [averages[second]]),
    }
    assert axes.get_xlabel() == "queries per second on cb"
    assert axes.get_ylabel() == "SuperGLUE average (points)"


def write_sweep(folder: Path, accuracies: dict[tuple[float, float], int], **training) -> None:
    """Students right on so many of 100 documents, by (α, β)."""
    for (alpha, beta), right in accuracies.items():
        config = student(f"α={alpha} β={beta} {training}", 0)
        config["dhrd"]["training"] = {"alpha": alpha, "beta": beta, "seed": 0, **training}
        made = accuracy_task([1] * right + [0] * (100 - right))
        write_results(folder / config["dhrd"]["setting"], {"copa": made}, config=config)


def test_map_over_alpha_and_beta_holds_students_that_differ_in_nothing_else(tmp_path):
    write_sweep(tmp_path, {(1, 1): 99, (0, 1): 98}, lr=1e-4)
    write_sweep(tmp_path, {(0, 1): 50, (0.5, 1): 70, (1, 0.5): 90}, lr=1e-3)
    figures, by_name = draw(tmp_path)
    axes, scale = figures["alpha-beta"].axes
    ticks = [
        [t.get_text() for t in labels]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels())
    ]
    assert ticks == [["0", "0.5", "1"], ["0.5", "1"]]
    drawn = axes.collections[0].get_array()
    assert drawn.tolist() == [[None, None, 90], [50, 70, None]]
    cells = {text.get_position(): text for text in axes.texts}
    estimate = by_name["α=1 β=0.5 {'lr': 0.001} · smollm2"].cells["copa"].scores["acc"]
    assert cells[2.5, 0.5].get_text() == f"90.0\n{estimate.low:.0f}–{estimate.high:.0f}"
    assert (cells[2.5, 0.5].get_color(), cells[0.5, 1.5].get_color()) == ("black", "white")
    assert scale.get_xlabel() == "copa acc (points)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("α, weight of the reasoning loss", "β")


def test_no_map_of_a_single_pair(tmp_path):
    write_sweep(tmp_path, {(1, 1): 99}, lr=1e-4)
    write_sweep(tmp_path, {(1, 1): 98}, lr=1e-3)
    assert "alpha-beta" not in draw(tmp_path)[0]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A figure's rows: two seeds with probabilities drawn at random, and their golds."""
    folder, rng = tmp_path_factory.mktemp("judged"), np.random.default_rng(0)
    probs = [rng.dirichlet([0.6] * 3, size=40) for _ in range(2)]
    golds = rng.integers(3, size=40)
    for seed, one in enumerate(probs):
        tasks = {"cb": labels_task(one.tolist(), golds.tolist())}
        write_results(folder / str(seed), tasks, config=student(DHRD, seed))
    decoded = accuracy_task([1] * 40, "cb", metric="exact_match")
    write_results(folder / "hf", {"cb_cot": decoded}, config=HF)
    return plots.draw(rows(folder / "0", folder / "1")[0], load_runs([str(folder)])), probs, golds


def test_reliability_diagram_pools_the_seeds_of_a_row(judged):
    figures, probs, golds = judged
    upper, lower = figures["reliability-cb"].axes
    expected = reliability(
        np.log(np.concatenate(probs)).tolist(), [frozenset({int(g)}) for g in [*golds, *golds]]
    )
    assert list(points(upper)) == [f"{DHRD} · smollm2, ECE {expected['ece']:.3f}"]
    together = np.concatenate(probs)
    confidence, right = together.max(1), together.argmax(1) == [*golds, *golds]
    bins = np.minimum((confidence * 15).astype(int), 14)  # no confidence lies on an edge
    means = [(confidence[bins == b].mean(), right[bins == b].mean()) for b in sorted({*bins})]
    assert np.array(upper.collections[0].get_offsets()) == pytest.approx(np.array(means))
    shares = lower.patches[0].get_data().values
    assert shares == pytest.approx(100 * np.bincount(bins, minlength=15) / 80)
    assert upper.get_ylabel() == "accuracy"
    assert "confidence" in lower.get_xlabel()


def test_coverage_is_the_mean_of_the_seeds_curves(judged):
    figures, probs, golds = judged
    x, y = points(figures["coverage-cb"].axes[0])[f"{DHRD} · smollm2"]
    assert x == pytest.approx(100 * np.arange(10, 41) / 40)
    for coverage, accuracy in ((50, y[10]), (100, y[-1])):
        by_seed = [
            reliability(np.log(one).tolist(), [frozenset({int(g)}) for g in golds]) for one in probs
        ]
        key = f"accuracy_at_{coverage}"
        assert accuracy == pytest.approx(100 * np.mean([seed[key] for seed in by_seed]))


def test_decoded_answers_have_no_confidence(study):
    figures, _ = study
    assert set(figures) == {"tasks"}
    assert [needs.partition(":")[0] for needs in plots.left_out(figures)] == [
        "accuracy against throughput",
        "scores over α and β",
        "reliability diagrams",
        "accuracy by coverage",
        "training curves",
        "histogram of rationales",
    ]


def all_figures(judged, tmp_path):
    """Every family that is made from results, with a row of a long name."""
    write_sweep(tmp_path, {(0, 1): 50, (1, 1): 70})
    summary, _ = rows(tmp_path)
    named = [replace(row, name=f"{row.name} {LONG}") for row in summary.rows]
    rates = bench("copa", {row.name: row for row in named}, {row.name: 9.0 for row in named})
    return judged[0] | plots.draw(replace(summary, rows=named), benches=[rates])


def shown_texts(figure) -> list[Text]:
    """All but the labels of ticks beyond an axis' ends."""
    beyond = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside = [tick for tick in ticks if not low <= tick.get_loc() <= high]
            beyond |= {label for tick in outside for label in (tick.label1, tick.label2)}
    texts = figure.findobj(Text)
    return [t for t in texts if t.get_text() and t.get_visible() and t not in beyond]


def test_no_text_is_small_or_cut_off(judged, tmp_path):
    figures = all_figures(judged, tmp_path)
    assert len(figures) == 5
    for name, figure in figures.items():
        with style.applied():
            figure.draw_without_rendering()
            texts = shown_texts(figure)
        for text in texts:
            box, page = text.get_window_extent(), figure.bbox
            assert text.get_fontsize() >= 7
            inside = min(box.x0, box.y0, page.x1 - box.x1, page.y1 - box.y1) > -1
            assert inside, (name, text.get_text(), box, page)
        assert figure.get_figwidth() == 3.3


def test_files_are_self_contained_and_the_same_whatever_the_user_has_configured(judged, tmp_path):
    figures = {"reliability-cb": judged[0]["reliability-cb"]}
    paths = plots.save(figures, tmp_path / "a")
    assert [path.name for path in paths] == ["reliability-cb.svg", "reliability-cb.png"]
    svg, png = (path.read_bytes() for path in paths)
    root = ElementTree.fromstring(svg)
    references = {v for e in root.iter() for k, v in e.items() if k.endswith("href")}
    assert references
    assert all(reference.startswith("#") for reference in references)
    assert svg.startswith(b"<svg")  # no document type, which names a file on a server
    assert all(target.startswith(b"#") for target in re.findall(rb"url\(([^)]*)", svg))
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith(DHRD) for text in texts)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == 990  # 3.3 inches
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "lines.linewidth": 9}):
        again = plots.save(figures, tmp_path / "b")
    assert [path.read_bytes() for path in again] == [svg, png]


def test_two_drawings_are_the_same_and_leave_matplotlib_as_it_was(tmp_path):
    write_sweep(tmp_path, {(0, 1): 50, (1, 1): 70})
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        first = draw(tmp_path)[0]
        assert dict(matplotlib.rcParams) == before
    second = draw(tmp_path)[0]
    assert list(first) == list(second) == ["tasks", "alpha-beta"]
    for name in first:
        assert plots.svg(first[name]) == plots.svg(second[name])


def test_rows_differ_in_colour_for_all_eyes_and_without_colour():
    looks = style.looks(str(i) for i in range(40)).values()
    assert len({(look.color, look.marker) for look in looks}) == 40  # of points
    assert len({(look.color, look.line) for look in looks}) == 35  # of lines
    # Machado, Oliveira & Fernandes (2009): a deuteranope's and a protanope's linear RGB.
    seen = {
        "all": np.eye(3),
        "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    }
    for matrix in seen.values():
        linear = [np.array(to_rgb(color)) ** 2.2 for color in style.COLORS]
        lightness = [np.cbrt(np.clip(np.array(matrix) @ color, 0, 1)) for color in linear]
        assert min(np.linalg.norm(a - b) for a, b in combinations(lightness, 2)) > 0.15


def test_without_matplotlib_the_command_to_install_it_is_named(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DHRDError, match=r"pip install 'dhrd\[plots\]'"):
        plots.draw(None)


def test_nothing_to_draw_and_nowhere_to_write(study, tmp_path):
    with pytest.raises(DHRDError, match=r"nothing to draw.*--train-log"):
        plots.save({}, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DHRDError, match=r"cannot write .*file"):
        plots.save(study[0], tmp_path / "file")
