"""The local teacher, on a random two-layer model."""

from __future__ import annotations

import pytest
from made_decisions import candidate_decision, label_decision

from dhrd_plugin.errors import DHRDError
from teachers.base import Request, make_teacher
from teachers.checks import answer_options
from teachers.hf import GumbelNoise, cut_explanation
from teachers.prompts import HINTED

ROWS = [
    label_decision(i, context="It rains. " * length + "Question: does it rain?\nAnswer:")
    for i, length in enumerate((1, 20, 7))
]


@pytest.fixture
def teacher(tiny_backbone, monkeypatch):
    """The teacher with short outputs, so that a test takes milliseconds.

    Its weights are scaled up: freshly drawn ones give nearly equal logits, whatever is attended to.
    """
    import torch

    teacher = make_teacher(f"hf:{tiny_backbone}", [])
    with torch.no_grad():
        for weight in teacher._lm.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
    monkeypatch.setitem(teacher.params, "max_new_tokens", 12)
    return teacher


def texts(teacher, rows, batch_size, attempt=1):
    teacher._batch_size = batch_size
    replies = teacher.explain(Request(row, attempt, HINTED) for row in rows)
    return {request.decision.index: reply.text for request, reply in replies}


def test_sampling_depends_on_the_row_alone_not_on_its_batch(teacher):
    together = texts(teacher, ROWS, batch_size=3)
    assert together == texts(teacher, ROWS, batch_size=1)
    assert together == texts(teacher, ROWS[::-1], batch_size=2)
    assert len(set(together.values())) == 3


def test_another_attempt_or_seed_samples_anew(teacher, monkeypatch):
    first = texts(teacher, ROWS[:1], batch_size=1)
    assert texts(teacher, ROWS[:1], batch_size=1, attempt=2) != first
    monkeypatch.setitem(teacher.params, "seed", 7)
    assert texts(teacher, ROWS[:1], batch_size=1) != first


def test_explanation_begins_with_the_prompts_opening(teacher):
    assert all(t.startswith(HINTED.opening) for t in texts(teacher, ROWS, batch_size=2).values())


def test_gumbel_noise_samples_the_softmax():
    import torch

    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    noise = GumbelNoise([0])
    draws = torch.cat([noise(None, logits).argmax(dim=-1) for _ in range(4000)])
    shares = torch.bincount(draws, minlength=4) / len(draws)
    assert torch.allclose(shares, logits[0].softmax(-1), atol=0.03)


def test_label_scores_are_the_mean_log_probabilities_of_the_plain_model(teacher):
    import torch

    lm = teacher._lm
    context, continuations = [5, 6, 7, 8], [[9, 10, 11], [12]]
    expected = []
    for continuation in continuations:  # one by one, without any padding
        ids = torch.tensor([context + continuation])
        log_probs = lm(ids).logits[0].detach().log_softmax(-1)
        steps = [log_probs[len(context) - 1 + i, t] for i, t in enumerate(continuation)]
        expected.append(float(sum(steps)) / len(steps))
    assert teacher._mean_log_probs(context, continuations) == pytest.approx(expected, abs=1e-5)


def test_likeliest_option_becomes_the_answer(teacher, monkeypatch):
    seen = {}

    def score(context, continuations):
        seen["context"] = teacher._tokenizer.decode(context)
        seen["options"] = [teacher._tokenizer.decode(c) for c in continuations]
        return [-2.0, -1.0]

    monkeypatch.setattr(teacher, "_mean_log_probs", score)
    monkeypatch.setattr("teachers.hf.cut_explanation", lambda text: "It is so. It must be.")
    row = candidate_decision()
    ((_, reply),) = teacher.explain(iter([Request(row, 1, HINTED)]))
    assert reply.answer == answer_options(row)[1] == "B"
    assert reply.rationale == "It is so. It must be."
    assert reply.problem is None
    assert seen["options"] == [" (A) the sun was rising.", " (B) the grass was cut."]
    assert seen["context"].endswith("It is so. It must be. [END OF REASONING]\nAnswer:")
    assert "(A) the sun was rising." in seen["context"]
    assert HINTED.opening not in seen["context"]  # it belongs to the rationale, not before it


def test_babble_is_broken_form_and_is_not_scored(teacher, monkeypatch):
    monkeypatch.setattr(teacher, "_mean_log_probs", lambda *_: pytest.fail("scored"))
    ((_, reply),) = teacher.explain(iter([Request(ROWS[0], 1, HINTED)]))
    assert "complete sentences" in reply.problem
    assert reply.answer is None
    assert reply.completion_tokens <= 12
    assert reply.prompt_tokens == len(
        teacher._encode(teacher._prefilled(Request(ROWS[0], 1, HINTED)))
    )


def test_chat_template_is_used_and_the_opening_prefilled(teacher, monkeypatch):
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    request = Request(ROWS[0], 1, HINTED)
    plain = teacher._prefilled(request)
    monkeypatch.setattr(teacher._tokenizer, "chat_template", template)
    prompt = HINTED.render(ROWS[0])
    assert teacher._prefilled(request) == f"<user>{prompt}<assistant>{HINTED.opening}"
    assert plain == f"{prompt}\n\n{HINTED.opening}"


def test_prompt_longer_than_the_model_fails_alone(teacher):
    rows = [ROWS[0], label_decision(1, context="word " * 1000), ROWS[2]]
    replies = {
        r.decision.index: reply
        for r, reply in teacher.explain(Request(row, 1, HINTED) for row in rows)
    }
    assert sorted(replies) == [0, 1, 2]
    assert replies[1].failure.endswith("the model takes 2048")
    assert replies[0].failure is None and replies[2].failure is None


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


def test_stop_strings_end_the_generation(teacher, monkeypatch):
    """A model made to write its stop string stops there, whatever else is in the batch."""
    import torch

    stop = teacher._tokenizer.encode("\n\nmore", add_special_tokens=False)

    class Dictate:
        def __init__(self):
            self.step = 0

        def __call__(self, input_ids, scores):
            forced = torch.full_like(scores, -torch.inf)
            forced[:, stop[self.step]] = 0.0
            self.step += 1
            return forced

    monkeypatch.setattr(teacher, "_sampling", lambda seeds: [Dictate()])
    assert set(texts(teacher, ROWS, batch_size=3).values()) == {f"{HINTED.opening}\n\n"}


def test_unknown_model_is_named():
    with pytest.raises(DHRDError, match=r"\./no-such-model"):
        make_teacher("hf:./no-such-model", [])
