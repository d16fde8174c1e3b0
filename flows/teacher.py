"""The teacher as the settings name it: its identity, its engine, its price."""

import os
from typing import Self

from flows.settings import SECRETS, Settings
from labels.models import model_identity
from teacher.cost import Price
from teacher.engine import Engine, Sampling, identity_with


def sampling_of(settings: Settings) -> Sampling:
    """How answers are drawn."""
    teacher = settings.teacher
    return Sampling(teacher.max_tokens, teacher.samples, teacher.temperature, settings.seed)


def teacher_identity(settings: Settings) -> str:
    """The identity that labels carry; the engine's own `model` is the same."""
    teacher = settings.teacher
    served = f"{teacher.model}@{teacher.revision or 'main'}"
    model = served if teacher.url else model_identity(teacher.model, teacher.revision)
    return identity_with(model, sampling_of(settings))


class LazyEngine:
    """The settings' engine, opened when it is first asked for and closed when the block ends."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: Engine | None = None

    def open(self) -> Engine:
        """The engine. Raises EngineError where it can't be started."""
        if self.engine is None:
            self.engine = open_engine(self.settings)
        return self.engine

    def __enter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what was opened."""
        if self.engine:
            self.engine.close()


def open_engine(settings: Settings) -> Engine:
    """Offline vLLM; an OpenAI-compatible server where there is a URL; Ray Data where there are replicas."""
    t, sampling = settings.teacher, sampling_of(settings)
    if t.url:
        from teacher.engine_url import UrlEngine

        key = os.environ.get(SECRETS[0])
        return UrlEngine(t.url, t.model, t.revision, sampling, t.concurrency, t.deadline_seconds, key)
    if t.replicas > 1:
        from teacher.engine_ray import RayEngine

        return RayEngine(t.model, t.revision, sampling, dict(t.engine), t.replicas, t.ray_address)
    from teacher.engine_vllm import VllmEngine

    return VllmEngine(t.model, t.revision, sampling, dict(t.engine))


def price_of(settings: Settings) -> Price:
    """What the teacher costs, as the profile says."""
    return Price(**settings.teacher.price.model_dump())
