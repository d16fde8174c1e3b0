"""The messages a model is shown for one query: the same function for teacher, training and serving.

They come from a Jinja template, `prompt.j2` here or the one a task names and keeps beside itself. Queries, facts and
examples are hostile data: everything a template prints is escaped, so that it can close no tag and spell no special
token of a chat template.
"""

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from labels.errors import InputError
from labels.records import Example
from labels.task import Task

Message = dict[str, str]
MACROS = ("system", "user")


def messages(
    task: type[Task], query: str, facts: Sequence[str] = (), examples: Sequence[Example] = ()
) -> list[Message]:
    """The chat messages for `query` (in normal form), shown `facts` and `examples`, each best first."""
    macros = _macros(task)
    shown = [{"query": one.query, "value": Trusted(_shown(task, one.value))} for one in examples]
    try:
        said = (macros.system(Trusted(task.instruction())), macros.user(query, facts, shown))
    except (jinja2.TemplateError, TypeError) as error:
        raise InputError(f"task {task.name}: its template {task.template!r} can't be used: {error}") from None
    return [{"role": role, "content": content} for role, content in zip(MACROS, said, strict=True)]


class Trusted(str):
    """Text of ours, printed as it is."""

    __slots__ = ()


def escape(text: str) -> str:
    """Every special token of a chat template and every tag holds a `<` or `[`; here none survives as one."""
    return text.replace("<", "‹").replace(">", "›").replace("[", "(").replace("]", ")").replace("\n", " ")


def _printed(value: Any) -> str:  # noqa: ANN401 - whatever a template prints
    return value if isinstance(value, Trusted) else escape(str(value))


def _shown(task: type[Task], value: str) -> str:
    """An example's answer with its values escaped; its JSON stays what the model is to write."""
    answer = json.loads(value)
    escaped = {name: [*map(escape, held)] if isinstance(held, list) else escape(held) for name, held in answer.items()}
    return task(**escaped).to_json()


@cache
def _macros(task: type[Task]) -> Any:  # noqa: ANN401 - the template's module: its macros are its attributes
    beside = Path(str(sys.modules[task.__module__].__file__)).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([beside, Path(__file__).parent]),
        autoescape=False,  # noqa: S701 - no HTML is made here; _printed escapes what a prompt needs escaped
        finalize=_printed,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    try:
        module = environment.get_template(task.template).module
    except jinja2.TemplateError as error:
        raise InputError(
            f"task {task.name}: its template {task.template!r} can't be used ({type(error).__name__}: {error}); wanted a "
            f"Jinja file in {beside}, as labels/prompt.j2 is one"
        ) from None
    missing = [macro for macro in MACROS if not hasattr(module, macro)]
    if missing:
        raise InputError(f"task {task.name}: its template {task.template!r} has no macro {' or '.join(missing)}")
    return module
