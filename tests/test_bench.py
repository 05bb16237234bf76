"""`dhrd-bench` on a tiny student: every side's figures, its errors, and what it keeps."""

from __future__ import annotations

import json
import socket
import statistics
import threading
from types import SimpleNamespace

import pytest
import torch
from bench_files import side, write_bench
from chat_server import completion, serve  # noqa: F401 (a fixture)
from transformers import AutoTokenizer

from dhrd_plugin.bench import config as bench_config
from dhrd_plugin.bench import one_side
from dhrd_plugin.bench.checks import check_reachable, output_file
from dhrd_plugin.bench.cli import main
from dhrd_plugin.bench.plain import classify, load_plain
from dhrd_plugin.bench.sides import Plain, Pooled
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.report.benches import load_benches

N = 6
SIZES = (1, 4)


@pytest.fixture
def bench(student, made_tasks, tmp_path, monkeypatch, capsys):
    """Runs the command on made_weather, all sides in this process; returns its exit code, its bench
    (None without one) and what it wrote."""
    monkeypatch.setattr(one_side, "in_own_process", lambda generate, *args: generate(*args))
    common = {
        "--student": student,
        "--task": "made_weather",
        "--include-path": made_tasks,
        "--limit": N,
        "--repeats": 2,
        "--cot-limit": 3,
        "--cot-repeats": 2,
        "--cot-max-new-tokens": 5,
        "--output": tmp_path / "out",
    }

    def command(*flags, **changes):
        options = common | {f"--{key.replace('_', '-')}": value for key, value in changes.items()}
        argv = [str(part) for pair in options.items() for part in pair if pair[1] is not None]
        code = main([*argv, "--batch-sizes", *map(str, SIZES), *flags])
        files = list((tmp_path / "out").glob("*.json"))
        found = load_benches(files)[0] if files else None
        return SimpleNamespace(code=code, bench=found, files=files, **capsys.readouterr()._asdict())

    return command


def n_bytes(texts):
    """Tokens of the byte-level tokenizer."""
    return sum(len(text.encode()) for text in texts) / len(texts)


def test_every_side_answers_the_same_documents(bench, made_tasks):
    done = bench("--price-per-hour", "3.6")
    assert done.code == 0, done.err
    assert done.bench.hardware["device"] == "cpu"
    assert done.bench.versions["torch"] == torch.__version__
    sides = {side.kind: side for side in done.bench.sides}
    assert list(sides) == ["pooled", "plain", "loglikelihood", "cot"]
    assert [side.documents for side in sides.values()] == [N, N, N, 3]

    rows = (made_tasks / "made_weather-validation.jsonl").read_text().splitlines()[:N]
    prompts = [json.loads(row)["text"] + " Is it wet?" for row in rows]
    assert sides["pooled"].input_tokens == sides["plain"].input_tokens == n_bytes(prompts)
    # " no" and " yes" behind the prompt, less the last byte, which is only predicted
    assert sides["loglikelihood"].input_tokens == 2 * n_bytes(prompts) + 2 + 3
    assert sides["cot"].input_tokens == n_bytes([f"{p}\nReasoning:" for p in prompts[:3]])
    assert sides["cot"].generated_tokens == 5
    assert sides["cot"].mark == " (CoT)"
    assert sides["cot"].recipe != sides["pooled"].recipe  # its rationales are shorter than usual

    records = {r["kind"]: r for r in json.loads(done.files[0].read_text())["sides"]}
    for kind, measured in sides.items():
        record = records[kind]
        speed = measured.documents / statistics.median(record["seconds"])
        assert measured.queries_per_second == pytest.approx(speed)
        assert measured.cost_per_1000 == pytest.approx(1 / speed)  # 0.001 dollars a second
        assert measured.low <= speed <= measured.high
        assert measured.batch_size in SIZES
        assert {trial["size"] for trial in record["search"]} == set(SIZES)
        assert (measured.repeats, measured.latencies) == (2, measured.documents)
        assert 0 < measured.latency_p50 <= measured.latency_p95
        assert measured.peak_memory > 2**20
        assert measured.precision == "float32"
        assert measured.problem is None
    assert "pooled head: timed run 2" in done.err
    assert "the student's training form" in " ".join(done.out.split())
    assert str(done.files[0]) in done.out


def test_a_candidates_task_is_measured_too(bench):
    done = bench("--sides", "pooled", "plain", task="made_because")
    assert done.code == 0, done.err
    pooled, plain = done.bench.sides
    assert pooled.input_tokens == plain.input_tokens > 0


def test_sides_that_fail_do_not_take_the_others(bench, monkeypatch):
    def full(self, queries, parallel):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(Pooled, "answer", full)
    done = bench("--sides", "pooled", "plain")
    assert done.code == 0  # out of memory is a result
    pooled, plain = done.bench.sides
    assert (pooled.problem, pooled.speed, plain.problem) == ("out of memory", None, None)
    assert "pooled head: out of memory" in done.out

    def broken(self, *args, **kwargs):
        raise DHRDError("no such backbone")

    monkeypatch.setattr(Plain, "__init__", broken)
    done = bench("--sides", "plain", "pooled", output=done.files[0])
    assert done.code == 1
    assert [side.problem for side in done.bench.sides] == ["no such backbone", "out of memory"]


