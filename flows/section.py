"""The base of every section of the settings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys are refused; nothing changes once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
