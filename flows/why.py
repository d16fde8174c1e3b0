"""Why a query would, or would not, be asked of the teacher by a labelling run now."""

from typing import Any

from flows.night import Night
from flows.retrieve import open_finder
from flows.teacher import teacher_identity
from labels.errors import InputError
from labels.normalise import normalise
from labels.records import Label
from labels.task import Task
from teacher.plan import Request, request


def why(night: Night, text: str) -> dict[str, Any]:
    """What is held for a query, what would be shown for it now, and what that comes to.

    The categories shoppers chose are those of the last night that saw the query. Raises InputError for no query.
    """
    query = normalise(text)
    if not query:
        raise InputError('wanted a query, such as: stillhouse label --why "oat milk"')
    finder, _ = open_finder(night)
    with night.warehouse.connect(verdicts=False) as con:
        seen = con.execute(
            "SELECT converted FROM queries WHERE query = ? ORDER BY night DESC LIMIT 1", [query]
        ).fetchone()
        identities = con.execute(
            "SELECT identity FROM labels WHERE query = ? ORDER BY created DESC", [query]
        ).fetchall()
    [shown] = finder.shown([{"query": query, "converted": seen[0] if seen else None}])
    now = request(night.task, query, shown, teacher_identity(night.settings))
    held = night.warehouse.labels(identity for (identity,) in identities)
    same = next((label for label in held if label.identity == now.identity), None)
    answer = {"query": query, "asked_again": same is None, "why": _reason(night, now, same, held[0] if held else None)}
    answer |= {"in_the_log": "yes" if seen else "in no log so far: only the log's queries are asked"}
    answer |= {"identity": now.identity, "teacher": teacher_identity(night.settings), "facts": list(shown.facts)}
    answer |= {"examples": [f"{one.query} => {one.value}" for one in shown.examples]}
    if held:
        answer |= {"held": same.status if same else held[0].status, "value": (same or held[0]).value}
        answer |= {"labelled_in": (same or held[0]).night}
    return answer


def _reason(night: Night, now: Request, same: Label | None, last: Label | None) -> str:
    if same:
        return f"not asked: a label with the same task, query, teacher, prompt and facts is held ({same.status})"
    if last is None:
        return "asked: no label is held for this query"
    return f"asked: since its last label, {'; '.join(changes(night.task, now, teacher_identity(night.settings), last))}"


def changes(task: type[Task], now: Request, model: str, last: Label) -> list[str]:
    """What differs between what would be asked now and what was asked for the last label, in words."""
    found = []
    if (task.name, task.version()) != (last.task, last.task_version):
        found.append(f"the task changed ({last.task} {last.task_version} -> {task.name} {task.version()})")
    if model != last.model:
        found.append(f"the teacher changed ({last.model} -> {model})")
    if now.shown.facts != last.facts:
        found.append(_facts_changed(now.shown.facts, last.facts))
    examples = [(one.query, one.value) for one in now.shown.examples]
    if examples != [(one.query, one.value) for one in last.examples]:
        found.append("other verified examples are nearest to it")
    if not found and now.prompt != last.prompt:
        found.append("the prompt's wording changed (its template, or the task's)")
    return found


def _facts_changed(now: tuple[str, ...], then: tuple[str, ...]) -> str:
    added, gone = [fact for fact in now if fact not in then], [fact for fact in then if fact not in now]
    if not added and not gone:
        return "the same facts come in another order"
    return "its facts changed: " + ", ".join([f"+ {fact}" for fact in added] + [f"- {fact}" for fact in gone])
