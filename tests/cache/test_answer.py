import json
from typing import Annotated, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator

from cache.answer import Answer, Opener
from cache.layout import BrokenError, entry
from labels.normalise import normalise
from labels.semantic_roles import SemanticRoles
from labels.task import Task

text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text, text, text, st.lists(text), st.floats(0, 1), st.sampled_from(["cache", "none"]))
def test_its_json_says_what_it_says(query, reason, product, attributes, confidence, source):
    value = {"product": product, "brand": "", "attributes": attributes}
    packed = json.dumps(value).encode() if source == "cache" else None
    answer = Answer(normalise(query), packed, source, "r1", confidence, 3, reason, 0.25)
    told = json.loads(answer.to_json())
    assert list(told) == ["query", "value", "source", "release", "confidence", "age", "reason", "milliseconds"]
    assert told == {name: getattr(answer, name) for name in told}
    assert answer.value == (value if source == "cache" else None)


def test_a_caller_who_changes_the_value_changes_his_own():
    answer = Answer("milk", b'{"product":"milk","brand":"","attributes":[]}', "cache", "r1", 1.0, 0, "", 0.1)
    answer.value["product"] = "tea"
    answer.value["attributes"].append("hot")
    assert answer.value == {"product": "milk", "brand": "", "attributes": []}


@given(text, st.lists(text), st.floats(0, 1), st.none() | st.integers(1, 2**40))
def test_an_entry_opens_as_it_was_written(product, attributes, confidence, made):
    value = {"product": product, "brand": "", "attributes": attributes}
    found = Opener(SemanticRoles).open(entry(value, confidence, "teacher", made), "cache", 7.0)
    assert json.loads(found.value_json) == value
    assert found.confidence == pytest.approx(confidence, abs=0.001)
    assert found.made == (made or 7.0)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"null",
        b"[" * 100_000,
        b'["milk","",[]]',
        b'["milk","",[],0.9,9]',
        b'["milk","",[],"sure",0]',
        b'["milk","",[],0.9,0,"now"]',
        b'["milk","",[],0.9,0,null]',
        b'["milk","",[],0.9,0,1,1]',
        b'["milk","",[],1.1,0]',
        b'["milk","",[],true,0]',
        b'["milk","",[],0.9,-1]',
        b'[1,"",[],0.9,0]',
        b'["milk",null,[],0.9,0]',
        b'["milk","",[1],0.9,0]',
        b'["\\ud800","",[],0.9,0]',
        b'["milk","",[],NaN,0]',
        b'["milk","",[],0.9,[]]',
        b'["milk","",[],0.9,0,1e999]',
    ],
)
def test_what_is_no_entry_of_the_task_is_refused(raw):
    with pytest.raises(BrokenError):
        Opener(SemanticRoles).open(raw, "cache", 0.0)


class Short(Task):
    """A task with a limit."""

    name: ClassVar[str] = "short"
    word: Annotated[str, Field(max_length=4)]


class Lower(Task):
    """A task whose field is looked at."""

    name: ClassVar[str] = "lower"
    word: str

    @field_validator("word")
    @classmethod
    def lower(cls, word):
        assert word.islower()
        return word


class Agreed(Task):
    """A task whose fields must go together."""

    name: ClassVar[str] = "agreed"
    word: str

    @model_validator(mode="after")
    def agrees(self):
        assert self.word != "No!"
        return self


@pytest.mark.parametrize(("task", "word"), [(Short, "longer"), (Lower, "No!"), (Agreed, "No!")])
def test_a_tasks_own_rules_are_kept(task, word):
    assert Opener(task).open(b'["milk",0.9,0]', "cache", 0.0).value_json == b'{"word":"milk"}'
    with pytest.raises(BrokenError, match="no entry of the task"):
        Opener(task).open(json.dumps([word, 0.9, 0]), "cache", 0.0)
