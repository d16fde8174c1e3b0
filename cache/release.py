"""Which release is served: reading it, switching to it in one step, switching back.

RELEASE, RELEASES and GENERATIONS lie in one slot of a Cluster, so that one transaction changes them together, there as on
a standalone Redis. GENERATIONS says of each generation how many buckets it may have, with a minus while it is being removed:
such a one can't be switched to, and one that a kept release names can't be marked so, whoever else publishes meanwhile.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from redis.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from cache.client import Client, reaching, read_keys, unlink_keys
from cache.layout import (
    CHANGED,
    GENERATIONS,
    RELEASE,
    RELEASES,
    BrokenError,
    bucket_key,
    is_sealed,
    manifest_key,
    parse_release,
    release_json,
)
from labels.errors import PublishError
from labels.records import Release

KEPT_GENERATIONS = 3
KEYS_AT_ONCE = 500
"""Keys of a command: Redis serves nobody else while it carries one out, here for about a millisecond."""

Ready = Callable[[Release], None]
"""Called with a release before it is switched to. Raises to refuse it."""


def current_release(client: Client) -> Release | None:
    """The release being served, None before the first. Raises ServiceError, or PublishError for a broken record."""
    with reaching(client), _asking(RELEASE):
        raw = client.get(RELEASE)
    return _parsed(raw) if raw is not None else None


def releases(client: Client) -> list[Release]:
    """Every release served, in the order last published, the latest at the end. Raises as `current_release` does."""
    with reaching(client), _asking(RELEASES):
        return [_parsed(raw, RELEASES) for raw in client.lrange(RELEASES, 0, -1)]


def standing(client: Client) -> list[Release]:
    """Those of `releases` that can be served: the current one, and all whose generation is still kept."""
    serving = current_release(client)
    known = releases(client)
    with reaching(client):
        there = {name: client.exists(manifest_key(name)) for name in {one.generation for one in known}}
    kept = [one for one in known if there[one.generation]]
    return kept + ([serving] if serving and serving not in kept else [])


def rollback(client: Client, release: str | None = None, ready: Ready | None = None) -> Release:
    """Serve an earlier release again, in one atomic step: the one named, else the one before the current.

    Where RELEASE was lost and the list was not, the last one is that of the list.

    `ready` is called with it before the switch and may raise to refuse. Gives the release now served. Raises
    PublishError where there is none such, its generation is gone or another switch came between, and ServiceError where
    Redis can't be reached; nothing has changed then.
    """
    serving = current_release(client)
    target = _earlier(serving, releases(client), release)
    with reaching(client):
        finished = client.exists(manifest_key(target.generation))
        if not finished or unsound_buckets(client, target):
            raise PublishError(
                f"can't go back to release {target.release}: its generation {target.generation} is gone (cache.kept_generations"
                " are kept) or has buckets lost or broken; `stillhouse releases` lists the others"
            )
        if ready:
            ready(target)
        switch(client, target, instead_of=serving)
    return target


def switch(client: Client, release: Release, instead_of: Release | None = None) -> None:
    """Serve `release` in one atomic step, and tell who listens.

    Without `instead_of`, the release also goes to the end of the list, right after the one it replaces (what a rollback
    goes back to). With it, the list stays, and PublishError is raised where another release is served by now. PublishError
    also where the release's generation is not there (any more).
    """

    def change(pipe: Pipeline) -> None:
        raw = pipe.get(RELEASE)
        serving = _parsed(raw) if raw is not None else None
        buckets = pipe.hget(GENERATIONS, release.generation)
        history = [_parsed(known, RELEASES) for known in pipe.lrange(RELEASES, 0, -1)]
        if buckets is None or int(buckets) < 0:
            raise PublishError(
                f"can't serve release {release.release}: another publisher removed its generation {release.generation}"
                " meanwhile; run the same command again"
            )
        if instead_of and serving != instead_of:
            raise PublishError(
                f"can't serve release {release.release} instead of {instead_of.release}: meanwhile"
                f" {serving.release if serving else 'none'} is served; look at `stillhouse releases`, then decide anew"
            )
        pipe.multi()
        if not instead_of:
            last = [serving, release] if serving and serving.release != release.release else [release]
            moved = {known.release for known in last}
            pipe.delete(RELEASES)
            pipe.rpush(RELEASES, *map(release_json, [*(one for one in history if one.release not in moved), *last]))
        pipe.set(RELEASE, release_json(release))

    client.transaction(change, RELEASE, RELEASES, GENERATIONS)
    with suppress(RedisError):  # who listens also looks at RELEASE now and then
        client.publish(CHANGED, RELEASE)


def unsound_buckets(client: Client, release: Release) -> int:
    """How many buckets of the release's generation are not there, or not as they were written."""
    keys = bucket_keys(release.generation, release.buckets)
    return sum(raw is None or not is_sealed(raw) for some in keys for raw in read_keys(client, some))


