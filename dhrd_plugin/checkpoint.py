"""Students on disk: what is in the folder, how it is written and read. No pickle anywhere.

dhrd.json              base model, heads, tasks, training summary, fingerprint
head.safetensors       the classification heads
adapter_*.…            PEFT adapter; a fully fine-tuned student has model.safetensors instead
tokenizer files        as trained
README.md              model card (written by `distill`)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dhrd_plugin.errors import DHRDError

if TYPE_CHECKING:
    from dhrd_plugin.decisions import Formulation

HeadKind = Literal["mlp", "linear"]
LMSpan = Literal["full", "rationale"]  # what the reasoning loss counts

SCHEMA = "dhrd.student/1"
CONFIG_FILE = "dhrd.json"
HEAD_FILE = "head.safetensors"


@dataclass(frozen=True)
class TaskHead:
    """What a student knows of one task: enough to refuse questions of another shape.

    `choices` are the label words in logit order, None for candidates; `temperature` is what logits
    are divided by for calibrated probabilities.
    """

    formulation: Formulation
    choices: tuple[str, ...] | None
    version: str
    template_sha: str
    temperature: float = 1.0

    @property
    def n_outputs(self) -> int:
        return len(self.choices) if self.choices is not None else 1


@dataclass(frozen=True)
class StudentConfig:
    """Contents of dhrd.json.

    Attributes:
        base_model: alias or hub id (a folder only where the user named one).
        adapter: whether the weights are a PEFT adapter on `base_model` or a whole model.
        dtype: computing precision in training, "float32", "bfloat16" or "float16".
        max_length: tokens per input; longer ones are cut on the left.
        tasks: heads by task, in the order of the model's heads.
        training: settings and results, for people and reports.
        fingerprint: hash of the trained weights.
        quantized: whether the adapter was trained on `base_model` in 4 bits, and needs it so.
    """

    base_model: str
    adapter: bool
    head: HeadKind
    dtype: str
    max_length: int
    tasks: dict[str, TaskHead]
    training: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    quantized: bool = False

    @property
    def n_outputs(self) -> dict[str, int]:
        return {task: head.n_outputs for task, head in self.tasks.items()}


def save_student(
    folder: str | Path, model: Any, tokenizer: Any, config: StudentConfig
) -> StudentConfig:
    """Write `model` (a DualHeadModel) into `folder`; returns `config` with its fingerprint.

    dhrd.json comes last: a folder without it is no student yet.
    """
    from dataclasses import replace

    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if config.adapter:
        # PEFT would note the cache folder that the weights were read from.
        for peft_config in model.lm.peft_config.values():
            peft_config.base_model_name_or_path = config.base_model
        # The vocabulary never changes; to find that out, PEFT would ask the hub for the base model.
        model.lm.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    heads = {k: v.detach().contiguous().cpu() for k, v in model.heads.state_dict().items()}
    save_file(heads, folder / HEAD_FILE)
    config = replace(config, fingerprint=_fingerprint(folder))
    text = json.dumps({"schema": SCHEMA, **asdict(config)}, indent=2, ensure_ascii=False)
    staging = folder / (CONFIG_FILE + ".partial")
    staging.write_text(text + "\n", encoding="utf-8")
    staging.rename(folder / CONFIG_FILE)
    return config


def _fingerprint(folder: Path) -> str:
    """Hash over the weight files, sharded ones included, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def read_student_config(folder: str | Path) -> StudentConfig:
    """Read dhrd.json.

    Raises:
        DHRDError: no student there, or one of another format.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise DHRDError(
            f"No DHRD student in {folder}: {path.name} {why}.\n"
            "Make one with `dhrd-distill --output DIR` and name that folder."
        ) from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != SCHEMA:
        raise DHRDError(
            f"{path}: schema is {schema!r}, this version reads {SCHEMA!r}. "
            "Train the student anew or install the version of dhrd that wrote it."
        )
    fields = {key: value for key, value in raw.items() if key != "schema"}
    try:
        fields["tasks"] = {
            task: TaskHead(
                **{**head, "choices": tuple(head["choices"]) if head["choices"] else None}
            )
            for task, head in fields["tasks"].items()
        }
        return StudentConfig(**fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise DHRDError(f"{path}: not a valid student description ({error}).") from None


def attach_heads(lm: Any, folder: str | Path, config: StudentConfig) -> Any:
    """A DualHeadModel over the loaded `lm`, with the student's trained heads, on its device.

    Raises:
        DHRDError: head weights that are missing or do not fit dhrd.json.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from dhrd_plugin.modeling import DualHeadModel

    model = DualHeadModel(lm, head_kind=config.head, n_outputs=config.n_outputs)
    try:
        model.heads.load_state_dict(load_file(Path(folder) / HEAD_FILE))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DHRDError(
            f"{folder}: {HEAD_FILE} does not hold the heads that {CONFIG_FILE} describes "
            f"({str(error).splitlines()[0]}). Copy the student again or train it anew."
        ) from error
    model.heads.to(lm.get_input_embeddings().weight.device)
    return model.eval()


def load_student(folder: str | Path, *, merge: bool = False) -> tuple[Any, Any, StudentConfig]:
    """(DualHeadModel, tokenizer, config), for use without the harness.

    Args:
        merge: fold the adapter into the weights: faster, equal up to rounding.

    Raises:
        DHRDError: nothing to load, or an adapter on a 4-bit backbone that should be merged.
    """
    import torch

    from dhrd_plugin.backbones import four_bit, load_causal_lm, load_tokenizer

    config = read_student_config(folder)
    dtype = getattr(torch, config.dtype)
    if config.adapter:
        from peft import PeftModel

        if merge and config.quantized:
            raise DHRDError(
                f"{folder}: an adapter on a 4-bit backbone is not equal once merged, since the "
                "weights are rounded anew. Load it with merge=False."
            )
        quantization = {"quantization_config": four_bit(dtype)} if config.quantized else {}
        base = load_causal_lm(config.base_model, dtype=dtype, **quantization)
        lm = PeftModel.from_pretrained(base, str(folder))
        if merge:
            lm = lm.merge_and_unload()
    else:
        lm = load_causal_lm(str(folder), dtype=torch.float32)
    return attach_heads(lm, folder, config), load_tokenizer(str(folder)), config