def test_an_interruption_keeps_what_was_measured(bench, monkeypatch):
    answer, asked = Plain.answer, []

    def interrupted(self, queries, parallel):
        asked.append(len(queries))
        if len(asked) == 5:  # a warm-up, two sizes, a timed run
            raise KeyboardInterrupt
        answer(self, queries, parallel)

    monkeypatch.setattr(Plain, "answer", interrupted)
    done = bench("--sides", "loglikelihood", "plain", "pooled")
    assert done.code == 130
    scored, plain = done.bench.sides
    assert (scored.problem, scored.repeats, scored.latencies) == (None, 2, N)
    assert (plain.problem, plain.repeats, plain.latencies) == ("interrupted", 1, 0)


@pytest.mark.parametrize("concurrency", SIZES)
def test_a_server_is_measured_by_requests_in_flight(bench, serve, monkeypatch, concurrency):  # noqa: F811
    monkeypatch.setattr("test_bench.SIZES", (concurrency,))
    server = serve(lambda call: completion("Wet.\nFinal Answer:\nyes", usage=(11, call.n)))
    served = {"engine": "openai", "base_url": server.url, "model": "some-model"}
    done = bench("--sides", "cot", **served)
    assert done.code == 0, done.err
    (cot,) = done.bench.sides
    assert (cot.engine, cot.batch_size, cot.concurrency) == ("openai", None, concurrency)
    assert (cot.input_tokens, cot.peak_memory, cot.precision) == (11, None, None)
    # Two warm-ups, two timed runs, one by one; the requests of the second run are counted.
    before = 1 + min(concurrency, 3) + 3
    assert len(server.bodies) == before + 3 + 3
    assert cot.generated_tokens == before + 2
    body = server.bodies[0]
    assert body["messages"][0]["content"].endswith(" Is it wet?\nReasoning:")
    assert (body["max_tokens"], body["model"]) == (5, "some-model")
    assert body["stop"] == ["\nReasoning:"]


def test_what_does_not_speak_http_is_no_server():
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet():
            connection, _ = other.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"SSH-2.0-some\r\n")

        threading.Thread(target=greet).start()
        with pytest.raises(DHRDError, match=r"no server answers at .*SSH-2.0"):
            check_reachable(f"http://127.0.0.1:{other.getsockname()[1]}/v1")
    with pytest.raises(DHRDError, match=r"no server answers at .*nonnumeric port"):
        check_reachable("http://127.0.0.1:80a/v1")


def test_two_benches_in_a_second_are_two_files(tmp_path):
    assert output_file(tmp_path, 1e9 + 0.25) != output_file(tmp_path, 1e9 + 0.5)


def test_plain_logits_come_in_the_order_of_the_rows(tiny_backbone):
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    plain = load_plain(tiny_backbone, 3, torch.float32, tokenizer.pad_token_id, "cpu")
    rows = [tokenizer(text).input_ids for text in ("It rains.", "Hm.", "A long, long day it was.")]
    alone = [plain(input_ids=torch.tensor([ids])).logits[0].tolist() for ids in rows]
    together = classify(plain, tokenizer, rows, [[2, 0], [1]])
    assert together == [pytest.approx(row, abs=1e-5) for row in alone]


ERRORS = {
    "No DHRD student in": {"student": "/nowhere"},
    "no head for task 'cb'. There are heads for scenes, made_weather": {"task": "cb"},
    "--task: which task is measured?": {"task": None},
    "--repeats 0: need a whole number of at least 1": {"repeats": 0},
    "--cot-max-new-tokens 0: need": {"cot_max_new_tokens": 0},
    "--price-per-hour -1.0: need US dollars": {"price_per_hour": -1},
    "--engine openai needs --base-url": {"engine": "openai"},
    "--engine openai needs --model": {"engine": "openai", "base_url": "http://127.0.0.1:9/v1"},
    "--base-url and --model are for --engine openai only": {"model": "some-model"},
    "no server answers at http://127.0.0.1:9/v1/models": {
        "engine": "openai",
        "base_url": "http://127.0.0.1:9/v1",
        "model": "some-model",
    },
    "made_because_cot that lists them": {"task": "made_because"},
}


@pytest.mark.parametrize("message", ERRORS)
def test_wrong_input_is_refused_before_anything_is_measured(bench, monkeypatch, message):
    monkeypatch.setattr(one_side, "follow", None)
    done = bench(**ERRORS[message])
    assert (done.code, done.bench) == (2, None)
    assert done.err.startswith("dhrd-bench: ")
    assert message in done.err


def test_other_wrong_input(bench, monkeypatch, tmp_path):
    assert "--batch-sizes 4 0: need" in bench("--batch-sizes", "4", "0").err
    assert "--device gpu: cannot be used" in bench("--device", "gpu").err
    assert "vllm runs the side cot" in bench("--sides", "plain", engine="vllm").err
    monkeypatch.setattr(bench_config.importlib.util, "find_spec", lambda name: None)
    assert "needs vllm: pip install 'lm-eval[vllm]'" in bench(engine="vllm").err
    blocked = write_bench(tmp_path / "file", side("plain", {"model": "hf"}, 1.0))
    assert f"--output {blocked}/out: cannot be made" in bench(output=blocked / "out").err
