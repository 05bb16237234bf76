"""A harness model that says what a test tells it to, and a short way to evaluate one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval import tasks as harness_tasks
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from dhrd_plugin.harness import task_folders


class ScriptedLM(LM):
    """Answers requests with `reply` and `log_likelihood`, and remembers them."""

    def __init__(
        self,
        reply: Callable[[Instance], str] = lambda request: "",
        log_likelihood: Callable[[Instance], float] = lambda request: 0.0,
    ) -> None:
        super().__init__()
        self.reply = reply
        self.log_likelihood = log_likelihood
        self.requests: list[Instance] = []

    def loglikelihood(self, requests, disable_tqdm=False):
        self.requests += requests
        return [(self.log_likelihood(request), False) for request in requests]

    def generate_until(self, requests, disable_tqdm=False):
        self.requests += requests
        return [self.reply(request) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    @property
    def tokenizer_name(self) -> str:
        return "scripted"

    def chat_template(self, chat_template=False) -> str:
        return "json"

    def apply_chat_template(self, chat_history, add_generation_prompt=True) -> str:
        return json.dumps(chat_history)


def random_log_likelihood(seed: int) -> Callable[[Instance], float]:
    """Log-likelihoods in nats that depend on nothing but the order of the requests."""
    rng = random.Random(seed)
    return lambda request: -10 * rng.random()


def evaluate(model: Any, tasks: Sequence[str], **settings: Any) -> dict[str, Any]:
    """`lm_eval.simple_evaluate` with SuperGLUE's tasks, stock and ours."""
    stock = Path(harness_tasks.__file__).parent / "super_glue"
    folders = [str(stock), *map(str, task_folders())]
    manager = harness_tasks.TaskManager(include_path=folders, include_defaults=False)
    return lm_eval.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, **settings
    )
