import json
from dataclasses import replace
from typing import Annotated, ClassVar

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import Field

from evals.exchange.argilla import argilla_records, argilla_settings
from evals.exchange.jsonl import item_in, jsonl
from evals.exchange.label_studio import label_studio_config, label_studio_tasks
from evals.exchange.read import read_verdicts
from evals.item import Item
from labels.errors import InputError
from labels.guardrails import Grounded, InTaxonomy, Similar
from labels.normalise import normalise
from labels.records import Example, Verdict
from labels.task import Task
from tests.labels.shop import label

ANN, BEN = "ann@shop.example", "ben <of> the & night"


class Find(Task):
    """Find what <a shopper's> query & the catalogue name.

    A second paragraph.
    """

    name: ClassVar[str] = "find"
    brand: Annotated[str, Grounded()] = Field(description='its "maker"')
    words: Annotated[list[str], Grounded()] = Field(description="its <qualities>")
    shelf: Annotated[str, InTaxonomy(["Dairy & Eggs", "Bakery"])] = Field(description="the shelf")
    kept: Annotated[list[str], InTaxonomy(["cold", "dry", "dark"])] = Field(description="how it is kept")
    decision: Annotated[str, Similar(0.1)] = Field(description="another way to ask")


def find(brand="", words=(), shelf="", kept=(), decision=""):
    return Find(brand=brand, words=list(words), shelf=shelf, kept=list(kept), decision=decision).normalised().to_json()


def item(number, query="acme oat milk", value=None, part="audit", **other):
    value = value or find("acme", ["oat", "milk"], "dairy & eggs", ["cold", "dark"], "plant milk")
    found = label(
        number, query, value=value, task="find", task_version=Find.version(), confidence={"brand": 0.4, "words": 0.9},
        facts=("acme | oat", "b"), scores=(0.5, 0.25), examples=(Example("q", value, 0.5),),
    )  # fmt: skip
    return Item(found, part=part, band="tail", traffic=2.5, **other)


def verdict(of, decision="right", value=None, reviewer=ANN, **other):
    value = of.label.value if decision == "right" else value
    given = {"draft": of.label.value, "task": "find", "task_version": Find.version(), "seconds": 4.25, "part": of.part}
    return Verdict(of.label.identity, of.label.query, reviewer, decision, value, **given | other)


ITEMS = [
    item(1, stratum="s1", inclusion_probability=0.25, overlap=True),
    item(2, "🥛 acme 👩‍🍳 oat 🥛", find("acme", ["oat", "🥛"])),
    item(3, "חלב <b>acme</b> & co", find("<b>acme</b>", ["חלב", "&"]), "active", reason="new brand '<b>acme</b>'"),
    item(4, "vm juice", find("verdant machine", ["juice", "green juice"]), "gold", answer=find("verdant machine")),
    item(5, "tea", find()),
]
SAID = [
    verdict(ITEMS[0]),
    verdict(
        ITEMS[0], "corrected", find("oat", ["milk", "not there"], "bakery", ["dark", "cold"]), BEN, note="a 'note' 🥛"
    ),
    verdict(ITEMS[1], "corrected", find("🥛", ["👩‍🍳", "acme"])),
    verdict(ITEMS[2], reviewer=BEN, simulated=True),
    verdict(ITEMS[3], "cant_tell", note="hm"),
    verdict(ITEMS[4], "corrected", find(words=["tea"], kept=["dry"])),
]
BY_ID = {one.label.identity: one for one in ITEMS}


def read(tmp_path, text, items=BY_ID):
    path = tmp_path / "back.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return read_verdicts(path, items, Find)


def kinds(found):
    return [(problem.kind, problem.where) for problem in found.problems]


def sorted_by_id(verdicts):
    return sorted(verdicts, key=lambda one: one.id)


# JSON lines


def test_json_lines_hold_items_and_verdicts_and_come_back_the_same(tmp_path):
    text = jsonl(ITEMS, SAID)
    assert [item_in(line) for line in text.splitlines()] == ITEMS
    found = read(tmp_path, text)
    assert found.verdicts == tuple(SAID)
    assert found.problems == ()


