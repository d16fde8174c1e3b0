import itertools
import re
import subprocess
import sys
from functools import cache
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.base_for import scaffolding, write_base
from demo.queryner_tasks import QueryNer, QueryNerCollapsed
from flows.settings import ROOT
from labels.prompt import messages
from labels.semantic_roles import SemanticRoles
from labels.task import Task

BASE = str(ROOT / "demo/models/student-base")
VALUES = st.lists(st.text("abcdefgh 0'é™", min_size=1, max_size=12), max_size=3)


class Mixed(Task):
    """Text after a list and a list after text."""

    name: ClassVar[str] = "mixed"
    first: list[str]
    second: str
    third: list[str]
    fourth: str


TASKS = [QueryNer, QueryNerCollapsed, SemanticRoles, Mixed]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """The folder of the base made ready for the collapsed task."""
    folder = tmp_path_factory.mktemp("base") / "ready"
    write_base(QueryNerCollapsed, BASE, folder)
    return folder


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
def test_an_answer_is_scaffolding_and_values_and_nothing_else(task, data):
    values = {
        name: data.draw(VALUES if task.is_list(name) else st.sampled_from(["", "oat milk"]))
        for name in task.model_fields
    }
    answer = task(**values).normalised()
    pieces = "|".join(map(re.escape, sorted(scaffolding(task), key=len, reverse=True)))
    between = [text for text in re.split(pieces, answer.to_json()) if text]
    every = [getattr(answer, name) for name in task.model_fields]
    assert between == [item for value in every for item in (value if isinstance(value, list) else [value]) if item]


@given(words=st.lists(st.text("abcdefgh0", min_size=1, max_size=8), min_size=1, max_size=4))
def test_a_value_has_the_tokens_it_has_in_the_query(ready, words):
    tokenizer, query = tokenizer_of(ready), " ".join(words)
    answer = QueryNerCollapsed(product_type=[query], brand=[], attribute=[query]).to_json()
    prompt = tokenizer.apply_chat_template(messages(QueryNerCollapsed, query), tokenize=False)
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    marks = set(tokenizer.convert_tokens_to_ids(scaffolding(QueryNerCollapsed)))
    runs = [list(run) for is_mark, run in itertools.groupby(said, marks.__contains__) if not is_mark]
    assert len(runs) == 2
    assert runs[0] == runs[1]
    assert any(asked[at : at + len(runs[0])] == runs[0] for at in range(len(asked)))


def test_what_the_base_knew_it_still_knows_and_new_tokens_are_means_of_what_they_spell(ready):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (BASE, ready))
    old, new = (model.get_input_embeddings().weight for model in (before, after))
    assert (new[: len(old)] == old).all()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for piece in scaffolding(QueryNerCollapsed):
        at = tokenizer_of(ready).convert_tokens_to_ids(piece)
        if at >= len(old):
            spelt = tokenizer(piece, add_special_tokens=False)["input_ids"]
            assert new[at].allclose(old[spelt].mean(dim=0), atol=1e-6)
    assert len(new) == len(tokenizer_of(ready)) > len(old)


def test_the_command_names_the_setting_or_fails_in_one_line(tmp_path):
    command = [sys.executable, "-m", "demo.base_for", "labels.task:Nothing", tmp_path / "base"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert re.fullmatch(r"base_for: task = 'labels.task:Nothing': wanted module:Class .*\n", ran.stderr)


@cache
def tokenizer_of(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