def bucket_keys(generation: str, buckets: int) -> Iterator[list[str]]:
    """The keys of a generation's buckets, in order, as many at once as one command takes."""
    for start in range(0, buckets, KEYS_AT_ONCE):
        yield [bucket_key(generation, bucket) for bucket in range(start, min(start + KEYS_AT_ONCE, buckets))]


def remove_unkept(client: Client, kept: int = KEPT_GENERATIONS, besides: str | None = None) -> None:
    """Remove every generation but those of the last `kept` named by releases, the one served, and `besides`.

    Unfinished ones go too. What other publishers write meanwhile goes with them: they notice before they switch.
    """

    def mark(pipe: Pipeline) -> None:
        raw = pipe.get(RELEASE)
        recent = [_parsed(known, RELEASES).generation for known in reversed(pipe.lrange(RELEASES, 0, -1))]
        held = {besides, *list(dict.fromkeys(recent))[:kept], *([_parsed(raw).generation] if raw is not None else [])}
        going = {_text(name): abs(int(buckets)) for name, buckets in pipe.hgetall(GENERATIONS).items()}
        going = {name: buckets for name, buckets in going.items() if name not in held}
        pipe.multi()
        for name, buckets in going.items():
            pipe.hset(GENERATIONS, name, -buckets)
        marked.clear()
        marked.update(going)

    marked: dict[str, int] = {}
    client.transaction(mark, RELEASE, RELEASES, GENERATIONS)
    for name, buckets in marked.items():
        client.unlink(manifest_key(name))
        for keys in bucket_keys(name, buckets):
            unlink_keys(client, keys)
        client.transaction(partial(_forget, name), GENERATIONS)


def _forget(generation: str, pipe: Pipeline) -> None:
    """Strike a generation that was removed, unless its publisher wrote more meanwhile."""
    buckets = pipe.hget(GENERATIONS, generation)
    pipe.multi()
    if buckets is not None and int(buckets) < 0:
        pipe.hdel(GENERATIONS, generation)


def _earlier(serving: Release | None, history: list[Release], wanted: str | None) -> Release:
    if serving is None and not history:
        raise PublishError("there is no release to go back to; publish one first: `stillhouse night`")
    if wanted is not None:
        for known in history:
            if known.release == wanted:
                return known
        names = ", ".join(known.release for known in history)
        raise PublishError(f"wanted release {wanted}, got no such one; there are: {names}")
    if serving is None:
        return history[-1]
    order = [known.release for known in history]
    place = order.index(serving.release) if serving.release in order else len(order)
    if place == 0:
        raise PublishError(f"there is no release before {serving.release}, the first one; it stays served")
    return history[place - 1]


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")


def _parsed(raw: bytes | str, key: str = RELEASE) -> Release:
    try:
        return parse_release(raw)
    except BrokenError as error:
        raise _foreign(key, str(error)) from error


@contextmanager
def _asking(key: str) -> Iterator[None]:
    """Explains a key of another type than ours."""
    try:
        yield
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        raise _foreign(key, "it is of another type") from error


def _foreign(key: str, what: str) -> PublishError:
    # without the list the next publish removes all generations but the one served
    then = "`stillhouse rollback` to serve the last one again" if key == RELEASE else "`stillhouse night`"
    return PublishError(
        f"{key} in Redis holds no release ({what}); does another program write there? To mend it:"
        f" `redis-cli DEL '{key}'`, then {then}"
    )
