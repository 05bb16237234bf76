"""The teacher `openai:MODEL`: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from dhrd_plugin.decisions import TaskDecisions
from dhrd_plugin.errors import EXIT_BAD_INPUT, EXIT_FAILED, DHRDError
from teachers.base import Reply, Request, register
from teachers.checks import parse_reply

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
PLACEHOLDER_KEY = "no-key-needed"  # local servers take any, but the client wants one
SHORTEST_SECRET = 8  # characters; shorter "keys" are placeholders ("EMPTY", "x"), found in any text
_KEY_SHAPED = re.compile(r"\bsk-[\w*.-]{4,}")


@register("openai:MODEL")
class ServerTeacher:
    """A chat model behind HTTP, asked concurrently.

    Passing errors (rate limits, 5xx, broken connections) are retried by OpenAI's own client. An
    error that would meet every row (wrong key, unknown model, no server) stops the run.
    """

    adapter = "openai"
    asks = True

    def __init__(
        self,
        model: str,
        splits: Sequence[TaskDecisions],
        *,
        base_url: str | None = None,
        concurrency: int = 8,
        seed: int | None = None,
    ) -> None:
        """Find the server and key; nothing is sent yet.

        Args:
            base_url: the server, up to `/v1`; $OPENAI_BASE_URL or OpenAI itself by default.
            concurrency: requests in flight.
            seed: sent to the server, another one for every row and attempt; not sent by default,
                since some servers refuse it.

        Raises:
            DHRDError: no key for a server that is not local.
        """
        self.model = model
        self.params: dict[str, Any] = {} if seed is None else {"seed": seed}
        self._base_url = (
            base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        )
        if urlsplit(self._base_url).scheme not in ("http", "https"):
            raise DHRDError(f"--base-url {self._base_url!r}: need http://… or https://…")
        self._key = self._find_key()
        self._concurrency = concurrency
        self._answered = False  # whether the server has ever answered

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Answer the requests as the server does, `concurrency` at a time."""
        client = self._client()
        with asyncio.Runner() as runner:  # on the way out it cancels what is still in flight
            loop = runner.get_loop()
            running: set[asyncio.Task] = set()
            while True:
                for request in requests:
                    task = loop.create_task(self._ask(client, request))
                    # Looked at even when another task's error ends the run first: asyncio would
                    # print a traceback for an error that nobody saw.
                    task.add_done_callback(lambda t: t.cancelled() or t.exception())
                    running.add(task)
                    if len(running) >= self._concurrency:
                        break
                if not running:
                    break
                done, running = runner.run(
                    asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                )
                for task in done:
                    if task.exception() is None:
                        yield task.result()
                for task in done:
                    task.result()  # raises what stops the run, after what was won is handed over
            runner.run(client.close())

    def _client(self) -> Any:
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise DHRDError(
                "openai: teachers need the openai package. Run: pip install openai"
            ) from None
        return AsyncOpenAI(base_url=self._base_url, api_key=self._key)

    async def _ask(self, client: Any, request: Request) -> tuple[Request, Reply]:
        import openai

        prompt, origin = request.prompt, request.prompt.origin
        options = {"seed": request.seed(self.params["seed"])} if "seed" in self.params else {}
        try:
            completion = await client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt.render(request.decision)}],
                **options,
            )
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise self._stop(f"refused {self.model!r}: {self._clean(str(error))}") from None
        except openai.APIConnectionError as error:  # timeouts too
            if not self._answered:
                reason = self._clean(str(error.__cause__ or error))
                raise self._stop(f"cannot be reached: {reason}") from None
            return request, Reply("", None, origin, failure=self._clean(str(error)))
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            return request, Reply("", None, origin, failure=self._clean(str(error)))
        if isinstance(completion, str):  # what the client hands over when it is not JSON
            raise self._stop(f"sent no chat completion but {self._clean(completion[:80])!r}")
        self._answered = True
        choices = completion.choices  # none, or no content: the server declined
        text = self._clean(choices[0].message.content or "") if choices else ""
        rationale, answer, problem = parse_reply(text)
        usage = completion.usage
        return request, Reply(
            rationale=rationale,
            answer=answer,
            origin=origin,
            text=text,
            problem=problem,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        )

    def _stop(self, what: str) -> DHRDError:
        return DHRDError(
            f"The server {self._shown_url()} {what}\n"
            "Check --base-url (up to /v1), the model's name and OPENAI_API_KEY.",
            exit_code=EXIT_FAILED if self._answered else EXIT_BAD_INPUT,
        )

    def _find_key(self) -> str:
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and urlsplit(self._base_url).hostname in LOCAL_HOSTS:
            return PLACEHOLDER_KEY
        if not key:
            raise DHRDError(
                f"No key for {self._shown_url()}: set OPENAI_API_KEY. For a server on this "
                "machine give --base-url http://localhost:PORT/v1; it needs none."
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise DHRDError("OPENAI_API_KEY holds characters that no key has: copy it anew.")
        return key

    def _shown_url(self) -> str:
        """The server's address without any user name, password or query."""
        parts = urlsplit(self._base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _clean(self, text: str) -> str:
        """What a server said, fit for records and messages: without keys, and valid Unicode."""
        text = text.encode("utf-8", errors="replace").decode("utf-8")
        if len(self._key) >= SHORTEST_SECRET:
            text = text.replace(self._key, "[key]")
        return _KEY_SHAPED.sub("[key]", text)
