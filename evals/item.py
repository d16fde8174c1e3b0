"""What people are asked about: one label, and why it is asked."""

import json
from dataclasses import asdict, dataclass

from labels.records import Band, Example, Label, Part


@dataclass(frozen=True, slots=True)
class Item:
    """A label for people to verify.

    `traffic` is its query's and `band` where that stands. In the audit part `stratum` and `inclusion_probability` (above
    0, at most 1) say how it was drawn; `reason` says why an active one was chosen. `overlap`: two reviewers are to see
    it. `answer` is a hidden gold item's right answer, as the task's JSON.
    """

    label: Label
    part: Part
    band: Band
    traffic: float
    stratum: str = ""
    inclusion_probability: float | None = None
    reason: str = ""
    overlap: bool = False
    answer: str | None = None

    def to_json(self) -> str:
        """One line of JSON, and what `item_of` reads."""
        return json.dumps(asdict(self), ensure_ascii=False)


def item_of(text: str) -> Item:
    """The reverse of `Item.to_json`. Raises TypeError, KeyError or ValueError where `text` is no item."""
    found = json.loads(text)
    label = found.pop("label")
    label |= {name: tuple(label[name]) for name in ("facts", "scores")}
    label["examples"] = tuple(Example(**example) for example in label["examples"])
    return Item(Label(**label), **found)
