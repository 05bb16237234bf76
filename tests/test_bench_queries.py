"""What the sides of `dhrd-bench` are asked, and how what is written is counted."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from chat_server import completion, serve  # noqa: F401 (a fixture)
from conftest import needs_shared_data
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from dhrd_plugin.bench import config as bench_config
from dhrd_plugin.bench import cot, one_side
from dhrd_plugin.bench.queries import add_reasoning, load_queries
from dhrd_plugin.bench.sides import student_precision
from dhrd_plugin.checkpoint import load_student
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.students import find_students

N = 6


@pytest.fixture(scope="module")
def weather(student, made_tasks):
    head = find_students(str(student)).heads["made_weather"]
    return load_queries("made_weather", head, limit=N, include_path=str(made_tasks))


@pytest.fixture(scope="module")
def reasoning(weather, made_tasks):
    return add_reasoning(weather, max_new_tokens=5, include_path=str(made_tasks)).queries


def test_what_a_side_needs_can_be_sent_to_its_process(student, reasoning):
    member = find_students(str(student)).members[0]
    job = one_side.Job("cot", member, bench_config.BenchConfig(), reasoning, "cpu", (1, 4))
    assert pickle.loads(pickle.dumps(job)) == job


def test_requests_are_in_flight_together(serve, reasoning):  # noqa: F811
    server = serve(lambda call: completion("Wet."))
    server.gate = threading.Barrier(3)  # nobody is answered before three have asked
    cot.ServerReasoning(server.url, "some-model").answer(reasoning[:3], 3)
    assert server.most_in_flight == 3


def test_a_server_that_does_not_count_leaves_tokens_unknown(serve, reasoning):  # noqa: F811
    server = serve(lambda call: completion("Wet.", usage=None if call.n == 2 else (11, 22)))
    side = cot.ServerReasoning(server.url, "some-model")
    side.answer(reasoning, 1)
    assert side.tokens(reasoning) == (None, None)
    side.answer(reasoning, 1)
    assert side.tokens(reasoning) == (11 * N, 22 * N)


def test_written_tokens_are_counted_up_to_each_end(student, reasoning, monkeypatch):
    end = 257
    written = torch.tensor([[5, end, end, end], [end, 5, 5, 5], [5, 6, 7, 8]])
    monkeypatch.setattr(
        HFLM, "_model_generate", lambda self, context, **_: torch.cat([context, written], dim=1)
    )
    side = cot.HFReasoning(find_students(str(student)).members[0], device="cpu", include_path=None)
    side.answer(reasoning[:3], 3)
    read = sum(len(query.reasoning.args[0].encode()) for query in reasoning[:3])
    assert side.tokens(reasoning[:3]) == (read, 2 + 1 + 4)


def test_whole_models_are_kept_in_float32(student):
    member = find_students(str(student)).members[0]
    for adapter, weights in ((True, "bfloat16"), (False, "float32")):
        config = replace(member.config, adapter=adapter, dtype="bfloat16")
        assert student_precision(replace(member, config=config)) == weights


def test_vllm_gets_the_merged_student_and_all_documents(student, reasoning, monkeypatch):
    class VLLM:
        """Writes three tokens."""

        def __init__(self, pretrained, dtype):
            self.dtype, self.batches = dtype, []
            self.weights = AutoModelForCausalLM.from_pretrained(pretrained).state_dict()
            self.tokenizer = AutoTokenizer.from_pretrained(pretrained)

        def _model_generate(self, requests, generate, sampling_params):
            self.batches.append(len(requests))
            output = SimpleNamespace(token_ids=[1, 2, 3])
            return [SimpleNamespace(prompt_token_ids=r, outputs=[output]) for r in requests]

        def generate_until(self, requests, disable_tqdm):
            ids = [self.tokenizer(request.args[0]).input_ids for request in requests]
            self._model_generate(requests=ids, generate=True, sampling_params=[])

    monkeypatch.setattr(cot, "get_model", {"vllm": VLLM}.__getitem__)
    side = cot.VLLMReasoning(find_students(str(student)).members[0])
    merged = load_student(student, merge=True)[0].lm.state_dict()
    for name, weight in side.lm.weights.items():
        assert torch.equal(weight, merged[name]), name
    side.answer(reasoning, N)
    assert (side.lm.batches, side.lm.dtype, side.in_process) == ([N], "float32", False)
    read = sum(len(query.reasoning.args[0].encode()) for query in reasoning)
    assert side.tokens(reasoning) == (read, 3 * N)


TWIN = """
task: made_weather_cot
dataset_path: json
dataset_kwargs: {data_files: {validation: FILE}}
validation_split: validation
output_type: generate_until
description: "Think. "
doc_to_text: "{{text}} Is it wet?\\nReasoning:"
doc_to_target: label
generation_kwargs: {do_sample: false, until: ["\\nQuestion:"], max_gen_toks: 500}
"""


def write_twin(folder, data):
    (folder / "twin.yaml").write_text(TWIN.replace("FILE", str(data)))
    return str(folder)


def test_a_twin_tasks_prompts_are_taken(weather, made_tasks, tmp_path):
    own = write_twin(tmp_path, made_tasks / "made_weather-validation.jsonl")
    found = add_reasoning(weather, max_new_tokens=500, include_path=own)
    assert (found.prompt, found.gen_kwargs) == ("task made_weather_cot", {})
    text, settings = found.queries[2].reasoning.args
    assert text == f"Think. {weather[2].decision.inputs[0]}\nReasoning:"
    assert settings == {"do_sample": False, "until": ["\nQuestion:"], "max_gen_toks": 500}
    shorter = add_reasoning(weather, max_new_tokens=7, include_path=own)
    assert shorter.gen_kwargs == {"max_gen_toks": 7}
    assert shorter.queries[2].reasoning.args[1]["max_gen_toks"] == 7


def test_a_twin_on_other_documents_is_refused(weather, made_tasks, tmp_path):
    own = write_twin(tmp_path, made_tasks / "made_weather-train.jsonl")
    with pytest.raises(DHRDError, match="made_weather_cot are not those of made_weather"):
        add_reasoning(weather, max_new_tokens=5, include_path=own)


def test_a_task_without_documents_to_score_is_refused(monkeypatch):
    no = SimpleNamespace(has_validation_docs=lambda: False, has_test_docs=lambda: False)
    monkeypatch.setattr("dhrd_plugin.bench.queries.load_task", lambda *_: no)
    with pytest.raises(DHRDError, match="Task made has no documents"):
        load_queries("made", None, limit=None, include_path=None)


@needs_shared_data
@pytest.mark.parametrize("task", ["cb", "copa"])
def test_shipped_twins_have_the_documents_of_their_tasks(task, monkeypatch):
    from conftest import SHARED_DATA

    from dhrd_plugin.checkpoint import TaskHead
    from dhrd_plugin.decisions import load_decisions
    from dhrd_plugin.harness import load_task

    monkeypatch.chdir(SHARED_DATA)
    made = load_decisions(load_task(task), "validation", limit=1)
    head = TaskHead(made.formulation, made.choices, made.version, made.template_sha)
    queries = load_queries(task, head, limit=5, include_path=None)
    found = add_reasoning(queries, max_new_tokens=500, include_path=None)
    assert (found.prompt, found.gen_kwargs) == (f"task {task}_cot", {})
    for query in found.queries:
        assert query.decision.context in query.reasoning.args[0]