def test_a_broken_line_is_told_by_its_number_and_the_others_are_kept(tmp_path):
    lines = jsonl(ITEMS[:2], SAID[:3]).splitlines()
    found = read(tmp_path, "\n".join(["{not json", lines[0], "", "[1]", "[" * 100_000, lines[1]]))
    assert [one.id for one in found.verdicts] == [one.id for one in SAID[:3]]
    assert kinds(found) == [("unreadable", "line 1"), ("unreadable", "line 4"), ("unreadable", "line 5")]
    assert found.counts == {"unreadable": 3}


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"identity": "gone"}, "unknown label", "label 'gone' ('acme oat milk') is none of the 5 asked about"),
        ({"task_version": "old"}, "other task version", f"wanted find version {Find.version()}, got version old"),
        ({"value": '{"brand":"x"}'}, "breaks the schema", "words: Field required"),
        ({"value": None}, "breaks the schema", "the answer for 'acme oat milk'"),
        ({"value": find("b")}, "contradicts itself", "says right, but the answer was changed"),
        ({"decision": "corrected"}, "contradicts itself", "says corrected, but the answer is the draft's"),
        ({"decision": "maybe"}, "unreadable", "decision: Input should be"),
        ({"seconds": "long"}, "unreadable", "seconds: Input should be a valid number"),
    ],
)
def test_each_kind_of_problem_is_told_with_its_place(tmp_path, change, kind, text):
    lines = [json.loads(line) for line in jsonl(ITEMS[:2], [SAID[0], SAID[2]]).splitlines()]
    lines[0]["verdicts"][0] |= change
    if "identity" in change:
        lines[0]["label"] |= change
    found = read(tmp_path, "\n".join(map(json.dumps, lines)))
    assert found.verdicts == (SAID[2],)
    (problem,) = found.problems
    assert (problem.kind, problem.where) == (kind, "line 1, verdict 1")
    assert text in str(problem)


def test_of_two_verdicts_of_a_reviewer_on_a_label_the_later_counts_whatever_their_order(tmp_path):
    early = replace(SAID[0], created="2026-01-01T00:00:00.000000+00:00")
    late = replace(SAID[0], id="late", decision="cant_tell", value=None)
    for said in ([early, late], [late, early]):
        found = read(tmp_path, jsonl(ITEMS, said))
        assert found.verdicts == (late,)
        assert kinds(found) == [("duplicate", "line 1")]
        assert "the later verdict counts" in str(found.problems[0])


def test_the_same_verdict_twice_is_told_and_kept_once(tmp_path):
    line = jsonl(ITEMS[:1], SAID[:1])
    found = read(tmp_path, line + line)
    assert found.verdicts == (SAID[0],)
    assert kinds(found) == [("duplicate", "line 2")]


def test_what_sqlite_would_refuse_is_mended(tmp_path):
    record = json.loads(jsonl(ITEMS[:1], SAID[:1]))
    record["verdicts"][0] |= {"note": "cut \ud83e", "seconds": float("nan"), "created": "yesterday"}
    (found,) = read(tmp_path, json.dumps(record)).verdicts
    assert (found.note, found.seconds) == ("cut ?", 0.0)
    assert found.created.startswith("20")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\x1f\x8b\x08\x00\xff", "no UTF-8 text"),
        (b"query,decision\nmilk,right\n", "got 'query,decision"),
        (b'[{"id": 1, "query": "milk", "decision": "right"}]', "not JSON-MIN"),
        (b'[{"data": {}}, ', "a JSON list that is broken"),
        (b"<View/>", "JSON lines"),
    ],
)
def test_a_file_of_something_else_is_refused_with_what_to_do(tmp_path, content, message):
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(InputError, match="wanted verdicts as JSON lines") as error:
        read_verdicts(path, BY_ID, Find)
    assert message in str(error.value)
    assert "export" in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="check the path"):
        read_verdicts(tmp_path / "none", BY_ID, Find)


# Label Studio


@pytest.fixture(scope="module")
def interface():
    from label_studio_sdk.label_interface import LabelInterface

    found = LabelInterface(label_studio_config(Find))
    found.validate()
    return found


