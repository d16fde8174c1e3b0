"""What QueryNER marks in a query, as tasks: all 17 kinds of span, and the three that they collapse to.

    stillhouse train --task demo.queryner_tasks:QueryNer --data FOLDER/spans/train.jsonl …   (see demo/queryner.py)

The kinds are those of Palen-Michel et al. (LREC-COLING 2024, arXiv:2405.09507); the words for them are ours, from its
training queries, and few, for a student's prompt is mostly instruction. Every span is copied from the query, so each of
its words must stand there (but for a plural or an abbreviation, which Grounded lets pass at any threshold).
"""

from typing import Annotated, ClassVar

from pydantic import Field

from labels.guardrails import Grounded
from labels.task import Task

Spans = Annotated[list[str], Grounded(threshold=1.0)]


class QueryNer(Task):
    """Split the search query into spans. Copy each under its kind. Answer in JSON."""

    name: ClassVar[str] = "queryner"
    core_product_type: Spans = Field(description="the thing wanted")
    product_name: Spans = Field(description="a product's own name")
    product_number: Spans = Field(description="a model number")
    creator: Spans = Field(description="brand, maker, author")
    content: Spans = Field(description="title, person, character, theme")
    modifier: Spans = Field(description="any other quality")
    department: Spans = Field(description="for whom")
    color: Spans = Field(description="colour, pattern")
    material: Spans = Field(description="made of")
    shape: Spans = Field(description="form, cut, size without a unit")
    UoM: Spans = Field(description="a measure")
    quantity: Spans = Field(description="how many")
    occasion: Spans = Field(description="when or what for")
    condition: Spans = Field(description="its state, what it is without")
    price: Spans = Field(description="cost")
    origin: Spans = Field(description="from where")
    time: Spans = Field(description="period, year")


class QueryNerCollapsed(Task):
    """Split the search query into spans. Copy each under its kind. Answer in JSON."""

    name: ClassVar[str] = "queryner_collapsed"
    product_type: Spans = Field(description="the thing wanted, or a product's name")
    brand: Spans = Field(description="its maker")
    attribute: Spans = Field(description="any other quality")
