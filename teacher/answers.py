"""Completions to labels: what is an answer at all, which of several is kept, whether the guardrails let it pass.

Of several samples the one kept passes the guardrails, then agrees most with the others (self-consistency: Wang et al.
2022, arXiv:2203.11171), then has the highest mean log-probability: best of n, as in Llama 3's rejection sampling
(Llama team 2024, arXiv:2407.21783, §4.2.2), with these three in place of its reward model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from labels.confidence import confidence_at, value_spans
from labels.errors import InputError
from labels.guardrails import Rejection, check_all
from labels.records import Label, Status
from labels.task import Task
from teacher.engine import Completion, Sample
from teacher.plan import Request


@dataclass(frozen=True, slots=True)
class Answer:
    """A sample that is an answer of the task: what it says, that as compact JSON, where each value stands in its text."""

    sample: Sample
    said: Task
    value: str
    spans: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a completion came to: the fields of a label that depend on it."""

    status: Status
    raw: str
    reason: str = ""
    value: str | None = None
    confidence: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    rejection: Rejection | None = None


def labels_of(
    task: type[Task],
    requests: Sequence[Request],
    completions: Sequence[Completion],
    model: str,
    night: str,
) -> list[Label]:
    """The label of each request, from the completion in the same place.

    `failed` where the engine refused the prompt or no sample is an answer, `rejected` where a guardrail turns the best
    one down, else `accepted`. What guardrails compare is embedded for all at once.
    Raises ValueError where a completion is of another request.
    """
    for request, completion in zip(requests, completions, strict=True):
        if request.identity != completion.key:
            raise ValueError(f"the completion {completion.key!r} is of another request than {request.identity!r}")
    read = [_read(task, completion) for completion in completions]
    refusals = _refusals(requests, [answers for answers, _ in read])
    labels, version = [], task.version()
    for request, completion, (answers, why), refused in zip(requests, completions, read, refusals, strict=True):
        came_to = _judged(task, answers, refused) if answers else Outcome("failed", _said(completion), why)
        rejection = came_to.rejection
        labels.append(
            Label(
                identity=request.identity,
                query=request.query,
                status=came_to.status,
                value=came_to.value,
                confidence=came_to.confidence,
                reason=came_to.reason,
                raw=came_to.raw,
                facts=request.shown.facts,
                task=task.name,
                task_version=version,
                model=model,
                prompt=request.prompt,
                night=night,
                tokens_in=completion.tokens_in,
                tokens_out=completion.tokens_out,
                tokens_cached=completion.tokens_cached,
                scores=request.shown.scores,
                examples=request.shown.examples,
                guardrail=rejection.guardrail if rejection else "",
                figure=rejection.figure if rejection else None,
                threshold=rejection.threshold if rejection else None,
                samples=len(answers),
                agreement=came_to.agreement,
                attempts=completion.attempts,
            )
        )
    return labels


def best(task: type[Task], answers: Sequence[Answer], refused: Mapping[str, Rejection | None]) -> Answer:
    """The answer to keep, the first of equals; `refused` says of each value which guardrail turns it down."""
    if len(answers) == 1:
        return answers[0]
    votes = {name: _votes(answers, name) for name in task.model_fields}

    def score(answer: Answer) -> tuple[bool, int, float]:
        agreeing = sum(votes[name][_field(answer.said, name)] for name in votes)
        return refused[answer.value] is None, agreeing, _mean_logprob(answer.sample)

    return max(answers, key=score)


def _judged(task: type[Task], answers: Sequence[Answer], refused: Mapping[str, Rejection | None]) -> Outcome:
    """The best answer, accepted or rejected."""
    kept = best(task, answers, refused)
    rejection = refused[kept.value]
    agreement = _agreement(task, answers, kept)
    return Outcome(
        status="rejected" if rejection else "accepted",
        raw=kept.sample.text,
        reason=str(rejection) if rejection else "",
        value=kept.value,
        confidence=_confidence(kept, agreement),
        agreement=agreement,
        rejection=rejection,
    )


def _said(completion: Completion) -> str:
    """What the engine said where it gave no answer."""
    return completion.samples[0].text if completion.samples else ""


def _read(task: type[Task], completion: Completion) -> tuple[list[Answer], str]:
    """The samples that are answers of the task; and, where none is, why."""
    if completion.error or not completion.samples:
        return [], completion.error or "the engine gave no answer"
    answers, reasons = [], []
    for sample in completion.samples:
        try:
            answers.append(_answer(task, sample))
        except (InputError, ValueError) as error:  # ValueError: the right fields in another order
            reasons.append(str(error))
    if answers:
        return answers, ""
    others = f"; nor is any other of {len(reasons)} samples an answer" if len(reasons) > 1 else ""
    attempt = "; this was the second attempt, with a larger budget" if completion.attempts > 1 else ""
    return [], reasons[0] + others + attempt


def _answer(task: type[Task], sample: Sample) -> Answer:
    """Raises InputError where the sample is cut short, no JSON or of another schema, ValueError on another order."""
    if not sample.finished:
        raise InputError(f"truncated after {len(sample.pieces)} tokens" if sample.pieces else "truncated at its budget")
    said = task.parse(sample.text)
    return Answer(sample, said, said.to_json(), value_spans(task, sample.text))


def _refusals(requests: Sequence[Request], answers: Sequence[Sequence[Answer]]) -> list[dict[str, Rejection | None]]:
    """For each request, which guardrail turns each value down; samples that say the same are checked once."""
    distinct = [{answer.value: answer.said for answer in own} for own in answers]
    flat = [(request, said) for request, own in zip(requests, distinct, strict=True) for said in own.values()]
    checked = iter(
        check_all(
            [said for _, said in flat],
            [request.query for request, _ in flat],
            [request.shown.facts for request, _ in flat],
        )
    )
    return [{value: next(checked) for value in own} for own in distinct]


def _agreement(task: type[Task], answers: Sequence[Answer], kept: Answer) -> dict[str, float]:
    """By field, the share of answers that say what `kept` says; empty for a single answer: it agrees with nobody."""
    if len(answers) < 2:
        return {}
    shares = {name: _votes(answers, name)[_field(kept.said, name)] / len(answers) for name in task.model_fields}
    return {name: round(share, 4) for name, share in shares.items()}


def _confidence(kept: Answer, agreement: Mapping[str, float]) -> dict[str, float]:
    """By field, the value tokens' probability times the agreement, each where there is one; nothing where none is."""
    if not kept.sample.pieces:
        return dict(agreement)
    sure = confidence_at(kept.spans, kept.sample.text, kept.sample.pieces)
    return {name: round(share * agreement.get(name, 1.0), 4) for name, share in sure.items()}


def _votes(answers: Sequence[Answer], name: str) -> Counter[str | frozenset[str]]:
    return Counter(_field(answer.said, name) for answer in answers)


def _field(said: Task, name: str) -> str | frozenset[str]:
    """A field's value to compare by: of a list the order does not count."""
    value: str | list[str] = getattr(said, name)
    return frozenset(value) if isinstance(value, list) else value


def _mean_logprob(sample: Sample) -> float:
    """Per token, in nats; 0 for an engine that gives none."""
    return fmean(logprob for _, logprob in sample.pieces) if sample.pieces else 0.0
