"""Asking the served student: one query, one structured answer, over the OpenAI chat protocol."""

import asyncio
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from labels.confidence import field_confidence
from labels.errors import EngineError, InputError
from labels.prompt import Message, messages
from labels.task import Task

KEEP_ALIVE_SECONDS = 2.0  # vLLM ends connections that were idle for 5
BROKEN = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


class StudentClient:
    """An async client of a vLLM server; `name` is the model it must be serving.

    aiohttp's: httpx takes several times the CPU a question, which by day is lookup's.
    """

    def __init__(
        self, url: str, name: str, task: type[Task], max_tokens: int, timeout: float = 30.0, connections: int = 64
    ) -> None:
        self.name, self._task, self._max_tokens = name, task, max_tokens
        self._url, self._timeout, self._connections = url.rstrip("/"), timeout, connections
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, query: str) -> tuple[str, float]:
        """The student's JSON for `query` (in normal form) and its confidence, 0 to 1: that of its least sure field.

        Raises EngineError where the server can't be reached or fails, InputError where it refuses the query, or its answer is
        cut short or is not the task's JSON.
        """
        choice = await self._choice("/v1/chat/completions", self._request(query))
        try:
            text: str = choice["message"]["content"] or ""
            tokens = choice["logprobs"]["content"]
            finished = choice["finish_reason"] == "stop"
        except (KeyError, TypeError) as error:
            raise _no_answer(error) from error
        if not finished:
            raise InputError(f"cut short after {len(tokens)} tokens")
        pieces = [(token["token"], token["logprob"]) for token in tokens]
        try:
            confidence = min(field_confidence(self._task, text, pieces).values())
        except ValueError as error:
            raise InputError(f"not the task's JSON: {text[:200]!r}") from error
        return text, confidence

    async def answer_tokens(self, query: str) -> int:
        """Ask as `ask` does, for its time alone: how many tokens the answer had, whatever they say."""
        choice = await self._choice("/v1/chat/completions", self._request(query))
        try:
            return len(choice["logprobs"]["content"])
        except (KeyError, TypeError) as error:
            raise _no_answer(error) from error

    async def say(self, chat: Sequence[Message], max_tokens: int) -> str:
        """The likeliest answer to any chat, in no given form. Raises EngineError as `ask` does."""
        body = {"model": self.name, "messages": list(chat), "temperature": 0.0, "max_tokens": max_tokens}
        choice = await self._choice("/v1/chat/completions", body)
        try:
            text: str = choice["message"]["content"] or ""
        except (KeyError, TypeError) as error:
            raise _no_answer(error) from error
        return text

    async def log_likelihood(self, text: str) -> tuple[float, int]:
        """The log-likelihood of a text in nats, and of how many tokens: all but the first, which nothing precedes."""
        body = {"model": self.name, "prompt": text, "temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        choice = await self._choice("/v1/completions", body)
        try:
            tokens = [next(iter(token.values()))["logprob"] for token in choice["prompt_logprobs"] if token]
        except (KeyError, TypeError, AttributeError, StopIteration) as error:
            raise _no_answer(error) from error
        return float(sum(tokens)), len(tokens)

    async def rendered(self, query: str) -> list[int]:
        """The prompt's token ids as the server renders them. Raises EngineError as `ask` does."""
        body = {"model": self.name, "messages": messages(self._task, query), "add_generation_prompt": True}
        said = await self._said("/tokenize", body)
        try:
            tokens: list[int] = said["tokens"]
        except (KeyError, TypeError) as error:
            raise _no_answer(error) from error
        return tokens

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    def _http(self) -> aiohttp.ClientSession:
        """The connections, which a running loop is needed for."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEP_ALIVE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(self._timeout))
        return self._session

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        async with self._http().post(self._url + path, json=body) as response:
            return response.status, await response.read()

    async def _choice(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of the server's answer. Raises as `_said`."""
        said = await self._said(path, body)
        try:
            choice: dict[str, Any] = said["choices"][0]
        except (KeyError, IndexError, TypeError) as error:
            raise _no_answer(error) from error
        return choice

    async def _said(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever JSON the server sends
        """The server's answer. Raises EngineError where it can't be reached or fails, InputError where it refuses what is
        asked.
        """
        try:
            try:
                status, raw = await self._post(path, body)
            except BROKEN as error:  # as the server ends an idle connection we may be using it
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise  # there was no connection
                status, raw = await self._post(path, body)
            if status >= 400:
                said = f"({status}): {raw[:500].decode(errors='replace')}"
                if status in (400, 413, 422):
                    raise InputError(f"the student's server refused what it was asked {said}")
                raise EngineError(f"the student's server failed {said}")
            return json.loads(raw)
        except (aiohttp.ClientError, RuntimeError, OSError, ValueError) as error:
            raise _no_answer(error) from error

    def _request(self, query: str) -> dict[str, Any]:
        schema = {"name": self._task.name, "schema": self._task.json_schema()}
        return {
            "model": self.name,
            "messages": messages(self._task, query),
            "temperature": 0.0,
            "max_tokens": self._max_tokens,
            "logprobs": True,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }


def _no_answer(error: Exception) -> EngineError:
    return EngineError(f"the student's server gave no answer: {type(error).__name__}: {error}")


async def ask_all(
    client: StudentClient, task: type[Task], queries: Sequence[str], at_once: int, progress: Callable[[int], None]
) -> list[Task | None]:
    """The student's answer to each query, `at_once` under way; None where it is unparsable, cut short or the query refused:
    bad answers are a measurement, for the gate to judge.

    A query that got no answer (the connection broke, the server took too long) is asked once more, alone. Raises EngineError
    where one then has none, and at once where that is more than a tenth of them: that is no measurement.
    """
    gate = asyncio.Semaphore(at_once)

    async def one(query: str) -> Task | EngineError | None:
        async with gate:
            try:
                return task.parse((await client.ask(query))[0])
            except InputError:
                return None
            except EngineError as error:
                return error

    async def counted(query: str) -> Task | EngineError | None:
        answer = await one(query)
        progress(1)
        return answer

    answers = await asyncio.gather(*(counted(query) for query in queries))
    failed = [place for place, answer in enumerate(answers) if isinstance(answer, EngineError)]
    if len(failed) <= len(queries) / 10:
        for place in failed:
            answers[place] = await one(queries[place])
    errors = [answer for answer in answers if isinstance(answer, EngineError)]
    if errors:
        raise EngineError(f"the student failed on {len(errors)} of {len(queries)} queries, first with: {errors[0]}")
    return [answer for answer in answers if not isinstance(answer, EngineError)]
