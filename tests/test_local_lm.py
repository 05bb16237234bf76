"""Sampling and scoring on random two-layer models: batched results are those of one row alone."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tokenizer
from tiny_models import CAUSAL, RECURRENT, VOCABULARY, tiny_lm
from transformers import BloomConfig, BloomForCausalLM

from teachers.local.lm import LocalLM, SeededSampling

WINDOW = {"sliding_window": 16}  # shorter than the prefixes
FAMILIES = [*((family, {}) for family in CAUSAL), ("Gemma2", WINDOW), ("Gemma3Text", WINDOW)]
SHARING = [family for family in FAMILIES if family[0] not in RECURRENT]
# Ragged in every way; the third question's options are one token each.
PREFIXES = [[(7 * i + n) % 250 for i in range(n)] for n in (40, 7, 23)]
OPTIONS = [
    [[5, 6, 7, 8, 9], [10], [11, 12]],
    [[13, 14, 15], [16, 17, 18, 19, 20, 21, 22]],
    [[23], [24]],
]
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 12, "is_over": lambda text: False}


def local_lm(family="Llama", **changes):
    return LocalLM(tiny_lm(family, **changes), make_tokenizer())


def alone(local, prefix, option):
    """The mean log-probability of an option by a forward of its own, without padding or cache."""
    with torch.inference_mode():
        logits = local.lm(input_ids=torch.tensor([prefix + option]), use_cache=False).logits[0]
    log_probs = logits.log_softmax(dim=-1)
    steps = [log_probs[len(prefix) - 1 + i, token] for i, token in enumerate(option)]
    return float(sum(steps)) / len(steps)


def count_forwards(local, monkeypatch):
    """A list that grows by the shape of the input of every forward."""
    shapes = []
    forward = local.lm.forward

    def counted(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(local.lm, "forward", counted)
    return shapes


# Scores


@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_scores_of_a_batch_are_those_of_every_option_alone(family, changes):
    local = local_lm(family, **changes)
    expected = [
        [alone(local, prefix, option) for option in options]
        for prefix, options in zip(PREFIXES, OPTIONS, strict=True)
    ]
    for got, means in zip(local.mean_log_probs(PREFIXES, OPTIONS), expected, strict=True):
        assert got == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize(("family", "changes"), SHARING)
def test_prefix_is_run_once_for_all_its_options(family, changes, monkeypatch):
    local = local_lm(family, **changes)
    assert local._shares_prefixes
    shapes = count_forwards(local, monkeypatch)
    local.mean_log_probs(PREFIXES, OPTIONS)
    assert shapes == [(3, 40), (7, 6)]  # the longest option less the token that nothing follows


def test_options_of_one_token_need_no_second_forward(monkeypatch):
    local = local_lm()
    assert local._shares_prefixes
    shapes = count_forwards(local, monkeypatch)
    (got,) = local.mean_log_probs(PREFIXES[2:], OPTIONS[2:])
    assert shapes == [(1, 23)]
    assert got == pytest.approx([alone(local, PREFIXES[2], [t]) for t in (23, 24)], abs=1e-5)


@pytest.mark.parametrize("family", RECURRENT)
def test_recurrent_models_run_every_option_in_full(family, monkeypatch):
    local = local_lm(family)
    assert not local._shares_prefixes
    shapes = count_forwards(local, monkeypatch)
    local.mean_log_probs(PREFIXES, OPTIONS)
    assert shapes == [(3, 44), (2, 13), (2, 23)]


def test_model_that_cannot_be_told_positions_runs_every_option_in_full():
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    local = LocalLM(BloomForCausalLM(config).eval(), make_tokenizer())
    assert not local._shares_prefixes
    (got,) = local.mean_log_probs(PREFIXES[:1], OPTIONS[:1])
    assert got == pytest.approx([alone(local, PREFIXES[0], o) for o in OPTIONS[0]], abs=1e-5)


# Texts


def test_chat_form_is_the_models_own_or_the_plain_turns():
    local = local_lm()
    turns = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And now?"},
    ]
    assert local.chat(turns) == "Why?\n\nSo.\n\nAnd now?\n\n"
    local.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert local.chat(turns) == "<user>Why?<assistant>So.<user>And now?<assistant>"


def test_special_tokens_are_added_where_no_chat_template_writes_them():
    from tokenizers.processors import TemplateProcessing

    local = local_lm()
    local.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 256)]
    )
    plain = local.encode("Why?")
    assert plain[0] == 256
    local.tokenizer.chat_template = "{{ messages[0].content }}"
    assert local.encode("Why?") == plain[1:]


def test_option_is_encoded_as_it_stands_in_the_text():
    """Llama's first tokenizer begins every text with a space of its own."""
    from tokenizers.normalizers import Prepend

    local = local_lm()
    expected = local.encode(" True")
    local.tokenizer.backend_tokenizer.normalizer = Prepend(" ")
    assert local.encode(" True") == local.encode("T")[:1] + expected  # alone, it has two spaces
    assert local.encode_behind("Answer:", " True") == expected


