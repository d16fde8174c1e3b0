"""The engine behind a URL: any OpenAI-compatible server, asked by the OpenAI client with bounded concurrency."""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import accumulate, islice
from queue import SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from labels.errors import EngineError, InputError, SettingsError
from labels.prompt import messages
from labels.task import Task
from teacher.chat_answer import read_completion
from teacher.engine import IN_FLIGHT, Completion, Prompt, Sampling, identity_with, second_attempt

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

MAYBE_THE_PROMPT = {400, 403, 413, 422}
"""HTTP statuses by which a server may refuse one prompt (too long, filtered), or all of them (a schema it can't use)."""
PLAIN_QUERY = "milk"
KNOCKS = 2
SHOWN = 300


class UrlEngine:
    """An OpenAI-compatible server (`vllm serve`, OpenAI, …), with structured outputs by JSON schema.

    The client repeats what may pass (HTTP 408, 409, 429, 5xx, cut connections, timeouts) with growing, jittered pauses
    or the server's own Retry-After, until the prompt's deadline; a try that hangs is given up at half of it.
    """

    def __init__(
        self,
        url: str,
        model: str,
        revision: str | None,
        sampling: Sampling,
        concurrency: int,
        deadline_seconds: float,
        key: str | None,
    ) -> None:
        """`url` ends in /v1; `model` is the server's name for the model; at most IN_FLIGHT of `concurrency` count.

        The identity names model and revision alone: a server may move. Raises SettingsError for what is no URL or key.
        """
        self.model = identity_with(f"{model}@{revision or 'main'}", sampling)
        self._name, self._sampling, self._concurrency = model, sampling, concurrency
        self._deadline, self._url, self._shown = deadline_seconds, url, _shown_url(url)
        self._key = (key or "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise SettingsError("STILLHOUSE_TEACHER_KEY: wanted plain ASCII on one line, got other characters in it")

    def complete(self, task: type[Task], prompts: Iterable[Prompt]) -> Iterator[Completion]:
        """One completion a prompt, in the order they finish (see `Engine`).

        Requests run in a thread of their own while the caller is busy; it ends with this generator.
        """
        from anyio.from_thread import start_blocking_portal

        waiting, asked, done = iter(prompts), set[Future[Completion]](), SimpleQueue[Future[Completion]]()
        slots = asyncio.Semaphore(self._concurrency)
        with (
            start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
            portal.wrap_async_context_manager(self._client()) as client,
        ):
            portal.call(self._knock, client)
            try:
                while True:
                    for prompt in islice(waiting, IN_FLIGHT - len(asked)):
                        asked.add(future := portal.start_task_soon(self._answer, client, slots, task, prompt))
                        future.add_done_callback(done.put)
                    if not asked:
                        return
                    asked.remove(future := done.get())
                    yield future.result()
            finally:
                for future in asked:
                    future.cancel()

    def prefix_cache(self) -> None:
        """None: the server's own metrics are not part of its API; each completion counts its cached tokens."""

    def close(self) -> None:
        """Nothing is held between calls of `complete`."""

    def _client(self) -> "AsyncOpenAI":
        from openai import AsyncOpenAI, DefaultAioHttpClient, Timeout

        parts = urlsplit(self._url)
        login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        return AsyncOpenAI(
            base_url=parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
            api_key=self._key or "none",  # without one it would send this machine's OPENAI_API_KEY to whoever is there
            timeout=Timeout(self._deadline / 2, connect=min(10, self._deadline / 2)),
            max_retries=_retries(self._deadline),
            http_client=DefaultAioHttpClient(auth=login),  # a request costs half of what it does with the usual one
        )

    async def _knock(self, client: "AsyncOpenAI") -> None:
        """Whether anyone is there, found out in seconds; later a server that went away is waited for."""
        from openai import APIConnectionError, APIStatusError

        try:
            async with asyncio.timeout(self._deadline):
                await client.with_options(max_retries=KNOCKS).models.with_raw_response.list()
        except APIStatusError:
            return  # not every server lists its models
        except (APIConnectionError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _answer(
        self, client: "AsyncOpenAI", slots: asyncio.Semaphore, task: type[Task], prompt: Prompt
    ) -> Completion:
        await slots.acquire()
        completion = await self._twice(client, task, prompt)
        slots.release()  # where the engine fails, its slot is kept: what waits is to be cancelled, not asked
        return completion

    async def _twice(self, client: "AsyncOpenAI", task: type[Task], prompt: Prompt) -> Completion:
        """What comes of a prompt and, where that is of no use, of its second attempt."""
        try:
            first = await self._ask(client, task, prompt)
        except _Refused as refused:
            await self._check_others(client, task, prompt.max_tokens)
            return Completion(prompt.key, (), error=str(refused))
        again = second_attempt(task, prompt, first)
        if again is None:
            return first
        try:
            return (await self._ask(client, task, again)).after(first)
        except _Refused:  # the larger budget does not fit beside the prompt
            return first

    async def _check_others(self, client: "AsyncOpenAI", task: type[Task], max_tokens: int) -> None:
        """A refused prompt is to blame only where a plain one is answered; else nothing will be, and all stops."""
        try:
            await self._ask(client, task, Prompt("", messages(task, PLAIN_QUERY), max_tokens))
        except _Refused as refused:
            raise EngineError(
                f"{self._shown} takes no prompt of the task {task.name}, not even a plain one: {refused}. Look at the "
                "task's JSON schema, teacher.max_tokens and teacher.samples, which the server must take, and at what the "
                "key is allowed"
            ) from None

    async def _ask(self, client: "AsyncOpenAI", task: type[Task], prompt: Prompt) -> Completion:
        """As many answers as wanted, asked for twice. Raises _Refused, or EngineError for what is no prompt's fault."""
        first = await self._request(client, task, prompt)
        if len(first.samples) == self._sampling.samples:
            return first
        second = (await self._request(client, task, prompt)).after(first)
        if len(second.samples) == self._sampling.samples:
            return second
        raise _Refused(f"it gave {len(second.samples)} of {self._sampling.samples} answers, twice")

    async def _request(self, client: "AsyncOpenAI", task: type[Task], prompt: Prompt) -> Completion:
        from httpx2 import Response  # what the OpenAI client is built on
        from openai import APIConnectionError, APIStatusError

        several = self._sampling.samples > 1
        schema = {"name": task.name, "schema": task.json_schema(), "strict": True}
        body = {  # posted as it is: `chat.completions.create` spends 2 ms on making the same of it
            "model": self._name,
            "messages": prompt.messages,
            "response_format": {"type": "json_schema", "json_schema": schema},
            "max_tokens": prompt.max_tokens,  # the newer max_completion_tokens is known to few servers
            "n": self._sampling.samples,
            "temperature": self._sampling.temperature if several else 0.0,
            "seed": self._sampling.seed,
            "logprobs": True,
        }
        try:
            async with asyncio.timeout(self._deadline):
                response = await client.post("/chat/completions", cast_to=Response, body=body)
        except APIStatusError as error:
            raise self._judged(error) from error
        except (APIConnectionError, TimeoutError) as error:
            raise self._unreachable(error) from error
        try:
            return read_completion(prompt.key, response.content, self._sampling.samples)
        except InputError as error:
            kind = response.headers.get("content-type", "nothing")
            raise EngineError(
                f"{self._shown} answered with {self._safe(kind)} that is no chat completion ({error}): "
                f"{self._safe(response.text)!r}. Look whether teacher.url is the API's base, such as http://HOST:8000/v1"
            ) from None

    def _judged(self, error: "APIStatusError") -> Exception:
        """An HTTP error that retries did not cure: the prompt's own, perhaps, or the engine's, with what to do."""
        body = error.body
        said = body["message"] if isinstance(body, dict) and "message" in body else error.response.text
        came = f"HTTP {error.status_code}: {self._safe(str(said))}"
        if error.status_code in MAYBE_THE_PROMPT:
            return _Refused(came)
        todo = {
            401: "Put the right key in STILLHOUSE_TEACHER_KEY",
            404: f"Look whether teacher.url ends in /v1 and teacher.model is one of those at {self._shown}/models",
            429: "Lower teacher.concurrency, or raise teacher.deadline_seconds",
        }.get(error.status_code, "Look at the server's own log")
        return EngineError(f"{self._shown} gave no answer but {came}. {todo}; then run the same command again")

    def _unreachable(self, error: Exception) -> EngineError:
        cause: BaseException = error
        # The client calls a refused connection a timeout too; what that came from knows better.
        while cause.__cause__ and not isinstance(cause, TimeoutError):
            cause = cause.__cause__
        if isinstance(cause, TimeoutError):
            return EngineError(
                f"{self._shown} gave no whole answer in {self._deadline:g} s, retries included. Look whether it hangs or "
                "is overloaded; raise teacher.deadline_seconds or lower teacher.concurrency; then run the same again"
            )
        came = self._safe(str(cause)) or type(cause).__name__
        return EngineError(
            f"{self._shown} can't be reached, or cuts the connection ({came}). Look whether the server runs and "
            "teacher.url is its address; then run the same command again"
        )

    def _safe(self, text: str) -> str:
        """What a server said, fit for a message: one short printable line without the key."""
        if self._key:
            text = text.replace(self._key, "…")
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _retries(seconds: float) -> int:
    """As many as fit: the client pauses 0.5, 1, 2, 4, then always 8 s before each, less a random part of a quarter."""
    pauses = accumulate(min(0.5 * 2**number, 8) for number in range(4 + int(seconds / 8)))
    return sum(waited <= seconds for waited in pauses)


class _Refused(Exception):
    """The server does not answer this prompt; whether it answers others is not known yet."""


def _shown_url(url: str) -> str:
    """The URL without user, password and query. Raises SettingsError where it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(f"teacher.url: wanted such as http://127.0.0.1:8000/v1, got {url.rpartition('@')[2]!r}")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
