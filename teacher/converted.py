"""What shoppers chose after a query, as a fact the teacher reads."""

from collections.abc import Mapping, Sequence

MOST = 3
LEAST_SHARE = 0.1


def converted_fact(converted: Sequence[Mapping[str, object]] | None) -> str | None:
    """ "chosen: milk 80%, yogurt 20%", the commonest first, from (category, weight) rows; None where there are none.

    Shares are rounded to tenths, and categories under LEAST_SHARE left out: one more click must not make another
    prompt, which would have the query labelled anew.
    """
    weights = {str(row["category"]): float(str(row["weight"])) for row in converted or ()}
    total = sum(weights.values())
    if total <= 0:
        return None
    ranked = sorted(
        ((round(weight / total, 1), name) for name, weight in weights.items()), key=lambda it: (-it[0], it[1])
    )
    shares = [f"{name} {share:.0%}" for share, name in ranked if share >= LEAST_SHARE]
    return "chosen: " + ", ".join(shares[:MOST]) if shares else None