def test_positions_that_a_model_has():
    assert local_lm().max_length == 512
    assert local_lm("GPT2").max_length == 512
    assert local_lm("Mamba").max_length is None


# Sampling


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("family", CAUSAL)
def test_what_is_written_does_not_depend_on_the_batch(family, temperature):
    local = local_lm(family)
    sampling = SAMPLING | {"temperature": temperature}
    together = local.generate(PREFIXES, seeds=[1, 2, 3], **sampling)
    apart = [
        local.generate([prefix], seeds=[seed], **sampling)[0]
        for prefix, seed in zip(PREFIXES, (1, 2, 3), strict=True)
    ]
    assert together == apart
    assert len(set(map(tuple, together))) == 3


def test_seed_changes_samples_but_not_greedy_text():
    local = local_lm()
    assert local.generate(PREFIXES, seeds=[1, 2, 3], **SAMPLING) != local.generate(
        PREFIXES, seeds=[4, 5, 6], **SAMPLING
    )
    greedy = SAMPLING | {"temperature": 0.0, "max_new_tokens": 1}
    with torch.inference_mode():
        likeliest = [
            local.lm(torch.tensor([prefix])).logits[0, -1].argmax().item() for prefix in PREFIXES
        ]
    for seeds in ([1, 2, 3], [4, 5, 6]):
        assert local.generate(PREFIXES, seeds=seeds, **greedy) == [[token] for token in likeliest]


def test_temperature_and_top_p_limit_what_is_sampled():
    local = local_lm()
    with torch.inference_mode():
        probs = (local.lm(torch.tensor([PREFIXES[0]])).logits[0, -1] / 2.0).softmax(dim=-1)
    likeliest = probs.argsort(descending=True)
    nucleus = likeliest[: int((probs[likeliest].cumsum(0) < 0.3).sum()) + 1].tolist()
    assert 1 < len(nucleus) < VOCABULARY
    sampling = SAMPLING | {"temperature": 2.0, "top_p": 0.3, "max_new_tokens": 1}
    seeds = list(range(400))
    drawn = [token for (token,) in local.generate([PREFIXES[0]] * 400, seeds=seeds, **sampling)]
    assert set(drawn) == set(nucleus)
    expected = probs[nucleus[0]].item() / probs[nucleus].sum().item()
    assert drawn.count(nucleus[0]) / 400 == pytest.approx(expected, abs=0.08)


def test_seeded_sampling_draws_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    sampling = SeededSampling([0], torch.device("cpu"))
    draws = torch.cat([sampling(None, logits).argmax(dim=-1) for _ in range(4000)])
    shares = torch.bincount(draws, minlength=4) / len(draws)
    assert torch.allclose(shares, logits[0].softmax(-1), atol=0.03)


def dictate(local, monkeypatch, texts):
    """Make the model write `texts`, one per row, whatever it reads."""
    ids = [local.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    forward = local.lm.forward
    step = 0

    def dictated(*args, **kwargs):
        nonlocal step
        output = forward(*args, **kwargs)
        output.logits[:] = 0.0
        for row, tokens in enumerate(ids):
            output.logits[row, -1, tokens[min(step, len(tokens) - 1)]] = 100.0
        step += 1
        return output

    monkeypatch.setattr(local.lm, "forward", dictated)


def test_row_ends_where_it_is_over_or_at_the_end_token(monkeypatch):
    local = local_lm()
    dictate(local, monkeypatch, ["One. Two.", "One<eos>and more", "Never over, cut."])
    sampling = SAMPLING | {"is_over": lambda text: text.endswith(".")}
    written = local.generate(PREFIXES, seeds=[1, 2, 3], **sampling)
    assert [local.tokenizer.decode(ids) for ids in written] == ["One.", "One", "Never over, "]
