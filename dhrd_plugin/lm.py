"""`lm_eval --model dhrd`: the pooled classification head as a harness model.

The harness's own `HFLM` loads the weights, so that devices, data parallelism, chat templates and
decoding (`generate_until`, the reasoning head) are the harness's code. Only log-likelihood requests
are answered differently: all of a document's choices at once, by one classifier forward.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import find_executable_batch_size
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from dhrd_plugin.backbones import four_bit, resolve_backbone, use_differentiable_kernels
from dhrd_plugin.batching import EncodedDecision, Encoder
from dhrd_plugin.checkpoint import CONFIG_FILE, attach_heads, read_student_config
from dhrd_plugin.decisions import (
    Decision,
    Pair,
    build_decision,
    request_pairs,
    task_version,
    template_sha,
)
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.harness import load_task, render_requests
from dhrd_plugin.scoring import rescale, score

logger = logging.getLogger(__name__)

DEFAULT_STUDENT = "dhrd-student"  # where `dhrd-distill` writes by default
DETERMINED_BY_STUDENT = {
    "add_bos_token",
    "backend",
    "delta",
    "dtype",
    "peft",
    "revision",
    "subfolder",
    "tokenizer",
}
Answer = tuple[float, bool]  # log-probability in nats, whether it is the most probable choice


class DHRDLM(HFLM):
    """A dual-head student in the harness.

    Args:
        pretrained: the student's folder; without it $DHRD_STUDENT, else ./dhrd-student.
        device: "cuda", "cpu", …; by default what there is.
        batch_size: documents per forward, or "auto" (the largest up to `max_batch_size` that fits).
        max_batch_size: see above.
        merge: fold the adapter into the weights, which is faster and equal up to rounding; with
            `merge=False` the logits are bit-equal to training's. A 4-bit backbone is never merged.
        calibrated: divide each task's logits by the temperature fitted in training; changes
            probabilities, never which choice is the most probable.
        include_path: folder of the user's own task YAML files, for the comparison of prompts.
        kwargs: passed on to `HFLM`.

    Raises:
        DHRDError: no student, or arguments that the student itself determines.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int = 64,
        merge: bool = True,
        calibrated: bool = False,
        include_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        folder = find_student(pretrained)
        self.student = read_student_config(folder)
        taken = sorted(DETERMINED_BY_STUDENT & kwargs.keys())
        if taken:
            raise DHRDError(
                f"--model_args {taken[0]}=…: the student in {folder} determines it. "
                "Give `pretrained=FOLDER` alone."
            )
        adapter = self.student.adapter
        super().__init__(
            pretrained=resolve_backbone(self.student.base_model) if adapter else str(folder),
            peft=str(folder) if adapter else None,
            tokenizer=str(folder),
            dtype=self.student.dtype if adapter else "float32",
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            batch_size=batch_size,
            max_batch_size=max_batch_size,
            **kwargs,
        )
        if hasattr(self, "accelerator"):  # HFLM sets these for GPUs only
            self._rank = self.accelerator.process_index
            self._world_size = self.accelerator.num_processes
        if adapter and merge and not self.student.quantized:
            self._model: Any = self.model.merge_and_unload()
        self.dual_head = attach_heads(self.model, folder, self.student)
        self._encoder = Encoder(self.tokenizer, list(self.student.tasks), self.student.max_length)
        self._calibrated = calibrated
        self._include_path = include_path
        self._tasks: dict[str, Any] = {}  # harness tasks by name; None for one that is not found

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        # HFLM's own arguments for 4 bits fail with transformers 5; those of the model's loader not.
        if self.student.quantized:
            dtype = getattr(torch, self.student.dtype)
            kwargs["quantization_config"] = four_bit(dtype)
        super()._create_model(*args, **kwargs)
        if self.student.quantized:
            use_differentiable_kernels(self._model)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-softmax over a document's choices, for each request; the argmax is "greedy".

        Raises:
            DHRDError: a task without a head, questions of another shape than trained on, or a
                document some of whose choices are missing.
        """
        documents: dict[tuple[str, int], dict[int, Instance]] = defaultdict(dict)
        for request in requests:  # ranks are padded by repeating a request: drop duplicates
            documents[request.task_name, request.doc_id].setdefault(request.idx, request)
        self._check_tasks({task for task, _ in documents})
        decisions = [
            self._decision(task, doc_id, [by_idx[idx] for idx in sorted(by_idx)])
            for (task, doc_id), by_idx in documents.items()
        ]
        answers: dict[tuple[str, int, int], Answer] = {}
        scored = self._score([self._encoder.encode(d) for d in decisions], disable_tqdm)
        for (task, doc_id), log_probs in zip(documents, scored, strict=True):
            if self._calibrated:
                log_probs = rescale(log_probs, self.student.tasks[task].temperature)
            best = max(range(len(log_probs)), key=log_probs.__getitem__)
            for idx, log_prob in enumerate(log_probs):
                answers[task, doc_id, idx] = (log_prob, idx == best)
        # Auxiliary requests (`acc_mutual_info`'s empty contexts) come after the choices and get 0:
        # a classifier has no unconditional likelihood.
        return [answers.get((r.task_name, r.doc_id, r.idx), (0.0, False)) for r in requests]

    def set_cache_hook(self, cache_hook: Any) -> None:
        raise DHRDError(
            "--use_cache: its key holds neither the model nor the task, so that another student's "
            "answers would be returned; and a classifier forward is cheaper than the look-up. "
            "Leave it out."
        )

    def get_model_info(self) -> dict[str, Any]:
        """HFLM's facts, and under "dhrd" who the student is: reports group runs by it."""
        student = self.student
        return super().get_model_info() | {
            "dhrd": {
                "fingerprint": student.fingerprint,
                "backbone": student.base_model,
                "setting": student.training.get("setting"),
                "seed": student.training.get("seed"),
                "tasks": list(student.tasks),
                "training": student.training,
            }
        }

    def _check_tasks(self, tasks: set[str]) -> None:
        unknown = sorted(tasks - self.student.tasks.keys())
        if unknown:
            raise DHRDError(
                f"The student has no head for task {', '.join(unknown)}; it has heads for "
                f"{', '.join(self.student.tasks)}. Train one with `dhrd-distill --task "
                f"{','.join(unknown)}`, or leave these tasks out."
            )

    def _decision(self, task: str, doc_id: int, instances: Sequence[Instance]) -> Decision:
        """The question that a document's instances ask, if it is one the student was trained on."""
        pairs = request_pairs(instances)
        head = self.student.tasks[task]
        if task not in self._tasks:
            self._tasks[task] = self._checked_task(task, instances[0], pairs)
        loaded = self._tasks[task]
        offered = len(loaded.doc_to_choice(instances[0].doc)) if loaded else len(pairs)
        # The choices come first, so that theirs are the lowest numbers.
        if [i.idx for i in instances[: len(pairs)]] != list(range(offered)):
            raise DHRDError(f"Task {task}, document {doc_id}: some of its choices are missing.")
        decision = build_decision(pairs, head.formulation, task=task, split="test", index=doc_id)
        if head.choices is not None and decision.choices != head.choices:
            raise DHRDError(
                f"Task {task}, document {doc_id}: its choices are {list(decision.choices)}, the "
                f"student was trained on {list(head.choices)}. Use the task it was trained on."
            )
        return decision

    def _checked_task(self, task: str, instance: Instance, pairs: list[Pair]) -> Any:
        """The harness task, if it asks what the student was trained on; None if it is not found.

        Refuses few-shot examples, chat templates and other prompts: the first document is rendered
        once more, zero-shot, and compared with what was asked.
        """
        try:
            loaded = load_task(task, self._include_path)
        except DHRDError as error:
            logger.warning(
                "Task %s cannot be loaded by name (%s): only its choices are compared with the "
                "training's, not its prompt. For a task of your own, add include_path=FOLDER to "
                "--model_args.",
                task,
                str(error).splitlines()[0],
            )
            return None
        head = self.student.tasks[task]
        if template_sha(loaded) != head.template_sha or task_version(loaded) != head.version:
            raise DHRDError(
                f"Task {task}: its prompt is another one (version {task_version(loaded)}) than the "
                f"student was trained on (version {head.version}). Train the student anew, or "
                "install the version of the task that it was trained on. For a task of your own, "
                "add include_path=FOLDER to --model_args."
            )
        zero_shot = request_pairs(render_requests(loaded, instance.doc, instance.doc_id))
        if zero_shot != pairs:
            raise DHRDError(
                f"Task {task}: the context is not the zero-shot one the student was trained on: got"
                f"\n  {_end(pairs[0])}\nneeded\n  {_end(zero_shot[0])}\nLeave out --num_fewshot, "
                "--apply_chat_template and --system_instruction."
            )
        return loaded

    def _score(self, encoded: list[EncodedDecision], disable_tqdm: bool) -> list[list[float]]:
        dtype = getattr(torch, self.student.dtype)
        progress = tqdm(
            total=len(encoded),
            desc="Running pooled classification",
            disable=disable_tqdm or self.rank != 0,
        )

        def run(batch_size: int) -> list[list[float]]:
            progress.reset()
            return score(
                self.dual_head,
                encoded,
                batch_size=batch_size,
                pad_token_id=self.tokenizer.pad_token_id,
                dtype=dtype,
                on_batch=progress.update,
            )

        with progress:
            if self.batch_size_per_gpu == "auto":
                # HFLM's own probe would build full vocabulary logits; ours halves on out of memory.
                return find_executable_batch_size(run, starting_batch_size=self.max_batch_size)()
            return run(self.batch_size_per_gpu)


def find_student(pretrained: str | None) -> Path:
    """The student's folder: `pretrained`, else $DHRD_STUDENT, else ./dhrd-student.

    Raises:
        DHRDError: none of them is there.
    """
    named = pretrained or os.environ.get("DHRD_STUDENT")
    folder = Path(named or DEFAULT_STUDENT).expanduser()
    if named is None and not (folder / CONFIG_FILE).is_file():
        raise DHRDError(
            f"No student named: there is no ./{DEFAULT_STUDENT}, $DHRD_STUDENT is not set and "
            "--model_args has no pretrained=FOLDER. Make one with\n"
            "  dhrd-teach --teacher hf:smollm2 && dhrd-distill\n"
            "or name a folder that `dhrd-distill --output FOLDER` wrote."
        )
    return folder


def _end(pair: Pair, characters: int = 120) -> str:
    text = pair[0] + pair[1]
    return repr(text if len(text) <= characters else "…" + text[-characters:])
