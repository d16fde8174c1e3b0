import json

from flows.settings import SECRETS, load_settings
from flows.teacher import LazyEngine, open_engine, price_of, sampling_of, teacher_identity
from teacher.engine_url import UrlEngine


def settings(**changes):
    return load_settings("laptop", {f"teacher.{name}": value for name, value in changes.items()}, {})


def test_the_engine_behind_a_url_carries_the_identity_that_labels_are_planned_with():
    for chosen in (
        settings(url="http://127.0.0.1:1/v1", model="a/b"),
        settings(url="http://h/v1", model="c", samples=5),
    ):
        engine = open_engine(chosen)
        assert isinstance(engine, UrlEngine)
        assert engine.model == teacher_identity(chosen)
    moved = settings(url="http://elsewhere:8000/v1", model="a/b")
    assert teacher_identity(moved) == teacher_identity(settings(url="http://127.0.0.1:1/v1", model="a/b")) == "a/b@main"


def test_asking_for_several_samples_makes_another_author_and_the_token_budget_does_not():
    assert teacher_identity(settings(samples=5)) == f"{teacher_identity(settings())} best of 5 at 0.7"
    assert teacher_identity(settings(max_tokens=128)) == teacher_identity(settings())
    assert sampling_of(settings(samples=5, max_tokens=128)).samples == 5


def test_an_engine_nobody_asks_for_is_never_opened():
    with LazyEngine(settings(url="http://127.0.0.1:1/v1", model="a/b")) as lazy:
        assert lazy.engine is None
        assert lazy.open() is lazy.open()


def test_the_key_is_no_setting_and_so_written_nowhere():
    loaded = load_settings("laptop", {}, {SECRETS[0]: "very secret"})
    assert "very secret" not in json.dumps(loaded.model_dump())


def test_the_price_is_the_profiles():
    assert price_of(load_settings("production", {}, {})).gpus == 8
    assert price_of(settings()).gpu_hour is None
