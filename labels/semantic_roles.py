"""The built-in task `semantic roles`: the product, brand and attributes a search query names."""

from typing import Annotated, ClassVar

from pydantic import Field

from labels.guardrails import Grounded
from labels.task import Task


class SemanticRoles(Task):
    """Find what a shopper's search query names. Answer in JSON."""

    name: ClassVar[str] = "semantic_roles"
    product: Annotated[str, Grounded()] = Field(description="the thing wanted")
    brand: Annotated[str, Grounded()] = Field(description="its maker")
    attributes: Annotated[list[str], Grounded()] = Field(description="its other qualities")
