"""`dhrd-teach --dry-run`: what would be asked, and its cost. Nothing is sent or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dhrd_plugin.decisions import Decision
from teachers.budget import Prices, Usage
from teachers.prompts import JudgePrompt, Message, Prompt

# Rough figures for English; a tokenizer is not at hand for every server. The 5 tokens are what chat
# formats put around a turn; the reply is a rationale of about 60 words with its answer line.
BYTES_PER_TOKEN = 4
TOKENS_PER_TURN = 5
TOKENS_PER_REPLY = 100
TOKENS_PER_ANSWER = 5


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take if every first attempt is kept.

    Attributes:
        rows: rows that have no rationale yet.
        questions: questions of the second pass.
        requests: of both passes.
        usage: their tokens, and their cost where prices are known.
        prompt: the first row's chat, None if no row is left.
    """

    rows: int
    questions: int
    requests: int
    usage: Usage
    prompt: list[Message] | None


def estimate(
    to_explain: Sequence[Decision],
    prompt: Prompt | None,
    *,
    questions: Sequence[tuple[JudgePrompt, Decision]] = (),
    votes: int = 1,
    prices: Prices | None = None,
) -> Estimate:
    """Estimate both passes.

    Args:
        prompt: of the first attempt; None for a teacher that is not asked.
        questions: of the second pass.
        votes: samples per question.
    """
    prompt_tokens = completion_tokens = requests = 0
    if prompt is not None:
        requests += len(to_explain)
        prompt_tokens += sum(_tokens(prompt.messages(decision)) for decision in to_explain)
        completion_tokens += TOKENS_PER_REPLY * len(to_explain)
    rationale = "x" * (TOKENS_PER_REPLY * BYTES_PER_TOKEN)
    requests += votes * len(questions)
    prompt_tokens += votes * sum(_tokens(v.messages(d, rationale)) for v, d in questions)
    completion_tokens += votes * TOKENS_PER_ANSWER * len(questions)
    usage = Usage(prompt_tokens, completion_tokens)
    return Estimate(
        rows=len(to_explain),
        questions=len(questions),
        requests=requests,
        usage=prices.usage(prompt_tokens, completion_tokens) if prices else usage,
        prompt=prompt.messages(to_explain[0]) if prompt and to_explain else None,
    )


def _tokens(messages: Sequence[Message]) -> int:
    return sum(
        len(message["content"].encode()) // BYTES_PER_TOKEN + TOKENS_PER_TURN
        for message in messages
    )


def show(what: Estimate) -> None:
    """Print an estimate and the first prompt."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console()
    console.print(f"rows to explain:   {what.rows:,}", highlight=False)
    if what.questions:
        console.print(f"questions to ask:  {what.questions:,} (second pass)", highlight=False)
    apart = "more where attempts are rejected"
    if what.questions:
        apart += ", fewer where the judge gives probabilities"
    console.print(
        f"requests:          {what.requests:,} ({apart})", highlight=False, soft_wrap=True
    )
    console.print(f"prompt tokens:     about {what.usage.prompt_tokens:,}", highlight=False)
    console.print(f"completion tokens: about {what.usage.completion_tokens:,}", highlight=False)
    cost = "unknown without --price-in and --price-out (openai:)"
    if what.usage.cost is not None:
        cost = f"about ${what.usage.cost:.4f}"
    console.print(f"cost:              {cost}", highlight=False)
    for message in what.prompt or ():
        console.print(Panel(Text(message["content"]), title=message["role"], title_align="left"))
    console.print("Nothing was sent.")
