"""The local teacher, on a random two-layer model."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from conftest import make_tokenizer
from made_decisions import GOOD, candidate_decision, label_decision
from transformers import LlamaConfig, LlamaForCausalLM

from dhrd_plugin.errors import EXIT_FAILED, DHRDError
from teachers.base import Question, Request, make_teacher
from teachers.local.hf import CPU_BATCH_TOKENS, cut_explanation, explanation_is_over
from teachers.prompts import Example, load_prompts

PROMPTS = load_prompts()
ROWS = [
    label_decision(i, context="It rains. " * length + "Question: does it rain?\nAnswer:")
    for i, length in enumerate((1, 20, 7))
]


@pytest.fixture
def make(tiny_backbone):
    """Makes a teacher with short outputs, so that a test takes milliseconds.

    Its weights are scaled up: freshly drawn ones give nearly equal logits, whatever is attended to.
    """

    def make(**flags):
        teacher = make_teacher(f"hf:{tiny_backbone}", [], **{"max_new_tokens": 12, **flags})
        with torch.no_grad():
            for weight in teacher._lm.lm.parameters():
                if weight.dim() == 2:
                    weight.mul_(8)
        return teacher

    return make


@pytest.fixture
def teacher(make):
    return make()


def explained(teacher, rows, prompt=PROMPTS.hinted, attempt=1):
    """Replies by row index."""
    replies = teacher.explain(Request(row, attempt, prompt) for row in rows)
    return {request.decision.index: reply for request, reply in replies}


def texts(teacher, rows, **changes):
    return {i: reply.text for i, reply in explained(teacher, rows, **changes).items()}


# Explanations


def test_text_depends_on_the_row_alone_not_on_its_batch(make):
    together = texts(make(), ROWS)
    assert together == texts(make(batch_tokens=1), ROWS)
    assert together == texts(make(batch_tokens=1500), ROWS[::-1])
    assert len(set(together.values())) == 3


def test_another_attempt_or_seed_samples_anew(make):
    first = texts(make(), ROWS[:1])
    assert texts(make(), ROWS[:1], attempt=2) != first
    assert texts(make(seed=7), ROWS[:1]) != first
    greedy = make(temperature=0.0)
    assert texts(greedy, ROWS[:1]) == texts(greedy, ROWS[:1], attempt=2) != first


@pytest.mark.parametrize("prompt", [PROMPTS.hinted, PROMPTS.blind])
def test_explanation_begins_with_the_prompts_opening(teacher, prompt):
    for reply in explained(teacher, ROWS, prompt=prompt).values():
        assert reply.origin == prompt.origin
        assert reply.text.startswith(prompt.opening)


def spy_on_scores(teacher, monkeypatch, best):
    """Have option `best` score highest; the texts that were scored are remembered."""
    seen = []

    def score(prefixes, options):
        decode = teacher._lm.tokenizer.decode
        for prefix, some in zip(prefixes, options, strict=True):
            seen.append((decode(prefix), [decode(ids) for ids in some]))
        return [[-1.0 if i == best else -2.0 for i in range(len(some))] for some in options]

    monkeypatch.setattr(teacher._lm, "mean_log_probs", score)
    return seen


def test_likeliest_option_becomes_the_answer(teacher, monkeypatch):
    monkeypatch.setattr("teachers.local.hf.cut_explanation", lambda text: GOOD)
    seen = spy_on_scores(teacher, monkeypatch, best=1)
    row = candidate_decision(3)
    replies = explained(teacher, [ROWS[0], row])
    assert [replies[0].answer, replies[3].answer] == ["False", "B"]
    assert replies[3].rationale == GOOD
    assert replies[3].problem is None
    ((context, options),) = [pair for pair in seen if len(pair[1]) == 2]
    assert options == [" (A) the sun was rising.", " (B) the grass was cut."]
    assert context.endswith(f"{GOOD} [END OF REASONING]\nAnswer:")
    assert "(A) the sun was rising." in context
    assert PROMPTS.hinted.opening not in context  # it belongs to the rationale, not before it


def test_babble_is_broken_form_and_is_not_scored(teacher, monkeypatch):
    monkeypatch.setattr(teacher._lm, "mean_log_probs", lambda *_: pytest.fail("scored"))
    prompt = PROMPTS.hinted
    reply = explained(teacher, ROWS[:1])[0]
    assert "complete sentences" in reply.problem
    assert reply.answer is None
    assert 0 < reply.usage.completion_tokens <= 12
    asked = prompt.messages(ROWS[0])[0]["content"]
    assert reply.usage.prompt_tokens == len(teacher._lm.encode(f"{asked}\n\n{prompt.opening}"))


def test_worked_examples_are_turns_before_the_question(teacher, monkeypatch):
    prompt = PROMPTS.with_examples({"made": [Example(ROWS[1], GOOD)]}).hinted
    prompts = []
    monkeypatch.setattr(
        teacher._lm,
        "generate",
        lambda ids, **_: prompts.extend(map(teacher._lm.tokenizer.decode, ids)) or [[]] * len(ids),
    )
    explained(teacher, ROWS[:1], prompt=prompt)
    first, reply, last = (message["content"] for message in prompt.messages(ROWS[0]))
    assert reply.startswith(GOOD)
    assert prompts == [f"{first}\n\n{reply}\n\n{last}\n\n{prompt.opening}"]


def test_prompt_longer_than_the_model_fails_alone(teacher):
    rows = [ROWS[0], label_decision(1, context="word " * 1000), ROWS[2]]
    replies = explained(teacher, rows)
    assert sorted(replies) == [0, 1, 2]
    assert replies[1].failure.endswith("the model takes 2048")
    assert replies[0].failure is None and replies[2].failure is None


def test_room_is_kept_for_explanation_and_answer(teacher):
    """Of a byte-level tokenizer every letter is a token: one more than fits, and the row fails."""

    def row(index, letters):
        return label_decision(index, context="x" * letters)

    prompt = PROMPTS.hinted
    asked = f"{prompt.messages(row(0, 1))[0]['content']}\n\n{prompt.opening}"
    answer = " [END OF REASONING]\nAnswer: Neither"
    rest = len(asked) - 1 + 12 + len(answer)
    replies = explained(teacher, [row(0, 2048 - rest), row(1, 2049 - rest)])
    assert replies[0].failure is None
    assert replies[1].failure == "needs 2049 tokens, the model takes 2048"


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        ("One.  Two.\nThree. And the", "One. Two. Three."),
        ("One. Two.\n\nThree.", "One. Two."),
        ("One. [END OF REASONING]\nAnswer: True", "One."),
        ("One. Answer: True.", "One."),
        ("1st. 2nd. 3rd. 4th. 5th. 6th.", "1st. 2nd. 3rd. 4th. 5th."),
        ("no end", ""),
    ],
)
def test_explanation_is_cut_to_complete_sentences(text, explanation):
    assert cut_explanation(text) == explanation


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("One. Two.", False),
        ("One. Answer:", True),
        ("One.\n\n", True),
        ("One. Two. Three. Four. Five.", False),  # it could go on as "Five.5"
        ("One. Two. Three. Four. Five. S", True),
    ],
)
def test_writing_ends_as_soon_as_nothing_further_would_be_kept(text, over):
    assert explanation_is_over(text) is over
    if over:
        assert cut_explanation(text) == cut_explanation(f"{text}ix. Seven.")


# Predictions


def asked(decision, view="input", **changes):
    return Question(decision, PROMPTS.judge[view], **changes)


def test_prediction_is_the_softmax_of_mean_log_probabilities(teacher):
    row = candidate_decision()
    ((question, prediction),) = teacher.predict(iter([asked(row, "both", rationale=GOOD, votes=5)]))
    assert question.decision is row
    lm, tokenizer = teacher._lm.lm, teacher._lm.tokenizer
    (message,) = question.messages
    prefix = tokenizer.encode(f"{message['content']}\n\nAnswer:")
    means = []
    for option in (" (A) the sun was rising.", " (B) the grass was cut."):
        ids = tokenizer.encode(option)
        log_probs = lm(torch.tensor([prefix + ids])).logits[0].detach().log_softmax(dim=-1)
        steps = [log_probs[len(prefix) - 1 + i, token].item() for i, token in enumerate(ids)]
        means.append(sum(steps) / len(steps))
    total = sum(map(math.exp, means))
    assert prediction.probs == pytest.approx([math.exp(m) / total for m in means], abs=1e-5)
    assert prediction.method == "scored"
    assert prediction.usage.prompt_tokens == len(prefix)


def test_predictions_of_many_questions_belong_to_their_questions(make):
    questions = [asked(row, view, rationale=GOOD) for row in ROWS for view in ("input", "both")]
    questions.append(asked(label_decision(9, context="word " * 1000)))
    answers = dict(make().predict(iter(questions)))
    alone = dict(make(batch_tokens=1).predict(iter(questions)))
    assert len(answers) == len(questions)
    for question in questions[:-1]:
        assert sum(answers[question].probs) == pytest.approx(1.0)
        assert answers[question].probs == pytest.approx(alone[question].probs, abs=1e-5)
    too_long = answers[questions[-1]]
    assert too_long.probs is None and too_long.method is None
    assert too_long.failure.endswith("the model takes 2048")


def test_prediction_agrees_with_the_answer_scored_after_a_rationale(teacher, monkeypatch):
    """One question behind the chat form of another prompt: the same options are scored."""
    monkeypatch.setattr("teachers.local.hf.cut_explanation", lambda text: GOOD)
    seen = spy_on_scores(teacher, monkeypatch, best=0)
    explained(teacher, ROWS[:1])
    list(teacher.predict(iter([asked(ROWS[0])])))
    assert seen[0][1] == seen[1][1] == [" True", " False", " Neither"]


# Loading


def test_params_are_what_the_text_depends_on(make):
    assert make(batch_tokens=5, device_map="cpu", top_p=0.5).params == {
        "temperature": 0.7,
        "top_p": 0.5,
        "max_new_tokens": 12,
        "seed": 0,
        "dtype": "float32",
        "quantize": None,
    }


def test_precision_is_the_stored_one_or_the_one_asked_for(make):
    assert make()._lm.lm.dtype == torch.float32
    teacher = make(dtype="bfloat16")
    assert teacher._lm.lm.dtype == torch.bfloat16
    assert teacher.params["dtype"] == "bfloat16"
    assert explained(teacher, ROWS[:1])[0].failure is None
    ((_, prediction),) = teacher.predict(iter([asked(ROWS[0])]))
    assert sum(prediction.probs) == pytest.approx(1.0)


@pytest.mark.parametrize(("quantize", "weights"), [("4bit", "Params4bit"), ("8bit", "Int8Params")])
def test_quantised_weights_write_and_score(tmp_path, quantize, weights):
    pytest.importorskip("bitsandbytes")
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=128,  # wide enough for bitsandbytes' kernels
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    teacher = make_teacher(f"hf:{tmp_path}", [], quantize=quantize, max_new_tokens=4)
    assert weights in {type(p).__name__ for p in teacher._lm.lm.parameters()}
    assert (teacher.params["quantize"], teacher.params["dtype"]) == (quantize, "bfloat16")
    assert explained(teacher, ROWS[:1])[0].usage.completion_tokens > 0
    ((_, prediction),) = teacher.predict(iter([asked(ROWS[0])]))
    assert sum(prediction.probs) == pytest.approx(1.0)


@pytest.mark.parametrize("flags", [{"dtype": "float64"}, {"quantize": "3bit"}])
def test_unknown_precision_is_refused(make, flags):
    with pytest.raises(DHRDError, match="need one of"):
        make(**flags)


@pytest.mark.parametrize(
    ("processes", "flags", "device_map"),
    [("1", {}, "auto"), ("2", {}, {"": "cuda:1"}), ("2", {"device_map": "cpu"}, "cpu")],
)
def test_each_process_loads_onto_its_own_device(make, monkeypatch, processes, flags, device_map):
    def load(name, **kwargs):
        assert kwargs["device_map"] == device_map
        raise DHRDError("as far as this test goes")

    monkeypatch.setattr("teachers.local.hf.load_causal_lm", load)
    monkeypatch.setattr("accelerate.PartialState", lambda: SimpleNamespace(device="cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", processes)
    with pytest.raises(DHRDError, match="as far as"):
        make(**flags)


def test_out_of_memory_says_what_to_do(teacher, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(teacher._lm.lm, "generate", full)
    with pytest.raises(DHRDError, match=f"--batch-tokens below {CPU_BATCH_TOKENS}") as caught:
        explained(teacher, ROWS)
    assert caught.value.exit_code == EXIT_FAILED


def test_unknown_model_is_named():
    with pytest.raises(DHRDError, match=r"\./no-such-model"):
        make_teacher("hf:./no-such-model", [])
