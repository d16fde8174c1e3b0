"""What kind of values each field of a task takes, by its guardrails."""

from dataclasses import dataclass
from functools import cache

from labels.guardrails import InTaxonomy, Similar, guardrails_of
from labels.task import Task


@dataclass(frozen=True)
class Fields:
    """A task's fields by kind.

    `worded`: the values are words of the query, as a rule. `closed`: of a closed set, with its values in normal form,
    sorted. `free`: neither; a rewrite, say.
    """

    worded: tuple[str, ...]
    closed: dict[str, tuple[str, ...]]
    free: tuple[str, ...]


@cache
def fields_of(task: type[Task]) -> Fields:
    """The task's fields by kind, each kind in the task's order."""
    worded, closed, free = [], {}, []
    for name, rails in guardrails_of(task).items():
        sets = [rail.normal for rail in rails if isinstance(rail, InTaxonomy)]
        if sets:
            closed[name] = tuple(sorted(frozenset.intersection(*sets)))
        elif any(isinstance(rail, Similar) for rail in rails):
            free.append(name)
        else:
            worded.append(name)
    return Fields(tuple(worded), closed, tuple(free))


def values_by_field(answer: Task) -> dict[str, list[str]]:
    """The answer's values, in their order, by field; a field without any is left out."""
    given = {name: getattr(answer, name) for name in type(answer).model_fields}
    lists = {name: [value] if isinstance(value, str) else value for name, value in given.items()}
    return {name: [value for value in values if value] for name, values in lists.items() if any(values)}
