"""SuperGLUE by chain of thought: prompts, the answer line, and scores of what was written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace

import chat_server
import pytest
from chat_server import completion
from made_super_glue import ROWS, repeated, write_super_glue
from scripted_lm import ScriptedLM, evaluate
from sklearn.metrics import f1_score

from dhrd_plugin.decisions import load_decisions
from dhrd_plugin.harness import load_task, render_requests, split_docs

serve = chat_server.serve  # the fixture

TWINS = ("boolq", "cb", "copa", "record", "sglue_multirc", "sglue_rte", "wic", "wsc")
LABELS_TWINS = [name for name in TWINS if name not in ("copa", "record")]
NAMES = [f"{name}_cot" for name in TWINS]

# Of the first and the second made row.
RIGHT = {
    "boolq": ("yes", "no"),
    "cb": ("True", "Neither"),
    "copa": ("it fell.", "it got light."),
    "record": ("Rome", "The United Nations"),
    "sglue_multirc": ("yes", "no"),
    "sglue_rte": ("True", "False"),
    "wic": ("no", "yes"),
    "wsc": ("no", "yes"),
}


@pytest.fixture
def super_glue(tmp_path, monkeypatch):
    write_super_glue(tmp_path)
    monkeypatch.chdir(tmp_path)


def prompt(task, index: int) -> str:
    return render_requests(task, split_docs(task, "validation")[index], index).args[0]


def score(task, index: int, reply: str) -> dict:
    """What the harness gives for `reply` to a validation document."""
    doc = split_docs(task, "validation")[index]
    instance = SimpleNamespace(idx=0, doc=doc, resps=[reply], filtered_resps={})
    for pipeline in task._filters:
        pipeline.apply([instance])
    return task.process_results(doc, [instance.filtered_resps["final-answer"]])


@pytest.mark.parametrize("name", LABELS_TWINS)
def test_prompt_is_the_instruction_and_what_a_student_was_trained_on(super_glue, name):
    trained_on = load_decisions(load_task(name), "validation").decisions
    task = load_task(f"{name}_cot")
    assert task.config.description.startswith("Think step by step")
    for index, decision in enumerate(trained_on):
        asked = task.config.description + decision.inputs[0] + "\nReasoning:"
        assert prompt(task, index) == asked
        assert decision.label_text in task.config.description


def test_copa_lists_both_alternatives(super_glue):
    task = load_task("copa_cot")
    expected = "The glass broke because\n(A) it fell.\n(B) it was full.\nReasoning:"
    assert prompt(task, 0) == task.config.description + expected


def test_record_lists_the_entities_below_what_a_student_was_trained_on(super_glue):
    task = load_task("record_cot")
    trained_on = load_decisions(load_task("record"), "validation").decisions[0].inputs[0]
    read = task.config.description + trained_on.replace("visit Bern", "visit @placeholder")
    assert "visit Bern" in trained_on
    assert prompt(task, 0) == f"{read}\nEntities:\nBern\nItaly\nRome\nReasoning:"


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    "written",
    [
        "\nBecause.\nFinal Answer:\n{}",
        "\nBecause.\n\nFinal Answer: {}\n",
        "\nBecause.\nfinal answer: {lower}",
        "\nBecause.\nFinal Answer: {}.",
        "\nBecause.\n**Final Answer:** {}",
        "\nBecause.\n**Final Answer:**\n\n**{}**",
        "\nBecause.\n**Final Answer: {}.**",
        "\nBecause.\n### Final answer:\n{}",
        "\nBecause.\nFinal Answer:\n{}\n\nAnd more.\nFinal Answer:\nsomething else",
    ],
)
def test_answer_line_in_its_usual_forms(super_glue, name, written):
    task = load_task(f"{name}_cot")
    metric = "em" if name == "record" else "exact_match"
    for index in (0, 1):
        right, wrong = RIGHT[name][index], RIGHT[name][1 - index]
        scores = score(task, index, written.format(right, lower=right.lower()))
        assert (scores[metric], scores["unparsable"]) == (1, 0)
        if name not in ("copa", "record"):  # there the other row's answer is no choice
            scores = score(task, index, written.format(wrong, lower=wrong.lower()))
            assert (scores[metric], scores["unparsable"]) == (0, 0)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    "written",
    [
        "",
        "{}",
        "\nThe answer is {}",
        "\nSo the final answer: {}",
        "\nFinal Answer:",
        "\nFinal Answer:\n\n",
        "\nFinal Answer: **",
        "\nFinal Answer:\nIt is {}",
        "\nFinal Answer:\n{} or not",
        "\nFinal Answer: I do not know\n\nFinal Answer: {}",  # the first one counts
    ],
)
def test_anything_else_is_unparsable_and_wrong(super_glue, name, written):
    task = load_task(f"{name}_cot")
    scores = score(task, 0, written.format(RIGHT[name][0]))
    assert scores.pop("unparsable") == 1
    numbers = {metric: value for metric, value in scores.items() if isinstance(value, float)}
    assert numbers and set(numbers.values()) == {0.0}


@pytest.mark.parametrize(
    ("answer", "right", "unparsable"),
    [
        ("it got light.", 1, 0),
        ("It got light", 1, 0),
        ("(B)", 1, 0),
        ("b.", 1, 0),
        ("(B) it got light.", 1, 0),
        ("**(B)** It got light.", 1, 0),
        ("it got dark.", 0, 0),
        ("(A)", 0, 0),
        ("(A) it got light.", 0, 1),
        ("(A) or (B)", 0, 1),
        ("it got light because the sun rose", 0, 1),
    ],
)
def test_copa_takes_letter_text_or_both(super_glue, answer, right, unparsable):
    reply = f"\nSunrise brings light.\nFinal Answer:\n{answer}"
    expected = {"exact_match": right, "unparsable": unparsable}
    assert score(load_task("copa_cot"), 1, reply) == expected


@pytest.mark.parametrize(
    ("index", "answer", "f1", "em"),
    [
        (0, "Italy", 1, 1),  # several are right
        (0, "- Many people visit Rome every year.", 1, 1),  # what a student is trained to write
        (0, "Bern", 0, 0),
        (1, "united nations", 1, 1),  # articles and case do not count
        (1, "Bern", 0, 0),
        (1, "The United Nations Council", 0, 0),  # not listed
    ],
)
def test_record_takes_an_entity_or_the_filled_in_query(super_glue, index, answer, f1, em):
    scores = score(load_task("record_cot"), index, f"\nSo.\nFinal Answer:\n{answer}")
    assert scores == {"f1": f1, "em": em, "unparsable": float("Council" in answer)}


def test_record_gives_a_close_entity_its_token_f1(tmp_path, monkeypatch):
    doc = ROWS["record"][1] | {"entities": ["UN Council", "Bern"], "answers": ["The UN", "Oslo"]}
    write_super_glue(tmp_path, {"record": [doc]})
    monkeypatch.chdir(tmp_path)
    scores = score(load_task("record_cot"), 0, "Final Answer: UN Council")
    assert scores == {"f1": pytest.approx(2 / 3), "em": 0, "unparsable": 0}


def says(replies: Sequence[str]):
    """A model that answers document i with replies[i]; None is no answer line."""

    def reply(request) -> str:
        answer = replies[request.doc_id]
        return "\nI cannot tell." if answer is None else f"\nSo.\nFinal Answer: {answer}"

    return ScriptedLM(reply=reply)


def test_unparsable_is_no_class_in_cbs_f1(tmp_path, monkeypatch):
    write_super_glue(tmp_path, {"cb": repeated(ROWS["cb"], 3)})  # True, Neither, True, …
    monkeypatch.chdir(tmp_path)
    model = says(["True", "Neither", None, "True", "False", None])
    results = evaluate(model, ["cb_cot"])["results"]["cb_cot"]
    golds, preds = [0, 2, 0, 2, 0, 2], [0, 2, -1, 0, 1, -1]
    expected = f1_score(golds, preds, labels=[0, 1, 2], average="macro")
    assert results["f1,final-answer"] == pytest.approx(expected)
    assert results["exact_match,final-answer"] == pytest.approx(2 / 6)
    assert results["unparsable,final-answer"] == pytest.approx(2 / 6)


def test_unparsable_is_the_wrong_answer_in_multircs_f1a_and_em(tmp_path, monkeypatch):
    write_super_glue(tmp_path, {"multirc": repeated(ROWS["multirc"], 3)})  # yes, no per question
    monkeypatch.chdir(tmp_path)
    model = says(["yes", "no", "yes", None, "no", "no"])
    results = evaluate(model, ["sglue_multirc_cot"])["results"]["sglue_multirc_cot"]
    f1a = f1_score([1, 0, 1, 0, 1, 0], [1, 0, 1, 1, 0, 0])
    assert results["f1a,final-answer"] == pytest.approx(f1a)
    assert results["em,final-answer"] == pytest.approx(1 / 3)
    assert results["exact_match,final-answer"] == pytest.approx(4 / 6)
    assert results["unparsable,final-answer"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("tag", ["super-glue-cot", "super-glue-cot-sampled"])
def test_tag_holds_a_twin_of_every_task(super_glue, tag):
    model = ScriptedLM(reply=lambda request: "lol")
    results = evaluate(model, [tag])["results"]
    suffix = "_sampled" if tag.endswith("-sampled") else ""
    assert sorted(results) == sorted(name + suffix for name in NAMES)
    for scores in results.values():
        assert scores["unparsable,final-answer"] == 1
    assert len(model.requests) == 2 * len(TWINS)
    for request in model.requests:
        settings = request.args[1]
        sampling = {key: settings.get(key) for key in ("do_sample", "temperature", "top_p")}
        if tag == "super-glue-cot":
            assert sampling == {"do_sample": False, "temperature": None, "top_p": None}
        else:
            assert sampling == {"do_sample": True, "temperature": 0.1, "top_p": 0.7}
        assert settings["max_gen_toks"] == 500
        written = "\nBecause.\nFinal Answer:\nyes"
        assert not [stop for stop in settings["until"] if stop in written]


def test_chat_models_get_the_instruction_as_system_message(super_glue):
    model = ScriptedLM(reply=lambda request: "Final Answer: yes")
    results = evaluate(model, ["boolq_cot"], apply_chat_template=True)["results"]
    assert results["boolq_cot"]["exact_match,final-answer"] == 0.5
    system, user = json.loads(model.requests[0].args[0])
    assert (system["role"], user["role"]) == ("system", "user")
    assert system["content"].startswith("Think step by step")
    assert user["content"].startswith("Tea is drunk hot.")
    assert user["content"].endswith("\nReasoning:")


def test_a_local_model_writes_answers_to_every_twin(super_glue, tiny_backbone):
    settings = {"pretrained": tiny_backbone, "device": "cpu", "dtype": "float32"}
    tags = ["super-glue-cot", "super-glue-cot-sampled"]
    found = evaluate("hf", tags, model_args=settings, gen_kwargs={"max_gen_toks": 4})
    assert len(found["results"]) == 2 * len(TWINS)
    for scores in found["results"].values():
        assert scores["unparsable,final-answer"] == 1


def test_a_chat_server_answers_every_twin(super_glue, serve):
    """The stock harness's door to chat servers; what it sends is what the twins ask for."""

    def script(call):
        return completion("Let me think.\n\n**Final Answer:** yes")

    server = serve(script)
    settings = {"model": "some-model", "base_url": f"{server.url}/chat/completions"}
    found = evaluate(
        "local-chat-completions",
        ["super-glue-cot", "super-glue-cot-sampled"],
        model_args=settings,
        apply_chat_template=True,
    )["results"]
    assert found["boolq_cot"]["exact_match,final-answer"] == 0.5
    assert {scores["unparsable,final-answer"] for scores in found.values()} == {0, 1}
    assert len(server.bodies) == 2 * 2 * len(TWINS)
    for body in server.bodies:
        system, user = body["messages"]
        assert system["content"].startswith("Think step by step")
        assert user["content"].endswith("\nReasoning:")
        assert body["max_tokens"] == 500
    sampling = Counter((body["temperature"], body.get("top_p")) for body in server.bodies)
    assert sampling == {(0, None): 2 * len(TWINS), (0.1, 0.7): 2 * len(TWINS)}


def test_a_students_reasoning_head_writes_answers(super_glue, student):
    settings = {"pretrained": str(student), "device": "cpu"}
    found = evaluate(
        "dhrd", ["cb_cot"], model_args=settings, gen_kwargs={"max_gen_toks": 4}, log_samples=True
    )
    assert found["results"]["cb_cot"]["unparsable,final-answer"] == 1
    assert all(sample["resps"][0][0] for sample in found["samples"]["cb_cot"])
