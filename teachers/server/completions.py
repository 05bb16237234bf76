"""What comes back from a chat server: an answer, or the reason why there is none."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from teachers.budget import Prices, Usage

SHORTEST_SECRET = 8  # characters; shorter "keys" are placeholders ("EMPTY", "x"), found in any text
LONGEST_REASON = 400  # characters of an error that are kept; some servers send whole web pages
_KEY_SHAPED = re.compile(r"\bsk-[\w*.-]{4,}")
_OUT_OF_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")  # error codes
# Errors of the HTTP client for which nothing was sent. By name: openai's client uses httpx or
# httpx2, depending on its version.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
CHECK_SETTINGS = "Check --base-url (up to /v1), the model's name and OPENAI_API_KEY."


@dataclass(frozen=True)
class Answer:
    """A chat completion, as far as it matters here.

    Attributes:
        text: "" when the model said nothing.
        problem: why the text is not to be used, if so (declined, cut off).
        logprobs: the reply's tokens, with alternatives, where the server gives them.
        used: as reported; None when the server did not say.
    """

    text: str
    problem: str | None
    logprobs: list[Any] | None
    used: Usage | None


@dataclass(eq=False)
class NoAnswer(Exception):
    """A request got no answer.

    Attributes:
        reason: why, in words for people, without keys.
        scope: what is in vain: this "send" (sent again it may succeed), this "row", or the "run".
        used: what the server will bill; None when it is not known and may be all of it.
        no_server: whether there seems to be no chat server; if none ever answered, the whole run is
            in vain.
        too_many: whether the server asked for fewer requests.
        retry_after: seconds for which the server wants no request.
        refused: names of the parameters that the server objected to.
    """

    reason: str
    scope: Literal["send", "row", "run"] = "send"
    used: Usage | None = field(default_factory=Usage)
    no_server: bool = False
    too_many: bool = False
    retry_after: float | None = None
    refused: frozenset[str] = frozenset()


def read_completion(completion: Any, *, prices: Prices | None, key: str) -> Answer:
    """Read what openai's client returns, which it does not validate.

    Raises:
        NoAnswer: no choice in it, or no chat completion at all.
    """
    if isinstance(completion, str):  # what the client hands over when it is not JSON
        shown = cleaned(completion, key)[:80]  # in this order: half a key would not be found
        raise NoAnswer(f"sent no chat completion but {shown!r}", used=None, no_server=True)
    used = _read_usage(getattr(completion, "usage", None), prices)
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        # Some gateways report a failed upstream server with status 200.
        error = getattr(completion, "error", None)
        reason = "a reply without choices" if error is None else f"a reply with an error: {error}"
        raise NoAnswer(shortened(reason, key), used=used)
    content = getattr(message, "content", None)
    finish = getattr(choice, "finish_reason", None)
    problem = None
    if declined := getattr(message, "refusal", None):
        problem = f"the teacher declined: {shortened(str(declined), key)}"
    elif finish == "content_filter":
        problem = "the teacher declined: content filter"
    elif finish == "length":
        count = f" after {used.completion_tokens} tokens" if used else ""
        problem = f"cut off{count} (--max-new-tokens)"
    return Answer(
        text=cleaned(content, key) if isinstance(content, str) else "",
        problem=problem,
        logprobs=_read_logprobs(choice),
        used=used,
    )


def _read_usage(reported: Any, prices: Prices | None) -> Usage | None:
    """A completion's usage; None if it lacks or cannot be, or if nothing is said to be used."""
    prompt_tokens = getattr(reported, "prompt_tokens", None)
    completion_tokens = getattr(reported, "completion_tokens", None)
    # By type: True is an int, too.
    if type(prompt_tokens) is not int or type(completion_tokens) is not int:
        return None
    if prompt_tokens <= 0 or completion_tokens < 0:
        return None
    return priced(prompt_tokens, completion_tokens, prices)


def _read_logprobs(choice: Any) -> list[Any] | None:
    """A choice's tokens; None if they lack, or lack alternatives with log-probabilities."""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None)
    if not isinstance(tokens, list) or not tokens:
        return None
    return tokens if all(map(_has_alternatives, tokens)) else None


def _has_alternatives(token: Any) -> bool:
    alternatives = getattr(token, "top_logprobs", None)
    return (
        isinstance(getattr(token, "token", None), str)
        and token.token != ""
        and isinstance(alternatives, list)
        and len(alternatives) > 0
        and all(map(_has_logprob, alternatives))
    )


def _has_logprob(alternative: Any) -> bool:
    logprob = getattr(alternative, "logprob", None)
    # Rounding may take a probability a little above 1.
    valid = isinstance(logprob, int | float) and logprob < 0.01
    return valid and isinstance(getattr(alternative, "token", None), str)


def priced(prompt_tokens: int, completion_tokens: int, prices: Prices | None) -> Usage:
    """These tokens, with what they cost where prices are known."""
    if prices is None:
        return Usage(prompt_tokens, completion_tokens)
    return prices.usage(prompt_tokens, completion_tokens)


def read_error(error: Exception, sent: Mapping[str, Any], *, key: str) -> NoAnswer:
    """Sort an error of openai's client, a timeout or a broken body.

    Args:
        sent: the parameters of the request.
    """
    import openai

    reason = shortened(str(error), key)
    if isinstance(error, openai.APIConnectionError):  # timeouts of the HTTP client too
        reason = shortened(str(error.__cause__ or error), key)
        if type(error.__cause__).__name__ in _NEVER_SENT:
            return NoAnswer(f"cannot be reached: {reason or error}", no_server=True)
        return NoAnswer(f"connection lost: {reason or error}", used=None)
    if not isinstance(error, openai.APIStatusError):  # a body that is not what it claims to be
        return NoAnswer(f"an unreadable reply: {reason}", used=None)
    status = error.status_code
    if status == 402 or {error.code, error.type} & set(_OUT_OF_CREDIT):
        hint = "Add credit, then run the same command to go on."
        return NoAnswer(f"wants to be paid: {reason}\n{hint}", scope="run")
    if status in (401, 403, 404):
        return NoAnswer(f"refused {sent['model']!r}: {reason}\n{CHECK_SETTINGS}", scope="run")
    if status in (408, 409, 429) or status >= 500:
        wait = retry_after(error.response.headers)
        return NoAnswer(reason, too_many=status == 429, retry_after=wait)
    text = str(error)
    return NoAnswer(reason, scope="row", refused=frozenset(n for n in sent if n in text))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds for which a response wants no request, given as such or as an HTTP date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError):
        return None


def shortened(text: str, key: str) -> str:
    """What a server said, on one line that is not too long."""
    line = " ".join(cleaned(text, key).split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"


def cleaned(text: str, key: str) -> str:
    """What a server said, fit for records and messages: without keys, and valid Unicode."""
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    if len(key) >= SHORTEST_SECRET:
        text = text.replace(key, "[key]")
    return _KEY_SHAPED.sub("[key]", text)
