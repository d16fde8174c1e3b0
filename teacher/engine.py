"""What an engine is: anything that answers chat prompts in a task's schema. Two and more stand behind it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from labels.confidence import Piece
from labels.errors import InputError
from labels.prompt import Message
from labels.task import Task

IN_FLIGHT = 512
"""Prompts an engine takes ahead of the completions it gives: enough to keep it busy, few enough to ask twice."""
SECOND_BUDGET = 4
"""A second attempt may write so many times as many tokens."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn: `samples` of them, greedily unless there are several; `max_tokens` each."""

    max_tokens: int
    samples: int = 1
    temperature: float = 0.7
    seed: int = 0


def identity_with(model: str, sampling: Sampling) -> str:
    """The identity of a model that is asked this way: several samples, and the best of them, are another author."""
    return model if sampling.samples == 1 else f"{model} best of {sampling.samples} at {sampling.temperature:g}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to ask: its key (the label's identity), its messages, the answer's token budget, which attempt it is."""

    key: str
    messages: list[Message]
    max_tokens: int
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: its text, its tokens with log-probabilities (none where the engine gives none), whether it ended."""

    text: str
    pieces: tuple[Piece, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of one prompt: its answers, and the tokens of all its attempts.

    `error` says why the engine takes this very prompt never (too long, say); then there are no samples.
    """

    key: str
    samples: tuple[Sample, ...]
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    attempts: int = 1
    error: str = ""

    def after(self, first: "Completion | None") -> "Completion":
        """This second attempt with the first one's tokens counted too."""
        if first is None:
            return self
        return replace(
            self,
            tokens_in=self.tokens_in + first.tokens_in,
            tokens_cached=self.tokens_cached + first.tokens_cached,
            tokens_out=self.tokens_out + first.tokens_out,
            attempts=first.attempts + 1,
        )


class Engine(Protocol):
    """Answers prompts. `model` is its identity, part of every label's."""

    model: str

    def complete(self, task: type[Task], prompts: Iterable[Prompt]) -> Iterator[Completion]:
        """One completion a prompt, in whatever order they finish; `prompts` are taken as they are needed.

        At most IN_FLIGHT prompts are taken ahead of the completions given. What `second_attempt` wants asked again is
        asked again at once. Raises EngineError when the engine fails, so that the rest is asked another day; only what
        is the prompt's own fault comes back as a completion with an error.
        """
        ...

    def prefix_cache(self) -> tuple[int, int] | None:
        """Prompt tokens found in the engine's prefix cache and all looked up, since it started, by its own metrics.

        None where it has no such metrics.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def second_attempt(task: type[Task], prompt: Prompt, completion: Completion) -> Prompt | None:
    """The prompt to ask again, with a larger budget, where no sample is an answer of the task; None where one is."""
    if prompt.attempt > 1 or completion.error or any(usable(task, sample) for sample in completion.samples):
        return None
    return replace(prompt, attempt=2, max_tokens=SECOND_BUDGET * prompt.max_tokens)


def usable(task: type[Task], sample: Sample) -> bool:
    """Whether the sample ended by itself and is an answer of the task."""
    if not sample.finished:
        return False
    try:
        task.parse(sample.text)
    except InputError:
        return False
    return True
