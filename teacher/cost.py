"""What labelling cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """What the teacher costs: so much an hour of one GPU, `gpus` of them; or so much a million tokens.

    Tokens found in the prefix cache cost `million_cached`, or `million_in` where that is None.
    """

    currency: str = "USD"
    gpu_hour: float | None = None
    gpus: int = 1
    million_in: float | None = None
    million_cached: float | None = None
    million_out: float | None = None


@dataclass(frozen=True)
class Cost:
    """An amount of money and what it was reckoned by."""

    currency: str
    total: float
    basis: str

    def per(self, labels: int) -> float | None:
        """The cost of each of so many labels; None for no labels."""
        return self.total / labels if labels else None


def cost(price: Price, seconds: float, tokens_in: int, tokens_cached: int, tokens_out: int) -> Cost | None:
    """The cost of labelling for so long with so many tokens (cached ones are among `tokens_in`); None without a price.

    Both prices may be given: they are added.
    """
    total, basis = 0.0, []
    if price.gpu_hour is not None:
        total += price.gpu_hour * price.gpus * seconds / 3600
        basis.append(f"{price.gpus} GPU x {seconds / 3600:.3g} h x {price.gpu_hour:g} {price.currency}")
    by_token = (price.million_in, price.million_cached, price.million_out)
    if any(amount is not None for amount in by_token):
        full, out = price.million_in or 0.0, price.million_out or 0.0
        cached = full if price.million_cached is None else price.million_cached
        total += ((tokens_in - tokens_cached) * full + tokens_cached * cached + tokens_out * out) / 1e6
        basis.append(f"{tokens_in:,} tokens in ({tokens_cached:,} cached) and {tokens_out:,} out, by the million")
    return Cost(price.currency, total, " + ".join(basis)) if basis else None
