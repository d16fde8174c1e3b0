"""Choosing the head: which queries the cache holds."""

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass

from labels.errors import SettingsError


@dataclass(frozen=True)
class Coverage:
    """How many entries a head has, and the share of all traffic that they answer, 0 to 1."""

    entries: int
    traffic_share: float


def choose_head(queries: Sequence[tuple[str, float]], labelled: Container[str], share: float) -> list[str]:
    """The most frequent queries, until they cover `share` of ALL traffic; most frequent first.

    `queries` are all distinct queries with their traffic; those not in `labelled` (no label fit to publish) are
    passed over, and their traffic stays uncovered. Equal traffic goes by text, so that a head is reproducible.
    Raises SettingsError for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise SettingsError(f"cache.head_share: wanted a share of the traffic from 0 to 1, got {share}; 0.8 covers 80%")
    wanted = share * sum(traffic for _, traffic in queries)
    head: list[str] = []
    covered = 0.0
    for query, traffic in sorted(queries, key=lambda pair: (-pair[1], pair[0])):
        if covered >= wanted:
            break
        if query in labelled:
            head.append(query)
            covered += traffic
    return head


def coverage(queries: Sequence[tuple[str, float]], head: Collection[str]) -> Coverage:
    """What `head` really covers of the traffic of `queries`."""
    held = frozenset(head)
    total = sum(traffic for _, traffic in queries)
    covered = sum(traffic for query, traffic in queries if query in held)
    return Coverage(len(held), covered / total if total else 0.0)
