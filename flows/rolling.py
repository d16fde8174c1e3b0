"""The students of a process that serves lookups: their servers started or found, warmed, watched, and stopped."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Self

import httpx

from flows.settings import Settings
from labels.errors import EngineError, InputError, ServiceError
from labels.files import read_manifest
from labels.services import kill_hung
from student.client import StudentClient
from student.serve import served_student

WARM = ("milk", "organic oat milk", "red shoes size 9", "cheap wireless headphones", "gluten free bread 400 g")
WATCH_SECONDS = 1.0
HEALTH_SECONDS = 2.0
PROBE_SECONDS = 10.0  # between two questions put to see whether a student answers at all
HUNG_SECONDS = 60.0  # without one answer: no queue is so long, in_flight questions take a second or two


@contextmanager
def student_server(
    settings: Settings, student: str, patience: float = 0.0, given_up: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """The URL of the student's server: `serve.student_url`'s, else a vLLM on this machine, shared and started where needed.

    Raises ServiceError where the model is not in the work folder, vLLM does not start in `student.start_seconds`, or the
    server that the settings name does not serve this student within `patience` seconds or until `given_up` says so.
    """
    if settings.serve.student_url:
        yield _found(settings.serve.student_url, student, patience, given_up)
        return
    model = settings.folder / "students" / student
    manifest = read_manifest(model)
    if not manifest:
        raise ServiceError(
            f"wanted student {student} in {model.parent}, got none with a manifest there; bring its folder back, serve"
            " another release (stillhouse rollback), or name a server that has it: serve.student_url"
        )
    s = settings.student
    dtype = manifest.get("dtype", s.dtype)  # the type it was merged in and held against
    services = settings.folder / "services"
    with served_student(model, services, s.server, dtype, s.start_seconds, given_up) as url:
        yield url


class HeldStudents:
    """The students that this process holds, as `cache.roll.Students` wants them; an async context manager.

    `clients` is what lookups ask, by the student's name. One whose server dies is out of `ready` within seconds, one that
    hangs after `hung` seconds without an answer; it stays in `clients`: until it is held again, the lookups' circuit
    breaker answers for it.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], hung: float = HUNG_SECONDS) -> None:
        self.clients: dict[str, StudentClient] = {}
        self.ready: set[str] = set()
        self._settings, self._say, self._hung = settings, say, hung
        self._held: dict[str, _Holding] = {}
        self._http = httpx.AsyncClient(timeout=HEALTH_SECONDS, trust_env=False)
        self._watches: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Watches from now on."""
        self._watches = [asyncio.create_task(self._watching()), asyncio.create_task(self._probing())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of all."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*(self.let_go(student) for student in self.held))
        await self._http.aclose()

    @property
    def held(self) -> set[str]:
        """Those not let go of, dead or alive."""
        return {*self._held, *self.clients}

    async def hold(self, student: str, patience: float | None = None) -> None:
        """Have the student's server started or found, and warmed; again, where it has died.

        A server that the settings name has `patience` seconds to come, those of a start unless told. Raises ServiceError as
        `student_server` does, EngineError where it fails while it is warmed.
        """
        settings = self._settings
        seconds = settings.student.start_seconds if patience is None else patience
        await self._leave(student)
        holding = _Holding(lambda given_up: student_server(settings, student, seconds, given_up))
        self._held[student] = holding
        client = None
        try:
            url = await asyncio.wrap_future(holding.url)
            task, tokens, at_once = settings.task_class(), settings.student.max_tokens, settings.cache.in_flight
            client = StudentClient(url, student, task, tokens, connections=at_once)
            await _warm(client)
        except BaseException:
            if client:
                await client.__aexit__(None, None, None)
            await self._leave(student)
            raise
        before = self.clients.get(student)
        self.clients[student] = client
        self.ready.add(student)
        if before:
            await before.__aexit__(None, None, None)

    async def let_go(self, student: str) -> None:
        """Stop asking the student, and its server where nobody else on this machine uses it."""
        self.ready.discard(student)
        if client := self.clients.pop(student, None):
            await client.__aexit__(None, None, None)
        await self._leave(student)

    async def _leave(self, student: str) -> None:
        if holding := self._held.pop(student, None):
            holding.end()
            await asyncio.to_thread(holding.join)

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for student in self.ready.copy():
                if student in self.ready and (why := await self._dead(student)) and student in self.ready:
                    self.ready.discard(student)
                    self._say(f"the server of student {student} died ({why}); starting it again")

    async def _probing(self) -> None:
        """Put a question now and then: where the engine hangs, /health may still be well."""
        while True:
            await asyncio.sleep(min(PROBE_SECONDS, self._hung))
            for student in self.ready.copy():
                if student in self.ready and await self._hangs(student) and student in self.ready:
                    self.ready.discard(student)
                    self._say(
                        f"the server of student {student} hangs (no answer in {self._hung:g} s); starting it again"
                    )
                    if not self._settings.serve.student_url and (holding := self._held.get(student)):
                        kill_hung(self._settings.folder / "services" / student, holding.url.result())

    async def _hangs(self, student: str) -> bool:
        """Whether no question is answered until it is given up; False too where the student is found dead meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._hung):
                while student in self.ready:
                    try:
                        await self.clients[student].ask(WARM[0])
                    except InputError:  # a bad answer is one
                        return False
                    except EngineError:
                        await asyncio.sleep(WATCH_SECONDS)
                    else:
                        return False
                return False
        return True

    async def _dead(self, student: str) -> str:
        """Why the student's server can't answer any more; "" where it can, or is only slow."""
        try:
            response = await self._http.get(f"{self._held[student].url.result()}/health")
        except httpx.ConnectError as error:
            return f"it can't be connected to: {error}"
        except (httpx.HTTPError, KeyError):  # slow; or let go of in the meantime
            return ""
        return f"/health says {response.status_code}" if response.is_server_error else ""


