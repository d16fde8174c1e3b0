"""General ability: what a model could do before it was trained, and what of that it can still do after."""

import json
from dataclasses import asdict, dataclass
from math import exp, isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.metrics import RESAMPLES, Interval
from labels.errors import InputError
from labels.normalise import normalise
from labels.prompt import Message

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """A chat and the one right answer to it."""

    messages: list[Message]
    answer: str


@dataclass(frozen=True)
class General:
    """What is asked: questions with their answers, and held-out texts whose likelihood is measured."""

    questions: list[Question]
    texts: list[str]


@dataclass(frozen=True)
class Ability:
    """What a model made of it: of each question whether it was right, of each text its log-likelihood in nats and of how
    many tokens.
    """

    right: list[bool]
    nats: list[float]
    tokens: list[int]

    @property
    def accuracy(self) -> float | None:
        """The share of questions answered right; None where none was asked."""
        return sum(self.right) / len(self.right) if self.right else None

    @property
    def perplexity(self) -> float | None:
        """The perplexity of a token, over all texts; None where there is no text."""
        return exp(-sum(self.nats) / sum(self.tokens)) if sum(self.tokens) else None


@dataclass(frozen=True)
class Regression:
    """What training cost, as shares of what there was: of accuracy (lost) and of perplexity (risen), with their 95%
    intervals; below 0 where it gained, None where it was not asked. With the figures themselves, before and after.
    """

    questions: int
    tokens: int
    accuracy_before: float | None
    accuracy_after: float | None
    accuracy_loss: float | None
    accuracy_loss_interval: Interval | None
    perplexity_before: float | None
    perplexity_after: float | None
    perplexity_rise: float | None
    perplexity_rise_interval: Interval | None

    @property
    def worst(self) -> float:
        """The greater of the two losses."""
        losses = [loss for loss in (self.accuracy_loss, self.perplexity_rise) if loss is not None]
        return max(losses, key=lambda loss: (isnan(loss), loss))  # what is no number is no pass

    @property
    def worst_interval(self) -> Interval | None:
        """That loss's interval."""
        return self.accuracy_loss_interval if self.worst == self.accuracy_loss else self.perplexity_rise_interval

    def to_json(self) -> dict[str, Any]:
        """A dict `json.dumps` takes."""
        return asdict(self)


def read_general(path: Path) -> General:
    """JSON lines, each {"messages": [{"role", "content"}, …], "answer": "…"} or {"text": "…"}.

    Raises InputError, naming the line, where one is neither, and where there is none.
    """
    questions, texts = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"evaluate.general {path} can't be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = _row(line, f"evaluate.general {path}, line {number}")
            if isinstance(found, Question):
                questions.append(found)
            else:
                texts.append(found)
    if not questions and not texts:
        raise InputError(f"evaluate.general {path} holds no row; wanted questions with answers, texts, or both")
    return General(questions, texts)


def right(said: str, wanted: str) -> bool:
    """Whether an answer is the wanted one: the same JSON where both are JSON, else the same text in normal form."""
    try:
        same: bool = json.loads(said) == json.loads(wanted)
    except ValueError:
        return normalise(said) == normalise(wanted)
    return same


def regression(before: Ability, after: Ability) -> Regression:
    """What was lost from `before` to `after`, asked the same.

    The intervals are paired bootstraps over questions and over texts (Efron & Tibshirani 1993, ch. 8). Nothing can be
    lost of an accuracy of 0: its loss is 0. Raises InputError where the two were not asked the same.
    """
    if len(before.right) != len(after.right) or before.tokens != after.tokens:
        raise InputError("general ability before and after: wanted the same questions and texts, in the same tokens")
    if not before.right and sum(before.tokens) == 0:
        raise InputError("nothing to measure general ability by: wanted questions, or texts of two tokens or more")
    loss, loss_interval = _accuracy_loss(np.array(before.right, float), np.array(after.right, float))
    rise, rise_interval = _perplexity_rise(
        np.array(before.nats), np.array(after.nats), np.array(before.tokens, dtype=float)
    )
    return Regression(
        questions=len(before.right),
        tokens=sum(before.tokens),
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        accuracy_loss=loss,
        accuracy_loss_interval=loss_interval,
        perplexity_before=before.perplexity,
        perplexity_after=after.perplexity,
        perplexity_rise=rise,
        perplexity_rise_interval=rise_interval,
    )


def _accuracy_loss(before: Floats, after: Floats) -> tuple[float | None, Interval | None]:
    if not before.size:
        return None, None
    sums = _resampled(np.column_stack([before, after]))
    was, now = np.vstack([[before.sum(), after.sum()], sums]).T
    lost = np.divide(was - now, was, out=np.zeros_like(was), where=was > 0)
    return float(lost[0]), _percentiles(lost[1:])


def _perplexity_rise(before: Floats, after: Floats, tokens: Floats) -> tuple[float | None, Interval | None]:
    if not tokens.sum():
        return None, None
    more = before - after  # nats that the texts became less likely by
    sums = _resampled(np.column_stack([more, tokens]))
    rise = np.expm1(np.vstack([[more.sum(), tokens.sum()], sums]) @ [1, 0] / np.append(tokens.sum(), sums[:, 1]))
    return float(rise[0]), _percentiles(rise[1:])


def _resampled(rows: Floats) -> Floats:
    """Column sums of RESAMPLES draws of the rows with replacement."""
    rng, many = np.random.default_rng(0), len(rows)
    return np.array([np.bincount(rng.integers(many, size=many), minlength=many) @ rows for _ in range(RESAMPLES)])


def _percentiles(values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _row(line: str, where: str) -> Question | str:
    wanted = 'wanted {"messages": [{"role": "user", "content": "…"}], "answer": "…"} or {"text": "…"}'
    try:
        row = json.loads(line)
        if isinstance(text := row.get("text"), str) and text.strip():
            return text
        messages = [{"role": str(one["role"]), "content": str(one["content"])} for one in row["messages"]]
        if not messages or not isinstance(row["answer"], str):
            raise ValueError("a question without messages, or an answer that is no text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: {wanted}; got {line[:120]!r} ({type(error).__name__}: {error})") from None
    return Question(messages, row["answer"])
