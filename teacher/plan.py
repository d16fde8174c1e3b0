"""What the teacher will be shown for each query, and with it the identity its label will have."""

from collections.abc import Sequence
from dataclasses import dataclass

from labels.files import digest
from labels.prompt import Message, messages
from labels.records import Example, label_identity
from labels.task import Task


@dataclass(frozen=True, slots=True)
class Shown:
    """What retrieval found for one query: facts and how near each is, and verified examples, each best first."""

    facts: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One query with what the teacher will be shown, and the identity its label will have."""

    identity: str
    query: str
    shown: Shown
    prompt: str

    def messages(self, task: type[Task]) -> list[Message]:
        """The chat messages the teacher is sent."""
        return messages(task, self.query, self.shown.facts, self.shown.examples)


def request(task: type[Task], query: str, shown: Shown, model: str) -> Request:
    """The request for `query` to the teacher identified by `model`. How near a fact is does not count, its text does."""
    prompt = digest(messages(task, query, shown.facts, shown.examples))
    return Request(label_identity(task, query, model, prompt), query, shown, prompt)


def plan(task: type[Task], queries: Sequence[str], shown: Sequence[Shown], model: str) -> list[Request]:
    """The requests for `queries`, each with what it is shown."""
    return [request(task, query, what, model) for query, what in zip(queries, shown, strict=True)]