def exported(tasks):
    """The tasks as Label Studio exports them after an import: new ids, our own kept as `import_id`, one author."""
    for number, task in enumerate(tasks):
        task |= {"id": number, "project": 1, "drafts": [], "meta": {}}
        for place, one in enumerate(task["annotations"]):
            one |= {
                "id": 100 * number + place, "import_id": one["id"], "completed_by": {"id": 7, "email": "importer@x.example"},
                "created_at": "2026-03-09T22:16:08.728353Z", "updated_at": "2026-03-09T22:16:08.728353Z",
            }  # fmt: skip
    return tasks


def test_label_studio_takes_every_task_prediction_and_annotation(interface):
    tasks = label_studio_tasks(Find, ITEMS, SAID)
    assert json.loads(json.dumps(tasks)) == tasks
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []
        for annotation in task["annotations"]:
            assert interface.validate_annotation(annotation)
            assert len({region["id"] for region in annotation["result"]}) == len(annotation["result"])


def test_reviewers_in_a_tool_see_no_sign_of_hidden_gold():
    shown = json.dumps(label_studio_tasks(Find, ITEMS, SAID)) + json.dumps(argilla_records(Find, ITEMS, SAID))
    assert "gold" not in shown
    assert json.dumps(ITEMS[3].answer) not in shown


def test_verdicts_come_back_from_label_studio_as_they_went_out(tmp_path):
    found = read(tmp_path, label_studio_tasks(Find, ITEMS, SAID))
    assert found.verdicts == tuple(SAID)
    assert found.problems == ()


def test_verdicts_come_back_the_same_from_a_trip_through_label_studio(tmp_path):
    found = read(tmp_path, exported(label_studio_tasks(Find, ITEMS, SAID)))
    assert found.verdicts == tuple(SAID)
    assert found.problems == ()


def test_a_new_annotation_is_a_verdict_whose_id_is_the_same_each_time_until_it_is_changed(tmp_path):
    (task,) = exported(label_studio_tasks(Find, ITEMS[1:2], []))
    result = [
        {"from_name": "words", "to_name": "query", "type": "labels",
         "value": {"start": 2, "end": 6, "text": "acme", "labels": ["brand"]}},
        {"from_name": "value_words", "to_name": "query", "type": "textarea", "value": {"text": ["OAT ", "soya"]}},
        {"from_name": "value_shelf", "to_name": "query", "type": "choices", "value": {"choices": ["bakery"]}},
        {"from_name": "decision", "to_name": "query", "type": "choices", "value": {"choices": ["corrected"]}},
    ]  # fmt: skip
    task["annotations"] = [
        {"id": 5, "completed_by": 3, "lead_time": 7.5, "result": result, "created_at": "2026-03-09T22:16:08.5+01:00"}
    ]
    (first,) = read(tmp_path, [task]).verdicts
    assert (first.value, first.reviewer) == (find("acme", ["oat", "soya"], "bakery"), "label studio user 3")
    assert (first.seconds, first.created) == (7.5, "2026-03-09T21:16:08.500000+00:00")
    assert (first.draft, first.part) == (ITEMS[1].label.value, "audit")
    assert read(tmp_path, [task]).verdicts == (first,)
    task["annotations"][0] |= {"updated_at": "2026-03-10T00:00:00Z"}
    assert read(tmp_path, [task]).verdicts[0].id != first.id


