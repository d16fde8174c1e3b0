"""Which part of the gold a verified query belongs to, once and for all."""

from typing import Literal

from labels.files import digest

Split = Literal["train", "dev", "test"]
TENTHS: tuple[Split, ...] = ("test", "dev")


def split_of(query: str) -> Split:
    """By a hash of the query in normal form: a tenth is `test`, a tenth `dev`, the rest `train`.

    No seed and no setting: a query that measured once may never train later (invariant 6).
    """
    tenth = int(digest("split", query), 16) % 10
    return TENTHS[tenth] if tenth < len(TENTHS) else "train"
