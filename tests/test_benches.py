"""Bench files are read, refused with their name, joined to rows, and shown."""

from __future__ import annotations

import doctest

import pytest
from bench_files import SETTINGS, side, write_bench
from result_files import accuracy_task, cot_task, student, write_results
from rich.console import Console

from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report import throughput
from dhrd_plugin.report.benches import Speed, load_benches, throughput_of
from dhrd_plugin.report.results import load_runs
from dhrd_plugin.report.summary import summarise
from dhrd_plugin.report.throughput import (
    ratios,
    rich_ratios,
    rich_throughput,
    throughput_markdown,
    throughput_tables,
)

DHRD = student("DHRD (α=1 β=1)", seed=0)
PLAIN_SETTINGS = {key: value for key, value in SETTINGS.items() if not key.startswith("cot")}
HF = {"model": "hf", "model_args": {"pretrained": "some/backbone", "dtype": "float32"}}


@pytest.fixture
def whole(tmp_path):
    """A bench of all four sides, one of them out of memory."""
    return write_bench(
        tmp_path / "bench_1.json",
        side("pooled", DHRD, 400.0, cost_per_1000=0.0021),
        side("plain", {"model": "AutoModelForSequenceClassification"}, 320.0, batch_size=16),
        {**side("loglikelihood", HF, 1.0), "queries_per_second": None, "problem": "out of memory"},
        side("cot", DHRD, 4.0, documents=8),
    )


def render(renderable, width=80):
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_a_row_finds_the_throughput_of_its_own_model_and_way_of_answering(tmp_path):
    write_results(tmp_path / "a", {"copa": accuracy_task([1, 0, 1])}, config=DHRD)
    write_results(tmp_path / "b", {"copa_cot": cot_task([1, 0, 0], [0, 0, 1])}, config=DHRD)
    write_results(tmp_path / "c", {"copa": accuracy_task([0, 0, 1])}, config=HF)
    pooled = student("pooled (α=0)", seed=0)
    write_results(tmp_path / "d", {"copa": accuracy_task([1, 1, 1])}, config=pooled)
    other_seed = student("DHRD (α=1 β=1)", seed=1)
    sides = [side("pooled", other_seed, 400.0), side("loglikelihood", HF, 100.0)]
    write_bench(tmp_path / "bench_1.json", *sides, side("cot", DHRD, 4.0))
    write_bench(tmp_path / "bench_2.json", side("pooled", DHRD, 500.0), date=2.0)
    broken = side("pooled", DHRD, 1.0) | {"queries_per_second": None}
    write_bench(tmp_path / "bench_3.json", broken, date=3.0)

    rows = summarise(load_runs([str(tmp_path)])).rows
    benches = load_benches([tmp_path])
    found = {row.name: throughput_of(row, benches) for row in rows}
    speeds = {name: side and side.queries_per_second for name, side in found.items()}
    assert speeds == {
        "DHRD (α=1 β=1) · smollm2": 500.0,  # the newest; of any seed of the recipe
        "DHRD (α=1 β=1) · smollm2 (CoT)": 4.0,
        "hf backbone": 100.0,
        "pooled (α=0) · smollm2": None,
    }


def test_chains_of_thought_of_another_length_are_not_the_rows(tmp_path):
    write_results(tmp_path, {"copa_cot": cot_task([1, 0, 0], [0, 0, 1])}, config=DHRD)
    short = side("cot", {**DHRD, "gen_kwargs": {"max_gen_toks": 40}}, 4.0)
    benches = load_benches([write_bench(tmp_path / "bench_1.json", short)])
    (row,) = summarise(load_runs([str(tmp_path)])).rows
    assert throughput_of(row, benches) is None


def test_files_are_read_once_and_with_their_figures(whole):
    (bench,) = load_benches([whole, whole.parent, str(whole)])
    pooled, _, scored, cot = bench.sides
    assert (pooled.name, pooled.mark, cot.mark) == ("DHRD (α=1 β=1) · smollm2", "", " (CoT)")
    assert pooled.recipe == cot.recipe != scored.recipe
    assert (pooled.speed, scored.speed) == (Speed(400.0, 360.0, 500.0), None)
    assert (cot.tokens_per_query, cot.repeats, cot.latencies) == (227.4, 2, 10)
    assert (bench.task, bench.documents, cot.documents) == ("copa", 10, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "dhrd.bench/9"}, "'dhrd.bench/9'"),
        ({"date": None}, "TypeError"),
        ({"sides": [{"kind": "pooled"}]}, "'config'"),
        ({"hardware": {"cpu": "Some CPU", "threads": 2}}, "hardware.cores"),
        ({"sides": [side("cot", DHRD, 4.0)], "settings": PLAIN_SETTINGS}, "settings.cot_max"),
        ({"sides": [side("fast", DHRD, 4.0)]}, "kind is 'fast'"),
        ({"sides": [side("pooled", DHRD, 4.0, latency_p50="12 ms")]}, "latency_p50 is '12 ms'"),
        ({"sides": [side("pooled", {"dhrd": {"setting": "x"}}, 4.0)]}, "KeyError"),
    ],
)
def test_what_is_no_bench_is_refused_with_its_name(tmp_path, change, message):
    path = write_bench(tmp_path / "bench_1.json", **change)
    with pytest.raises(DHRDError) as refused:
        load_benches([tmp_path])
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


