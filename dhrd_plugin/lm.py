"""`lm_eval --model dhrd`: the pooled classification head as a harness model.

The harness's own `HFLM` loads the weights, so that devices, data parallelism, chat templates and
decoding (`generate_until`, the reasoning head) are the harness's code. Only log-likelihood requests
are answered differently: all of a document's choices at once, by one classifier forward.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from accelerate.utils import find_executable_batch_size
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from dhrd_plugin.backbones import four_bit, resolve_backbone, use_differentiable_kernels
from dhrd_plugin.batching import EncodedDecision, Encoder
from dhrd_plugin.checkpoint import attach_heads
from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError
from dhrd_plugin.parity import ParityCheck
from dhrd_plugin.scoring import rescale, score
from dhrd_plugin.students import Student, find_students

logger = logging.getLogger(__name__)

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
Missing = Literal["error", "zero_shot"]
Reply = tuple[float, bool]  # log-probability in nats, whether it is the most probable choice


class DHRDLM(HFLM):
    """A dual-head student in the harness, or several over one backbone.

    Args:
        pretrained: the student's folder; without it $DHRD_STUDENT, else ./dhrd-student. Or a folder
            of such folders (`dhrd-distill --per-task`): each task is scored by the student that has
            its head.
        device: "cuda", "cpu", …; by default what there is.
        batch_size: most rows per forward (a row is one input, or several candidates of a document
            behind what they share), or "auto" (the largest number up to `max_batch_size` that
            fits). Long rows go in smaller batches.
        max_batch_size: see above.
        merge: fold the adapter into the weights, which is faster and equal up to rounding; with
            `merge=False` the logits are bit-equal to training's. Neither a 4-bit backbone nor one
            that several students share is ever merged.
        calibrated: divide each task's logits by the temperature fitted in training; changes
            probabilities, never which choice is the most probable.
        missing: what becomes of a task without a head: an "error", or "zero_shot", by the
            log-likelihood of its choices: the student's reasoning head's, or the bare backbone's
            where there are several students.
        include_path: folder of the user's own task YAML files, for the comparison of prompts.
        kwargs: passed on to `HFLM`.

    Raises:
        DHRDError: no student, students that cannot answer together, or arguments that the student
            itself determines.
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
        missing: Missing = "error",
        include_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        if missing not in ("error", "zero_shot"):
            raise DHRDError(f"--model_args missing={missing}: use one of error, zero_shot.")
        self.students = find_students(pretrained)
        folder, student = self.students.members[0].folder, self.students.members[0].config
        taken = sorted(DETERMINED_BY_STUDENT & kwargs.keys())
        if taken:
            raise DHRDError(
                f"--model_args {taken[0]}=…: the student in {folder} determines it. "
                "Give `pretrained=FOLDER` alone."
            )
        self._quantized, self._dtype = student.quantized, getattr(torch, student.dtype)
        super().__init__(
            pretrained=resolve_backbone(student.base_model) if student.adapter else str(folder),
            peft=str(folder) if student.adapter else None,
            tokenizer=str(folder),
            dtype=student.dtype if student.adapter else "float32",
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            batch_size=batch_size,
            max_batch_size=max_batch_size,
            **kwargs,
        )
        if hasattr(self, "accelerator"):  # HFLM sets these for GPUs only
            self._rank = self.accelerator.process_index
            self._world_size = self.accelerator.num_processes
        self._adapters = [self.model.active_adapter] if student.adapter else []
        for i, other in enumerate(self.students.members[1:], start=1):
            name = f"student_{i}"  # not the folder's name: it may hold dots, which PEFT's may not
            self.model.load_adapter(str(other.folder), adapter_name=name)
            self._adapters.append(name)
        if student.adapter and merge and not self._quantized and len(self._adapters) == 1:
            self._model: Any = self.model.merge_and_unload()
        self.dual_heads = [
            attach_heads(self.model, s.folder, s.config) for s in self.students.members
        ]
        self._encoders = [
            Encoder(self.tokenizer, list(s.config.tasks), s.config.max_length)
            for s in self.students.members
        ]
        self._parity = ParityCheck(self.students.heads, include_path)
        self._calibrated = calibrated
        self._missing = missing
        self._zero_shot: set[str] = set()  # tasks that were answered without a head

    def _create_model(self, *args: Any, **kwargs: Any) -> None:
        # HFLM's own arguments for 4 bits fail with transformers 5; those of the model's loader not.
        if self._quantized:
            kwargs["quantization_config"] = four_bit(self._dtype)
        super()._create_model(*args, **kwargs)
        if self._quantized:
            use_differentiable_kernels(self._model)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Reply]:
        """Log-softmax over a document's choices, for each request; the argmax is "greedy".

        Raises:
            DHRDError: a task without a head, questions of another shape than trained on, or a
                document some of whose choices are missing.
        """
        untaught = {request.task_name for request in requests} - self.students.heads.keys()
        self._check_untaught(untaught)
        decisions = self._parity.decisions(r for r in requests if r.task_name not in untaught)
        replies = self._classify(list(decisions.values()), disable_tqdm)
        spoken = iter(())
        if untaught:
            asked = [r for r in requests if r.task_name in untaught]
            with self._backbone():
                spoken = iter(super().loglikelihood(asked, disable_tqdm=disable_tqdm))
        # Auxiliary requests (`acc_mutual_info`'s empty contexts) come after the choices and get 0:
        # a classifier has no unconditional likelihood.
        return [
            next(spoken)
            if r.task_name in untaught
            else replies.get((r.task_name, r.doc_id, r.idx), (0.0, False))
            for r in requests
        ]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        return self._by_speaker(super().loglikelihood_rolling, requests, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._by_speaker(super().generate_until, requests, disable_tqdm)

    def set_cache_hook(self, cache_hook: Any) -> None:
        raise DHRDError(
            "--use_cache: its key holds neither the model nor the task, so that another student's "
            "answers would be returned; and a classifier forward is cheaper than the look-up. "
            "Leave it out."
        )

    def get_model_info(self) -> dict[str, Any]:
        """HFLM's facts, and under "dhrd" who the student is: reports group runs by it.

        Several students stand in a list under "students". "zero_shot" names the tasks that were
        scored without a head.
        """
        facts = [_facts(student) for student in self.students.members]
        about = facts[0] if len(facts) == 1 else {"students": facts}
        return super().get_model_info() | {"dhrd": about | {"zero_shot": sorted(self._zero_shot)}}

    def _check_untaught(self, tasks: set[str]) -> None:
        """Refuse tasks without a head, or say once how they are scored."""
        names = ", ".join(sorted(tasks))
        if tasks and self._missing == "error":
            raise DHRDError(
                f"No head for task {names}; there are heads for {self.students.where}. Train one "
                f"with `dhrd-distill --task {names.replace(' ', '')}`, leave these tasks out, or "
                "add missing=zero_shot to --model_args to score them by log-likelihood."
            )
        if tasks - self._zero_shot:
            one = len(self.students.members) == 1
            logger.warning(
                "No head for task %s: scored by the log-likelihood of its choices under the %s, "
                "not by a classifier. The results file lists it under config.dhrd.zero_shot.",
                names,
                "student's reasoning head" if one else "backbone, without any student's adapter",
            )
        self._zero_shot |= tasks

    @contextmanager
    def _backbone(self) -> Iterator[None]:
        """The language model that answers for no student: with a single one still its own."""
        if len(self.students.members) == 1:
            yield
        else:
            with self.model.disable_adapter():
                yield

    def _activate(self, student: int) -> None:
        if len(self._adapters) > 1:
            self.model.set_adapter(self._adapters[student])

    def _by_speaker(
        self, answer: Callable, requests: Sequence[Instance], disable_tqdm: bool
    ) -> list[Any]:
        """`answer`'s replies, with the reasoning head of each request's student."""
        speakers = [self.students.speaker(request.task_name) for request in requests]
        replies: dict[int, Any] = {}
        for student in sorted(set(speakers)):
            self._activate(student)
            indices = [i for i, speaker in enumerate(speakers) if speaker == student]
            spoken = answer([requests[i] for i in indices], disable_tqdm=disable_tqdm)
            replies.update(zip(indices, spoken, strict=True))
        return [replies[i] for i in range(len(requests))]

    def _classify(
        self, decisions: Sequence[Decision], disable_tqdm: bool
    ) -> dict[tuple[str, int, int], Reply]:
        """By task, document and choice, the replies of the classification heads."""
        replies: dict[tuple[str, int, int], Reply] = {}
        for student, encoder in enumerate(self._encoders):
            own = [d for d in decisions if self.students.owner(d.task) == student]
            if not own:
                continue
            self._activate(student)
            scored = self._score(student, [encoder.encode(d) for d in own], disable_tqdm)
            for decision, log_probs in zip(own, scored, strict=True):
                if self._calibrated:
                    temperature = self.students.heads[decision.task].temperature
                    log_probs = rescale(log_probs, temperature)
                best = max(range(len(log_probs)), key=log_probs.__getitem__)
                for idx, log_prob in enumerate(log_probs):
                    replies[decision.task, decision.index, idx] = (log_prob, idx == best)
        return replies

    def _score(
        self, student: int, encoded: list[EncodedDecision], disable_tqdm: bool
    ) -> list[list[float]]:
        progress = tqdm(
            total=len(encoded),
            desc="Running pooled classification",
            disable=disable_tqdm or self.rank != 0,
        )

        def run(batch_size: int) -> list[list[float]]:
            progress.reset()
            return score(
                self.dual_heads[student],
                encoded,
                batch_size=batch_size,
                pad_token_id=self.tokenizer.pad_token_id,
                dtype=self._dtype,
                on_batch=progress.update,
            )

        with progress:
            if self.batch_size_per_gpu == "auto":
                # HFLM's own probe would build full vocabulary logits; ours halves on out of memory.
                return find_executable_batch_size(run, starting_batch_size=self.max_batch_size)()
            return run(self.batch_size_per_gpu)


def _facts(student: Student) -> dict[str, Any]:
    config = student.config
    return {
        "fingerprint": config.fingerprint,
        "backbone": config.base_model,
        "setting": config.training.get("setting"),
        "seed": config.training.get("seed"),
        "tasks": list(config.tasks),
        "training": config.training,
    }
