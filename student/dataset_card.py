"""The dataset's card: what it holds, where it came from and what was left out, in the Hugging Face form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from student.near import NEAR
from student.selection import Reason

MEANINGS: dict[Reason, str] = {
    "rejected": "turned down by a guardrail",
    "failed": "without an answer",
    "held_out": "a query that measures",
    "near_gold": "near a query that measures",
    "unsure": "below the least confidence",
    "collapsed": "says again what another row says",
    "not_drawn": "not drawn",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(facts: Mapping[str, Any]) -> str:
    """README.md from the facts of the manifest, as Markdown after YAML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - Markdown, and nothing in it comes from a log
        undefined=jinja2.StrictUndefined,
    )
    size = next((name for above, name in SIZES if facts["rows"] < above), "n>1M")
    template = environment.get_template("dataset_card.md.j2")
    return template.render(facts, size=size, meanings=MEANINGS, near=f"{NEAR:g}")
