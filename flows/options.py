"""What the commands share: their common options, the settings after all flags, and printing a value."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.environment import prepare
from flows.settings import Settings, load_settings, parse_sets

ProfileOption = Annotated[str, typer.Option(help="laptop, single-gpu, production, or the path of a .toml file.")]
WorkOption = Annotated[
    str | None, typer.Option(help="The work folder: all state lies there. \\[default: stillhouse-data]")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change any setting, e.g. log.query=search_term.")
]
LogOption = Annotated[str | None, typer.Option(help="The query log: Parquet, CSV or JSONL; a glob takes several.")]
CatalogueOption = Annotated[str | None, typer.Option(help="The catalogue: Parquet, CSV or JSONL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def settings_of(profile: str, work: str | None, sets: list[str] | None, **more: object) -> Settings:
    """The settings after all flags, and the environment prepared for them. `more` are dotted keys, `__` for the dot."""
    changes = parse_sets(sets or [])
    changes |= {key.replace("__", "."): value for key, value in more.items() if value is not None}
    if work:
        changes["work"] = work
    settings = load_settings(profile, changes)
    models = (settings.teacher.model, settings.student.base)
    prepare(offline=all(Path(model).is_dir() for model in models))
    return settings


def show(value: Any, as_json: bool, table: Any) -> None:  # noqa: ANN401 - any JSON value; a function that draws it
    """Print JSON, or what `table()` gives."""
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
    else:
        drawn = table()
        out.print(drawn, soft_wrap=isinstance(drawn, str))  # a path is pasted, so it may not be broken