def test_a_torn_file_and_an_empty_folder_are_refused(whole, tmp_path):
    whole.write_text(whole.read_text()[:-9])
    with pytest.raises(DHRDError, match=r"bench_1\.json: cannot be read as JSON"):
        load_benches([whole])
    with pytest.raises(DHRDError, match=r"no bench_.*dhrd-bench --student"):
        load_benches([tmp_path / "empty"])


def test_ratios_are_of_medians_with_what_the_repeats_allow(whole):
    found = {(r.kind, r.other): r.times for r in ratios(load_benches([whole])[0])}
    assert found.keys() == {("pooled", "plain"), ("pooled", "cot"), ("plain", "cot")}
    assert found["pooled", "cot"] == pytest.approx((100.0, 360 / 5, 500 / 3.6))
    shown = render(rich_ratios(load_benches([whole])[0]))
    assert "pooled head       CoT                100×      72–139" in shown


def test_terminal_table_fits_80_columns_and_says_what_was_measured(whole):
    lines = render(rich_throughput(load_benches([whole]))).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    rows = [" ".join(line.split()) for line in lines]
    assert "pooled head 400 4 10 96 1.50 0.0021 100" in rows
    assert "(360–500) 12.5" in rows
    assert "log-likelihood – 4 10 96 1.50 – –" in rows
    assert "CoT 4 4 10 96 1.50 – 1" in rows
    said = " ".join(text.split())
    assert "10 documents, from the prompt's text to the answer" in said
    assert "CoT: the first 8 of these documents, 2 runs; prompt: task copa_cot, at most 500" in said
    assert "log-likelihood: out of memory" in said
    assert "plain classifier: the largest batch size" not in said  # its one batch held them all
    assert "Some CPU, cores: 2, threads: 2; float32; torch 2.13.0, lm_eval 0.4.13." in said


def test_what_did_not_run_to_its_end_says_only_that(tmp_path):
    cut = side("pooled", DHRD, 400.0, problem="interrupted")
    unmeasured = {"queries_per_second": None, "concurrency": None, "seconds": []}
    failed = side("cot", DHRD, 1.0, engine="openai", problem="404", precision="bfloat16")
    path = write_bench(tmp_path / "bench_1.json", cut, failed | unmeasured)
    notes = throughput_tables(load_benches([path]))[0].notes
    assert "pooled head: interrupted after 2 timed runs" in notes
    assert [note for note in notes if note.startswith("CoT")] == ["CoT: 404"]
    assert "threads: 2; pooled head in float32, CoT in bfloat16; torch" in notes[-1]


def test_what_serves_by_itself_and_a_best_size_at_the_end_are_told(tmp_path):
    served = side("cot", {"model": "vllm"}, 40.0, engine="vllm", concurrency=99, batch_size=None)
    largest = side("pooled", DHRD, 400.0, batch_size=16, documents=99)
    path = write_bench(tmp_path / "bench_1.json", largest, served, documents=99)
    (table,) = throughput_tables(load_benches([path]))
    assert [row[:3] for row in table.rows] == [
        ["pooled head", "400\n(360–500)", "16"],
        ["CoT (vllm)", "40\n(36–50)", "99"],
    ]
    notes = "\n".join(table.notes)
    assert "vLLM, which was given all 99 at once and batches by itself" in notes
    assert "pooled head: the largest batch size was the fastest" in notes


def test_markdown_leaves_out_columns_without_a_value(tmp_path):
    settings = SETTINGS | {"price_per_hour": 3.6}
    alone = side("pooled", DHRD, 1234.5, cost_per_1000=0.5, peak_memory=None)
    path = write_bench(tmp_path / "bench_1.json", alone, settings=settings)
    lines = throughput_markdown(load_benches([path])).splitlines()
    assert lines[0] == "**DHRD (α=1 β=1) · smollm2 on copa, Some CPU, threads: 2**"
    assert lines[2:5] == [
        "|  | queries/s | batch<br>size | p50, p95<br>ms | tokens<br>+ written | USD<br>/1,000 |",
        "| --- | --: | --: | --: | --: | --: |",
        "| pooled head | 1,230<br>(1,110–1,540) | 4 | 10<br>12.5 | 96 | 0.5 |",
    ]
    assert "- Cost: at 3.6 USD per hour of the machine." in lines
    assert not [line for line in lines if line.startswith(("- Memory", "- CoT"))]


def test_rates_keep_three_digits():
    result = doctest.testmod(throughput)
    assert result.attempted
    assert not result.failed
