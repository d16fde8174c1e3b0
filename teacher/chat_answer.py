"""A chat completion as OpenAI-compatible servers write it: foreign JSON, checked before any of it is believed."""

import codecs
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from labels.confidence import Piece
from labels.errors import InputError
from teacher.engine import Completion, Sample

Count = Annotated[int, Field(ge=0)]


class _Token(BaseModel):
    token: str
    logprob: FiniteFloat
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = None


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Cached(BaseModel):
    cached_tokens: Count | None = None


class _Usage(BaseModel):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: _Cached | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


def read_completion(key: str, body: bytes, samples: int) -> Completion:
    """What a response's body says of the prompt `key`: up to `samples` answers, its token counts where it gives any.

    Raises InputError where the body is no chat completion.
    """
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, reason["loc"]))
        raise InputError(f"{where}: {reason['msg']}" if where else reason["msg"]) from None
    usage = answer.usage or _Usage()
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    return Completion(
        key=key,
        samples=tuple(_sample(choice) for choice in answer.choices[:samples]),
        tokens_in=usage.prompt_tokens,
        tokens_cached=cached or 0,
        tokens_out=usage.completion_tokens,
    )


def _sample(choice: _Choice) -> Sample:
    """A refusal is kept as the text: it is no answer of the task, and says why."""
    tokens = choice.logprobs.content if choice.logprobs else None
    text = choice.message.content or choice.message.refusal or ""
    return Sample(text, _pieces(tokens or ()), choice.finish_reason == "stop")


def _pieces(tokens: Iterable[_Token]) -> tuple[Piece, ...]:
    """A character may be spread over tokens, whose text is then no character: their bytes are read as one stream."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    return tuple(
        (one.token if one.bytes is None else decode(bytes(one.bytes)), min(one.logprob, 0.0)) for one in tokens
    )
