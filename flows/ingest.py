"""Stage: the log, and what lookups had no answer in the head for, to distinct queries with traffic and band."""

from contextlib import closing
from datetime import timedelta

from cache.client import connect
from cache.journal import MISS_DAYS
from cache.misses import Misses, read_misses, trim_misses
from flows.night import Night
from labels.errors import ServiceError
from labels.files import write_json
from teacher.log import REASONS, Missed, ingest

INGESTED = "ingested.json"


def ingest_log(night: Night) -> dict[str, int]:
    """Record the night's queries.

    Returns what the log held: rows, queries, and of each band the queries; where there were any, rows masked and rows
    dropped by reason; and where lookups missed anything, what became of it. Raises ServiceError where Redis, which holds the
    misses, can't be reached.
    """
    log = night.settings.log
    misses = misses_of(night)
    found = ingest(
        str(log.path),
        log.columns,
        night.warehouse.queries_file(night.id),
        night.work / "scratch",
        night.id,
        half_life_days=log.half_life_days,
        min_sessions=log.min_sessions,
        head_share=night.settings.cache.head_share,
        misses=misses.queries if misses else None,
        most_misses=log.most_misses,
    )
    write_json(night.folder / INGESTED, {"labelled": found.labelled})
    say = night.screen.say
    dropped = sum(found.dropped.values())
    say(f"  {found.rows:,} rows, {dropped:,} dropped, {found.queries:,} distinct queries")
    if found.dropped:
        say("  dropped: " + _reasons(found.dropped))
    if found.masked:
        say(f"  {found.masked:,} of the rows kept had something personal, now masked")
    if misses and (found.missed.times or misses.unreadable):
        say(_missed(found.missed, misses.unreadable))
    share = {band: traffic / sum(found.traffic.values()) for band, traffic in found.traffic.items()}
    say("  " + ", ".join(f"{band} {size:,} ({share[band]:.1%} of the traffic)" for band, size in found.sizes.items()))
    counts = {"rows": found.rows, "queries": found.queries} | {str(band): size for band, size in found.sizes.items()}
    counts |= {"masked": found.masked} if found.masked else {}
    counts |= {f"dropped_{reason}": count for reason, count in found.dropped.items()}
    return counts | (_counts(found.missed, misses.unreadable) if misses else {})


def misses_of(night: Night) -> Misses | None:
    """The misses of the last MISS_DAYS, older ones being removed; None where they are not wanted or nothing ever served.

    Raises ServiceError where Redis can't be reached: a night could not publish either.
    """
    settings = night.settings
    if not settings.log.misses:
        return None
    if not settings.cache.redis_url and not (night.work / "redis").exists():
        return None  # the profile's own Redis, which never ran
    try:
        with closing(connect(night.redis_url, settings.cache.cluster)) as client:
            trim_misses(client, night.began - timedelta(days=MISS_DAYS))
            return read_misses(client, night.began - timedelta(days=MISS_DAYS), night.began)
    except ServiceError as error:
        raise ServiceError(f"{error}; what needs no Redis, as labelling, runs with log.misses = false") from error


def _missed(found: Missed, unreadable: int) -> str:
    told = [
        f"{found.taken:,} as {found.queries:,} queries that the log has not got",
        f"{found.in_log:,} in the log already" if found.in_log else "",
        f"dropped {_reasons(found.dropped, rare='missed on too few days')}" if found.dropped else "",
        f"{unreadable:,} entries unreadable" if unreadable else "",
    ]
    return f"  misses of lookups: {found.times:,}; " + ", ".join(filter(None, told))


def _reasons(dropped: dict[str, int], **other: str) -> str:
    return ", ".join(f"{count:,} {(REASONS | other)[reason]}" for reason, count in dropped.items())


def _counts(found: Missed, unreadable: int) -> dict[str, int]:
    """For the summary, zeros left out."""
    told = {"": found.times, "_taken": found.taken, "_queries": found.queries, "_in_log": found.in_log}
    told |= {f"_dropped_{reason}": count for reason, count in found.dropped.items()} | {"_unreadable": unreadable}
    return {f"misses{name}": count for name, count in told.items() if count}
