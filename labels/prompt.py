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
BLOCKS = ("system", "user")


def messages(
    task: type[Task], query: str, facts: Sequence[str] = (), examples: Sequence[Example] = ()
) -> list[Message]:
    """The chat messages for `query` (in normal form), shown `facts` and `examples`, each best first."""
    template = _template(task)
    context = template.new_context(
        {
            "instruction": Trusted(task.instruction()),
            "facts": facts,
            "examples": [{"query": one.query, "value": Trusted(_shown(task, one.value))} for one in examples],
            "query": query,
        }
    )
    return [{"role": role, "content": "".join(template.blocks[role](context))} for role in BLOCKS]


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
def _template(task: type[Task]) -> jinja2.Template:
    beside = Path(str(sys.modules[task.__module__].__file__)).parent
    folders = jinja2.FileSystemLoader([beside, Path(__file__).parent])
    environment = jinja2.Environment(
        loader=folders,
        autoescape=False,  # noqa: S701 - no HTML is made here; _printed escapes what a prompt needs escaped
        finalize=_printed,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    try:
        template = environment.get_template(task.template)
    except jinja2.TemplateError as error:
        raise InputError(
            f"task {task.name}: its template {task.template!r} can't be used ({type(error).__name__}: {error}); wanted a "
            f"Jinja file beside {beside}/, with the blocks {' and '.join(BLOCKS)}"
        ) from None
    missing = [block for block in BLOCKS if block not in template.blocks]
    if missing and not template.blocks:
        raise InputError(f"task {task.name}: its template {task.template!r} has no block {' nor '.join(missing)}")
    return template
