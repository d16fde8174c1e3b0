"""Stage: the log, to distinct queries with traffic and band."""

from flows.night import Night
from teacher.log import REASONS, ingest


def ingest_log(night: Night) -> dict[str, int]:
    """Record the night's queries.

    Returns what the log held: rows, queries, and of each band the queries; where there were any, rows masked and rows
    dropped by reason.
    """
    log = night.settings.log
    found = ingest(
        str(log.path),
        log.columns,
        night.warehouse.queries_file(night.id),
        night.work / "scratch",
        night.id,
        half_life_days=log.half_life_days,
        min_sessions=log.min_sessions,
        head_share=night.settings.cache.head_share,
    )
    say = night.screen.say
    dropped = sum(found.dropped.values())
    say(f"  {found.rows:,} rows, {dropped:,} dropped, {found.queries:,} distinct queries")
    if found.dropped:
        say("  dropped: " + ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in found.dropped.items()))
    if found.masked:
        say(f"  {found.masked:,} of the rows kept had something personal, now masked")
    share = {band: traffic / sum(found.traffic.values()) for band, traffic in found.traffic.items()}
    say("  " + ", ".join(f"{band} {size:,} ({share[band]:.1%} of the traffic)" for band, size in found.sizes.items()))
    counts = {"rows": found.rows, "queries": found.queries} | {str(band): size for band, size in found.sizes.items()}
    counts |= {"masked": found.masked} if found.masked else {}
    return counts | {f"dropped_{reason}": count for reason, count in found.dropped.items()}
