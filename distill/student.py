"""From settings and data to an untrained student."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from dhrd_plugin.backbones import four_bit, load_causal_lm
from dhrd_plugin.checkpoint import TaskHead
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.modeling import DualHeadModel, check_backbone, check_positions
from distill.config import ALL_LINEAR, DistillConfig

LORA_RANK, LORA_ALPHA = 16, 32  # the paper's
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIXED_PRECISION = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}
# State-space mixers read these weights past their modules, where an adapter does not reach.
READ_PAST_THEIR_MODULES = re.compile(r"\.(mixer|mamba)\.(conv1d|x_proj|dt_proj|out_proj)$")


def load_backbone(config: DistillConfig, vocab_size: int, dtype: torch.dtype) -> Any:
    """The causal LM that becomes a student.

    With LoRA the frozen backbone is held in `dtype`, or in 4 bits, and adapter and heads in
    float32; with --full the weights that train are float32 and `dtype` is reached by autocast.

    Raises:
        DHRDError: a backbone that cannot be split, or with too few positions for --max-length.
    """
    quantization = {"quantization_config": four_bit(dtype)} if config.qlora else {}
    lm = load_causal_lm(
        config.backbone, dtype=torch.float32 if config.full else dtype, **quantization
    )
    check_backbone(lm, vocab_size)
    check_positions(lm, config.backbone, config.max_length)
    return lm


def build_student(lm: Any, config: DistillConfig, heads: Mapping[str, TaskHead]) -> DualHeadModel:
    """The untrained student on `lm`, with the settings of `for_backbone`.

    Raises:
        DHRDError: no layer of the names in --lora-target.
    """
    lm_head = lm.get_output_embeddings()
    lm_head_learns = config.has_reasoning or config.kd_teacher is not None
    if not lm_head_learns and lm_head.weight is not lm.get_input_embeddings().weight:
        lm_head.requires_grad_(False)  # nothing would train it, which stops distributed training
    if config.gradient_checkpointing:
        lm.gradient_checkpointing_enable({"use_reentrant": False})
    if not config.full:
        from peft import LoraConfig, get_peft_model

        # Families name their projections differently; on Llama "all-linear" is the paper's list of
        # seven.
        target = config.lora_target
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            target_modules=ALL_LINEAR if target == (ALL_LINEAR,) else list(target),
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,
            lora_dropout=config.lora_dropout,
            bias="none",
            exclude_modules=[
                name for name, _ in lm.named_modules() if READ_PAST_THEIR_MODULES.search(name)
            ]
            or None,
        )
        try:
            lm = get_peft_model(lm, lora)
        except ValueError as error:
            raise DHRDError(f"--lora-target {','.join(target)}: {error}") from error
    n_outputs = {task: head.n_outputs for task, head in heads.items()}
    return DualHeadModel(lm, head_kind=config.head, n_outputs=n_outputs)


def resolve_dtype(name: str) -> torch.dtype:
    """ "auto" is bfloat16 where the GPU, or the CPU without one, computes in it, else float32.

    Raises:
        DHRDError: float16 without a GPU, whose loss scaling accelerate has for GPUs only.
    """
    if name == "float16" and not torch.cuda.is_available():
        raise DHRDError("--dtype float16 needs a GPU: use bfloat16 or float32 here.")
    if name != "auto":
        return DTYPES[name]
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # elsewhere bfloat16 is emulated, and slower than float32; older torch cannot tell
        cpu: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32