def test_marks_counted_in_utf_16_units_by_an_old_label_studio_are_read_by_their_text(tmp_path):
    tasks = exported(label_studio_tasks(Find, ITEMS[1:2], [SAID[2]]))
    for region in tasks[0]["annotations"][0]["result"]:
        if region["from_name"] == "words":
            for end in ("start", "end"):
                before = ITEMS[1].label.query[: region["value"][end]]
                region["value"][end] = len(before.encode("utf-16-le")) // 2
    assert read(tmp_path, tasks).verdicts == (SAID[2],)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"was_cancelled": True}, "no verdict", "was skipped"),
        ({"result": None}, "unreadable", "result: Input should be a valid list"),
        ({"result": []}, "no verdict", "got ''"),
        ({"completed_by": None, "result": [], "decide": "can't tell"}, "no verdict", "does not say who gave it"),
        ({"mark": [50, 54, "acme"]}, "breaks the schema", "the file says 'acme'"),
        ({"mark": [5, 8, "milk"]}, "breaks the schema", "are 'oat', the file says 'milk'"),
        ({"mark": ["/p[1]", "/p[1]", "acme"]}, "breaks the schema", "wanted a start and an end"),
        ({"label": "colour"}, "breaks the schema", "the task has no field 'colour'"),
        ({"type": ["a", "b"]}, "breaks the schema", "brand: wanted one value, got ['a', 'b']"),
    ],
)
def test_an_annotation_that_is_no_good_is_told_and_the_next_one_kept(tmp_path, change, kind, text):
    tasks = exported(label_studio_tasks(Find, ITEMS[:1], SAID[:2]))
    tasks[0]["data"]["verdicts"].pop(0)
    first = tasks[0]["annotations"][0]
    mark = next(region["value"] for region in first["result"] if region["from_name"] == "words")
    if "mark" in change:
        mark["start"], mark["end"], mark["text"] = change["mark"]
    elif "label" in change:
        mark["labels"] = [change["label"]]
    elif "type" in change:
        first["result"].append({"from_name": "value_brand", "value": {"text": change["type"]}})
    else:
        first |= change
    if "decide" in change:
        first["result"] = [{"from_name": "decision", "value": {"choices": [change["decide"]]}}]
    found = read(tmp_path, tasks)
    assert found.verdicts == (SAID[1],)
    assert kinds(found) == [(kind, "record 1, annotation 1")]
    assert text in str(found.problems[0])


def test_a_label_studio_task_of_an_unknown_label_or_an_older_task_is_told(tmp_path):
    tasks = exported(label_studio_tasks(Find, ITEMS[:2], [SAID[0], SAID[2]]))
    tasks[0]["data"]["identity"] = "gone"
    tasks[1]["data"]["task_version"] = "old"
    found = read(tmp_path, tasks)
    assert found.verdicts == ()
    assert found.counts == {"unknown label": 1, "other task version": 1}


# Any query: emoji, right to left, markup


TEXTS = (
    st.text(st.sampled_from("ab é&<>\"'🥛👩\u200d🍳🏽חל\u200fب\u202e"), min_size=1, max_size=20)
    .map(normalise)
    .filter(bool)
)


@st.composite
def reviewed(draw):
    query = draw(TEXTS)
    value = st.sampled_from([*query.split(), query]) | TEXTS
    answers = st.builds(find, st.just("") | value, st.lists(value, max_size=3))
    asked = item(9, query, draw(answers))
    return asked, verdict(asked, "corrected", draw(answers))


@settings(max_examples=60, deadline=None)
@given(reviewed())
def test_whatever_the_query_a_verdict_comes_back_from_every_tool(interface, tmp_path_factory, pair):
    import argilla as rg

    asked, said = pair
    assume(Find.parse(said.value).items() != Find.parse(said.draft).items())
    tasks = label_studio_tasks(Find, [asked], [said])
    for region in [*tasks[0]["predictions"][0]["result"], *tasks[0]["annotations"][0]["result"]]:
        if region["type"] == "labels":
            value = region["value"]
            assert asked.label.query[value["start"] : value["end"]] == value["text"]
    assert interface.validate_annotation(tasks[0]["annotations"][0])
    records = [rg.Record.from_dict(one).to_dict() for one in argilla_records(Find, [asked], [said])]
    folder = tmp_path_factory.mktemp("any")
    for content in (exported(tasks), records, jsonl([asked], [said])):
        assert read(folder, content, {"id9": asked}).verdicts == (said,)


# Argilla


def test_argilla_s_own_models_take_the_settings():
    from argilla._models import FieldModel, MetadataFieldModel, QuestionModel

    found = argilla_settings(Find)
    assert json.loads(json.dumps(found)) == found
    questions = {one["name"]: QuestionModel(**one) for one in found["questions"]}
    assert questions["value_shelf"].type == "label_selection"
    assert questions["value_kept"].type == "multi_label_selection"
    assert [name for name, one in questions.items() if one.required] == ["decision"]
    assert {FieldModel(**one).name for one in found["fields"]} == {"query", "facts"}
    assert len([MetadataFieldModel(**one) for one in found["metadata"]]) == 4