class _Holding(threading.Thread):
    """Stays in a service's `with` block until told to end: to enter and to leave one may take a minute each."""

    def __init__(self, service: Callable[[Callable[[], bool]], AbstractContextManager[str]]) -> None:
        """`service` is given what says whether it has been told to end."""
        super().__init__(daemon=True)
        self.url: Future[str] = Future()
        self._ended = threading.Event()
        self._service = service(self._ended.is_set)
        self.start()

    def run(self) -> None:
        """Enter, tell the URL or the error, wait, leave."""
        try:
            with self._service as url:
                self.url.set_result(url)
                self._ended.wait()
        except BaseException as error:
            with suppress(Exception):  # told already: then it went wrong while leaving, and the next user sees to it
                self.url.set_exception(error)

    def end(self) -> None:
        """Leave."""
        self._ended.set()


async def _warm(client: StudentClient) -> None:
    """A few real questions: the first has the server compile the task's grammar, the rest fill its caches."""
    for queries in (WARM[:1], WARM[1:]):
        answers = await asyncio.gather(*(client.ask(query) for query in queries), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, InputError):  # a bad answer warms it too
                raise answer


def _found(template: str, student: str, patience: float, given_up: Callable[[], bool]) -> str:
    """The URL of a server that runs already, once it is healthy and serves the student."""
    url = template.replace("{student}", student).rstrip("/").removesuffix("/v1")
    give_up = time.monotonic() + patience
    while problem := _problem(url, student):
        if time.monotonic() >= give_up or given_up():
            raise ServiceError(
                f"serve.student_url: wanted a server of student {student} at {_shown(url)}, got:"
                f" {problem.replace(url, _shown(url))}; start it there"
                f" (vllm serve … --served-model-name {student}) or set the URL right"
            )
        time.sleep(0.5)
    return url


def _shown(url: str) -> str:
    """The URL without a user's name and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _problem(url: str, student: str) -> str:
    """What is wrong with a server; "" where it serves the student."""
    try:
        httpx.get(f"{url}/health", timeout=HEALTH_SECONDS, trust_env=False).raise_for_status()
        models = httpx.get(f"{url}/v1/models", timeout=HEALTH_SECONDS, trust_env=False).raise_for_status().json()
        served = [model["id"] for model in models["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if student in served else f"a server of {', '.join(served) or 'nothing'}"
