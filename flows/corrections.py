"""What people say reaches the cache as they say it (invariant 5), and all of it again at each publish."""

from collections.abc import Callable, Collection
from datetime import datetime
from threading import Lock, Thread

from cache.client import Client, connect
from cache.layout import entry
from cache.people import read_people, say_people, withdraw_people
from cache.release import current_release
from flows.night import Night
from flows.people import answer_to, answers_of
from flows.settings import Settings
from labels.files import read_json
from labels.records import Verdict

PAGE_SECONDS = 0.5
"""How long a reviewer's page waits for the cache; then that goes on in the background."""


def resync(night: Night, client: Client) -> None:
    """Make what the cache holds of people's answers what they have said. Raises ServiceError where Redis can't be reached."""
    there = read_people(client)  # first: what is there and was not said after that was taken back, or is nobody's
    while (said := said_entries(night, answers_of(night))) != there:  # again, where somebody spoke meanwhile
        say_people(client, {query: told for query, told in said.items() if there.get(query) != told})
        withdraw_people(client, there.keys() - said.keys())
        there = said


def said_entries(night: Night, answers: Collection[Verdict]) -> dict[str, str]:
    """By query the cache's entry of what people answered, with when."""
    return {
        said.query: entry(
            night.task.parse(str(said.value)).model_dump(),
            1.0,
            "simulated reviewer" if said.simulated else "person",
            int(datetime.fromisoformat(said.created).timestamp()),
        )
        for said in answers
    }


class Corrections:
    """Takes verdicts to the cache once they are durable, as a review queue's `on_change`.

    Nothing that goes wrong here fails the verdict: `tell` is told in words, once, and all that was missed follows with the
    next verdict that finds Redis, at the next start of the page, and at the next publish.
    """

    def __init__(self, night: Night, tell: Callable[[str], None]) -> None:
        self._night, self._tell = night, tell
        self._lock = Lock()
        self._behind, self._trouble = True, ""  # before the first writing nobody knows what the cache has missed
        self._held: tuple[str, Client] | None = None  # a client and its URL: making one takes longer than all the rest

    def __call__(self, queries: Collection[str] = ()) -> None:
        """What was said of these queries changed. Returns when the cache knows, or after PAGE_SECONDS."""
        thread = Thread(target=self.bring, args=(queries,), daemon=True)  # no pool: its threads don't survive a fork
        thread.start()
        thread.join(PAGE_SECONDS)

    def bring(self, queries: Collection[str] = ()) -> None:
        """Bring the cache up to date with these queries, and with all where it has missed some."""
        with self._lock:
            try:
                trouble = self._write(queries)
            except Exception as error:  # whatever it is: what was said is durable, and the page must say so
                trouble = f"what people say is saved but not in the cache yet: {error}"
            self._behind = bool(trouble)
            if trouble and trouble != self._trouble:
                self._tell(trouble)
            self._trouble = trouble

    def _write(self, queries: Collection[str]) -> str:
        """Write to the cache; why that had to wait, "" where it did not."""
        url = running_redis(self._night.settings)
        if url is None:
            return "no Redis runs now: what people say is saved, and is in the cache once lookups are served or a night publishes"
        client = self._client(url)
        served = current_release(client)
        ours = (self._night.task.name, self._night.task.version())
        if served and (served.task, served.task_version) != ours:
            return (
                "what people say is saved, and is in the cache with the next release: the one served is of another task"
            )
        if self._behind:
            resync(self._night, client)
        else:
            self._write_some(queries, client)
        return ""

    def _client(self, url: str) -> Client:
        if self._held is None or self._held[0] != url:
            self._held = url, connect(url, self._night.settings.cache.cluster)
        return self._held[1]

    def _write_some(self, queries: Collection[str], client: Client) -> None:
        said: dict[str, str] | None = None
        while (
            now := said_entries(self._night, answer_to(self._night, queries))
        ) != said:  # until nobody spoke meanwhile
            say_people(client, now)
            withdraw_people(client, set(queries) - now.keys())
            said = now


def running_redis(settings: Settings) -> str | None:
    """The Redis in the settings, else the profile's own where it runs now; it is not started."""
    given = settings.cache.redis_url
    return given or (read_json(settings.folder / "redis" / "service.json") or {}).get("url")