def test_argilla_takes_every_record_and_its_answers_are_of_the_settings_questions():
    import argilla as rg

    questions = {one["name"] for one in argilla_settings(Find)["questions"]}
    for ours in argilla_records(Find, ITEMS, SAID):
        record = rg.Record.from_dict(ours)
        assert record.to_dict()["suggestions"] == ours["suggestions"]
        assert {one.question_name for one in [*record.responses, *record.suggestions]} <= questions
        assert record.metadata.api_models()  # raises on a value Argilla would not store
        assert all(one.status == "submitted" and one.value for one in record.responses)


@pytest.mark.parametrize("flatten", [False, True])
def test_verdicts_come_back_from_argilla_as_they_went_out(tmp_path, flatten):
    import argilla as rg
    from argilla.records._io import GenericIO

    records = [rg.Record.from_dict(one) for one in argilla_records(Find, ITEMS, SAID)]
    back = GenericIO.to_list(records, flatten=flatten)
    for content in (back, "\n".join(map(json.dumps, back))):
        found = read(tmp_path, content)
        assert sorted_by_id(found.verdicts) == sorted_by_id(SAID)
        assert found.problems == ()


USER = "11111111-2222-4333-8444-555555555555"


def answered(status, **answers):
    """A record as Argilla has it after a user answered."""
    import argilla as rg

    (record,) = argilla_records(Find, ITEMS[:1], [])
    record["responses"] = {
        name: [{"value": value, "user_id": USER, "status": status}] for name, value in answers.items()
    }
    return rg.Record.from_dict(record)


def test_a_new_response_is_a_verdict_whose_id_is_the_same_each_time(tmp_path):
    from argilla.records._io import GenericIO

    answers = {"value_brand": "Acme", "value_words": "oat\n\n MILK ", "value_kept": ["dry"], "decision": "corrected"}
    content = GenericIO.to_list([answered("submitted", **answers, note="so")], flatten=True)
    (said,) = read(tmp_path, content).verdicts
    assert said.value == find("acme", ["oat", "milk"], "", ["dry"])
    assert (said.reviewer, said.note, said.part, said.draft) == (
        f"argilla user {USER}", "so", "audit", ITEMS[0].label.value,
    )  # fmt: skip
    assert read(tmp_path, content).verdicts[0].id == said.id


@pytest.mark.parametrize("status", ["draft", "discarded"])
def test_a_response_that_was_never_submitted_is_told(tmp_path, status):
    from argilla.records._io import GenericIO

    found = read(tmp_path, GenericIO.to_list([answered(status, decision="can't tell")], flatten=True))
    assert found.verdicts == ()
    assert kinds(found) == [("no verdict", f"record 1, user {USER}")]
    assert status in str(found.problems[0])


def test_where_argilla_s_export_leaves_the_status_out_only_a_completed_record_counts(tmp_path):
    record = answered("submitted", decision="can't tell").to_dict()
    assert record["status"] == "pending"
    assert "to_list(flatten=True)" in str(read(tmp_path, [record]).problems[0])
    (said,) = read(tmp_path, [record | {"status": "completed"}]).verdicts
    assert (said.decision, said.value) == ("cant_tell", None)


@pytest.mark.parametrize(
    ("answers", "kind", "text"),
    [
        ({"value_brand": ["a"], "decision": "corrected"}, "breaks the schema", "brand: Input should be a valid string"),
        ({"value_brand": "b"}, "no verdict", "got ''"),
        ({"decision": "right"}, "contradicts itself", "says right, but the answer was changed"),
    ],
)
def test_an_argilla_response_that_is_no_good_is_told(tmp_path, answers, kind, text):
    from argilla.records._io import GenericIO

    found = read(tmp_path, GenericIO.to_list([answered("submitted", **answers)], flatten=True))
    assert found.verdicts == ()
    assert kinds(found) == [(kind, f"record 1, user {USER}")]
    assert text in str(found.problems[0])


def test_responses_of_another_shape_are_told(tmp_path):
    record = answered("submitted", decision="right").to_dict() | {"responses": {"decision": [{"value": "right"}]}}
    found = read(tmp_path, [record, answered("submitted", decision="can't tell").to_dict() | {"status": "completed"}])
    assert len(found.verdicts) == 1
    assert kinds(found) == [("unreadable", "record 1")]
