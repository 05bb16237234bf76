"""A server that speaks OpenAI's chat completions: its address, its key, and one request to it."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import urlsplit

from dhrd_plugin.errors import DHRDError
from teachers.budget import Prices
from teachers.server.completions import Answer, NoAnswer, read_completion, read_error

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
PLACEHOLDER_KEY = "no-key-needed"  # local servers take any, but the client wants one
CONNECT_TIMEOUT = 10.0  # seconds


class Endpoint:
    """Where chats are sent to. Use as a context manager, within one event loop at a time."""

    def __init__(self, base_url: str | None, *, timeout: float, prices: Prices | None) -> None:
        """Find the server and key; nothing is sent before `complete`.

        Args:
            base_url: the server, up to `/v1`; $OPENAI_BASE_URL or OpenAI itself by default.
            timeout: seconds for a whole request.

        Raises:
            DHRDError: no URL, no key for a server that is not local, or one that cannot be a key.
        """
        self._url = base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self._check_url()
        self._key = self._find_key()
        self._timeout = timeout
        self._prices = prices
        self._client: Any = None

    async def __aenter__(self) -> Endpoint:
        try:
            from openai import AsyncOpenAI, Timeout
        except ImportError:
            raise DHRDError(
                "openai: teachers need the openai package. Run: pip install openai"
            ) from None
        self._client = AsyncOpenAI(
            base_url=self._url,
            api_key=self._key,
            timeout=Timeout(self._timeout, connect=min(self._timeout, CONNECT_TIMEOUT)),
            max_retries=0,  # each send has to be paced and paid for: who calls sends again
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def complete(self, options: dict[str, Any]) -> Answer:
        """Send a chat once.

        Args:
            options: of the API, model and messages included.

        Raises:
            NoAnswer: whatever went wrong.
        """
        import openai
        from openai.types.chat import ChatCompletion

        try:
            # The client's own timeout starts anew with every byte. Its method for any path spares
            # what `chat.completions.create` does to a body that is already as it should be, which
            # is a fifth of the processor time.
            async with asyncio.timeout(self._timeout):
                completion = await self._client.post(
                    "/chat/completions", body=options, cast_to=ChatCompletion
                )
        except TimeoutError:
            raise NoAnswer(f"no reply within {self._timeout:g} s", used=None) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON
            raise read_error(error, options, key=self._key) from None
        return read_completion(completion, prices=self._prices, key=self._key)

    @property
    def shown(self) -> str:
        """The server's address without any user name, password or query."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self._url)
            _ = parts.port  # raises where it is no number, or too large a one
        except ValueError:
            usable = False
        else:
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        if not usable or " " in self._url:  # not shown: it may hold a password
            raise DHRDError(
                "--base-url (or $OPENAI_BASE_URL) is no address of a server: need "
                "http://HOST:PORT/v1 or https://HOST/v1."
            )

    def _find_key(self) -> str:
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and urlsplit(self._url).hostname in LOCAL_HOSTS:
            return PLACEHOLDER_KEY
        if not key:
            raise DHRDError(
                f"No key for {self.shown}: set OPENAI_API_KEY. For a server on this machine give "
                "--base-url http://localhost:PORT/v1; it needs none."
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise DHRDError("OPENAI_API_KEY holds characters that no key has: copy it anew.")
        return key
