"""The base of every section of the settings, and the kinds of names in them that lead to something on disk."""

from glob import iglob
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

ROOT = Path(__file__).resolve().parent.parent


class Section(BaseModel):
    """Unknown keys are refused; nothing changes once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _file(name: str) -> str:
    place = str(Path(name).absolute())
    return place if Path(place).exists() or any(True for _ in iglob(place, recursive=True)) else name


def _model(name: str) -> str:
    places = (Path(name).absolute(), ROOT / name)
    return next((str(place) for place in places if (place / "config.json").is_file()), name)


# A night writes its settings down, to be read from any directory: what is there is named by its absolute path.
File = Annotated[str, AfterValidator(_file)]
"""A file, or files by a glob. Where there are none it stays as it is: it may be a name on the Hub."""
Model = Annotated[str, AfterValidator(_model)]
"""A model's folder, here or among those shipped with the project; or a name on the Hub, or a server's."""
