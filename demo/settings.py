"""Where the demo's shop lies. Light: read before any heavy import."""

from pathlib import Path


def demo_settings(work: str) -> dict[str, object]:
    """The settings that point a night at the invented shop under the work folder."""
    shop = Path(work) / "shop"
    return {
        "log__path": str(shop / "log.parquet"),
        "log__time": "time",
        "catalogue__path": str(shop / "catalogue.parquet"),
        "catalogue__product": "product",
        "gold__path": str(shop / "gold" / "held_out.parquet"),
        "review__simulated": True,
    }
