"""The teacher `openai:MODEL`: any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from dhrd_plugin.decisions import TaskDecisions
from dhrd_plugin.errors import DHRDError
from teachers.base import Prediction, Question, Reply, Request, register
from teachers.budget import Budget, Prices, Usage
from teachers.checks import parse_reply
from teachers.prompts import Message
from teachers.server.background import Give, Take, exchange
from teachers.server.completions import Answer, NoAnswer, priced
from teachers.server.endpoint import Endpoint
from teachers.server.judge_replies import chosen, option_probs
from teachers.server.sending import Pool, Tally

REPLY_TOKENS = 512  # longest reply under a budget, where --max-new-tokens does not say
ANSWER_TOKENS = 32  # longest reply where the answer alone is asked for, by default
TOP_LOGPROBS = 20  # the most that OpenAI gives
# What a prompt can have beyond its text: the chat template's markers and default system prompt.
TEMPLATE_TOKENS, MESSAGE_TOKENS = 256, 16
END_TOKENS = 8  # servers differ in whether they count what ends a reply

Item = TypeVar("Item")
Result = TypeVar("Result")


@register("openai:MODEL")
class ServerTeacher:
    """A chat model behind HTTP, asked concurrently.

    Passing errors (rate limits, 5xx, broken connections) are met with retries. An error that would
    meet every row (wrong key, unknown model, no server) stops the run.
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
        temperature: float | None = None,
        top_p: float | None = None,
        max_new_tokens: int | None = None,
        timeout: float = 120.0,
        max_retries: int = 5,
        rpm: float | None = None,
        tpm: float | None = None,
        prices: Prices | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Find the server and key; nothing is sent yet.

        Args:
            base_url: the server, up to `/v1`; $OPENAI_BASE_URL or OpenAI itself by default.
            concurrency: the most requests in flight; fewer while the server refuses some.
            seed: sent to the server, another one for every row and attempt; not sent by default,
                since some servers refuse it.
            temperature, top_p: sent when given.
            max_new_tokens: of a reply, hidden reasoning included; sent when given. By default, an
                answer alone has 32, and a rationale has 512 if there is a budget, which needs it.
            timeout: seconds for a whole request.
            max_retries: of a request whose error may pass, after its first send.
            rpm, tpm: the most requests and tokens per minute.
            prices: of the model; for `Usage.cost`.
            budget: what may be used. Every send sets the most that it can use aside first.

        Raises:
            DHRDError: no key for a server that is not local, or a limit on cost without prices.
        """
        if budget is not None and budget.max_cost is not None and prices is None:
            raise DHRDError("--max-cost needs prices: give --price-in and --price-out.")
        self.model = model
        self._seed = seed
        self._sampling = _given(temperature=temperature, top_p=top_p)
        # As given: a file that was begun without a budget goes on with one.
        self.params = _given(seed=seed, **self._sampling, max_new_tokens=max_new_tokens)
        self._reply_cap = REPLY_TOKENS if budget and max_new_tokens is None else max_new_tokens
        self._answer_cap = max_new_tokens or ANSWER_TOKENS
        self._prices = prices
        self._endpoint = Endpoint(base_url, timeout=timeout, prices=prices)
        self._pool = Pool(
            self._endpoint.shown,
            concurrency=concurrency,
            max_retries=max_retries,
            rpm=rpm,
            tpm=tpm,
            budget=budget,
        )
        self._cap_name = "max_completion_tokens"
        self._cap_name_known = False  # whether the server has ever taken it
        self._gives_logprobs = True  # until the server shows that it does not

    def explain(self, requests: Iterator[Request]) -> Iterator[tuple[Request, Reply]]:
        """Answer the requests as the server does, many at a time."""
        return self._answer_all(requests, self._explain, _failed_reply)

    def predict(self, questions: Iterator[Question]) -> Iterator[tuple[Question, Prediction]]:
        """Predict from the alternatives to the answer's first token, or from votes.

        Votes, where the server gives no log-probabilities, are requests of their own: not all
        servers heed `n`.
        """
        return self._answer_all(questions, self._predict, _failed_prediction)

    def _answer_all(
        self,
        items: Iterator[Item],
        answer: Callable[[Item, Tally], Awaitable[Result]],
        failed: Callable[[Item, str, Usage], Result],
    ) -> Iterator[Result]:
        async def work(take: Take[Item], give: Give[Result]) -> None:
            async with self._endpoint:
                await self._pool.run(take, give, answer, failed)

        return exchange(items, work)

    async def _explain(self, request: Request, tally: Tally) -> tuple[Request, Reply]:
        seed = None if self._seed is None else request.seed(self._seed)
        options = _given(seed=seed, **self._sampling)
        answer = await self._ask(request.messages, options, self._reply_cap, tally)
        rationale, said, problem = parse_reply(answer.text)
        return request, Reply(
            rationale=rationale,
            answer=said,
            origin=request.prompt.origin,
            text=answer.text,
            problem=answer.problem or problem,
            usage=tally.usage,
        )

    async def _predict(self, question: Question, tally: Tally) -> tuple[Question, Prediction]:
        decision = question.decision
        answers = []
        if self._gives_logprobs:
            answer = await self._ask_with_logprobs(question, tally)
            probs = option_probs(decision, answer.logprobs or ())
            if probs is not None:
                return question, Prediction(probs, "top_logprobs", usage=tally.usage)
            answers = [answer]  # it is as good as any other vote
        votes = (self._vote(question, i, tally) for i in range(len(answers), question.votes))
        for vote in await asyncio.gather(*votes, return_exceptions=True):
            if isinstance(vote, Answer):
                answers.append(vote)
            elif not isinstance(vote, NoAnswer) or vote.scope == "run":
                raise vote
            else:
                failure = vote
        if not answers:
            raise failure
        named = [chosen(decision, answer.text) for answer in answers]
        counts = Counter(choice for choice in named if choice is not None)
        if not counts:
            said = answers[0].problem or f"{answers[0].text[:80]!r}"
            why = f"no answer among {len(answers)} names a choice; the first: {said}"
            return question, Prediction(None, None, why, tally.usage)
        shares = tuple(counts[i] / counts.total() for i in range(len(decision.choices)))
        return question, Prediction(shares, f"votes:{counts.total()}", usage=tally.usage)

    async def _ask_with_logprobs(self, question: Question, tally: Tally) -> Answer:
        """The first vote with log-probabilities, if the server gives them."""
        try:
            answer = await self._vote(question, 0, tally, logprobs=True, top_logprobs=TOP_LOGPROBS)
        except NoAnswer as trouble:
            if not trouble.refused & {"logprobs", "top_logprobs"}:
                raise
            self._gives_logprobs = False
            return await self._vote(question, 0, tally)
        if answer.text and not answer.logprobs:
            self._gives_logprobs = False
        return answer

    async def _vote(self, question: Question, vote: int, tally: Tally, **options: Any) -> Answer:
        seed = None if self._seed is None else question.seed(self._seed, vote)
        options |= _given(seed=seed, **self._sampling)
        return await self._ask(question.messages, options, self._answer_cap, tally)

    async def _ask(
        self, messages: list[Message], options: dict[str, Any], cap: int | None, tally: Tally
    ) -> Answer:
        """Send a chat; `cap` is the longest reply in tokens, under the name the server knows."""
        name = self._cap_name
        sent = {"model": self.model, "messages": messages, **options, **_given(**{name: cap})}
        try:
            answer = await self._pool.send(
                partial(self._endpoint.complete, sent), self._most(messages, cap), tally
            )
        except NoAnswer as trouble:
            # Older servers know the older name only. A name that was taken once is known: then a
            # refusal that mentions it is about something else, such as a context that is too long.
            if name == "max_tokens" or self._cap_name_known or name not in trouble.refused:
                raise
            self._cap_name = "max_tokens"
            return await self._ask(messages, options, cap, tally)
        self._cap_name_known |= name in sent
        return answer

    def _most(self, messages: list[Message], cap: int | None) -> Usage:
        """The most that a request can use: no tokenizer makes more tokens than there are bytes.

        Without a cap there is no such bound; then it is an estimate for `tpm`.
        """
        text = sum(len(message["content"].encode()) for message in messages)
        prompt = text + TEMPLATE_TOKENS + MESSAGE_TOKENS * len(messages)
        return priced(prompt, (cap or REPLY_TOKENS) + END_TOKENS, self._prices)


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _failed_reply(request: Request, reason: str, usage: Usage) -> tuple[Request, Reply]:
    return request, Reply("", None, request.prompt.origin, failure=reason, usage=usage)


def _failed_prediction(
    question: Question, reason: str, usage: Usage
) -> tuple[Question, Prediction]:
    return question, Prediction(None, None, reason, usage)
