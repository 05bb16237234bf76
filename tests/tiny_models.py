"""Random two-layer models of several families, and decisions to feed them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from conftest import make_tokenizer
from made_decisions import candidate_decision, label_decision

from dhrd_plugin.batching import EncodedDecision, Encoder
from dhrd_plugin.modeling import DualHeadModel

VOCABULARY = 258
LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
BERT_LIKE = {name: value for name, value in LLAMA_LIKE.items() if name != "num_key_value_heads"}
SIZES: dict[str, dict[str, Any]] = {
    "Llama": LLAMA_LIKE,
    "Qwen3": LLAMA_LIKE | {"head_dim": 8},
    "Gemma3Text": LLAMA_LIKE | {"head_dim": 8},
    "Gemma2": LLAMA_LIKE | {"head_dim": 8},
    "Cohere": LLAMA_LIKE,
    "Granite": LLAMA_LIKE,
    "GPTNeoX": BERT_LIKE,
    "Bert": BERT_LIKE,
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "Mistral": LLAMA_LIKE | {"sliding_window": 16},  # shorter than the rows
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "Qwen3_5Text": LLAMA_LIKE
    | {
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "Rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
}
RECURRENT = ("Mamba", "Qwen3_5Text")  # the second one in part: a gated delta net, then attention
CAUSAL = ("Llama", "GPT2", "GPTNeoX", "Qwen3", "Gemma3Text", "Mistral", *RECURRENT)
RATIONALE = "The sky is grey and drops run down the window."


def tiny_lm(family: str = "Llama", **changes: Any) -> Any:
    """A random causal LM in float32, with weights large enough for every part to matter."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        initializer_range=0.2,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
        **SIZES[family],
        **changes,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def tiny_model(family: str = "Llama", head_kind: Any = "mlp", **changes: Any) -> DualHeadModel:
    """A dual-head model with a head for three labels ("made") and one for candidates."""
    return DualHeadModel(
        tiny_lm(family), head_kind=head_kind, n_outputs={"made": 3, "made_copa": 1}, **changes
    ).eval()


def encoder(tokenizer: Any = None, max_length: int = 400) -> Encoder:
    return Encoder(tokenizer or make_tokenizer(), ["made", "made_copa"], max_length)


def mixed_rows(rationales: bool = True) -> list[EncodedDecision]:
    """Eight decisions of ragged lengths: both formulations, some with rationale or soft label."""
    encode = encoder().encode
    decisions = [
        label_decision(0, gold=0),
        candidate_decision(1, gold=1),
        label_decision(2, gold=2, context="A far longer scene, in which a great deal goes on."),
        candidate_decision(3, gold=0, choices=("it is late.", "no.", "of the moon and the stars.")),
        label_decision(4, gold=1, context="Short."),
        candidate_decision(5, gold=0),
        label_decision(6, gold=1),
        label_decision(7, gold=0, context="Somewhat longer than short."),
    ]
    suffixes = {0: RATIONALE, 3: "Short.", 5: RATIONALE[:20], 6: RATIONALE * 2}
    label_probs = {0: (0.7, 0.2, 0.1), 2: (0.0, 0.5, 0.5), 5: (0.9, 0.1)}
    return [
        encode(
            decision,
            suffixes.get(decision.index) if rationales else None,
            label_probs.get(decision.index),
        )
        for decision in decisions
    ]
