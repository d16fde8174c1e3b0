"""What surrounds the review page: links, how far people are, and the exchange with other tools."""

import json
from functools import partial

import pytest

from flows.review import queue_of, sample_labels
from flows.reviewing import drawn_nights, export, last_night, links, reviewers_of, sign_in_of, status, take_in
from labels.errors import InputError, SettingsError
from labels.verdicts import Verdicts
from tests.flows import night_by_hand
from tests.flows.night_by_hand import label, roles


@pytest.fixture
def begin(tmp_path):
    return partial(night_by_hand.begin, tmp_path)


@pytest.fixture
def night(begin):
    """A night that asks people about a hundred labels, of which ann has judged sixty: one in ten is wrong."""
    gold = {f"query {number}": "milk" for number in range(20)}
    night = begin([label(number) for number in range(500)], gold=gold, review__sample=100, review__active=0)
    sample_labels(night)
    queue = queue_of(night)
    for number in range(60):
        [given] = queue.take("ann", 1)
        said = ("right", given.item.label.value) if number % 10 else ("corrected", roles("tea"))
        queue.submit("ann", given.lease, *said, seconds=6.0)
    return night


def test_every_reviewer_has_a_link_that_signs_them_in_and_one_who_left_does_not(begin):
    night = begin([label(1)], review__reviewers=["ana", "ben"], review__url="https://review.example.org/")
    ana, ben = links(night.settings)
    assert (ana["reviewer"], ben["reviewer"]) == ("ana", "ben")
    assert ana["link"].startswith("https://review.example.org/sign-in?token=")
    token = ben["link"].partition("token=")[2]
    assert sign_in_of(night.settings).reviewer(token) == "ben"
    review = night.settings.review.model_copy(update={"reviewers": ["ana"]})
    with pytest.raises(Exception, match="ben"):
        sign_in_of(night.settings.model_copy(update={"review": review})).reviewer(token)


def test_the_secret_is_made_once_for_its_owners_eyes_alone_and_the_environments_comes_first(begin, monkeypatch):
    settings = begin([label(1)]).settings
    token = sign_in_of(settings).token(reviewers_of(settings)[0])
    secret = settings.folder / "review" / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert sign_in_of(settings).reviewer(token)
    monkeypatch.setenv("STILLHOUSE_REVIEW_SECRET", "another that is long enough")
    with pytest.raises(Exception, match="link"):
        sign_in_of(settings).reviewer(token)


def test_a_secret_that_anybody_could_guess_signs_nothing(begin, monkeypatch):
    settings = begin([label(1)]).settings
    monkeypatch.setenv("STILLHOUSE_REVIEW_SECRET", "short")
    with pytest.raises(SettingsError, match="has 5 characters; wanted 16 or more"):
        sign_in_of(settings)
    monkeypatch.delenv("STILLHOUSE_REVIEW_SECRET")
    (settings.folder / "review").mkdir()
    (settings.folder / "review" / "secret").touch()
    with pytest.raises(SettingsError, match="for a new one"):
        sign_in_of(settings)


def test_the_status_says_how_right_the_teacher_is_and_what_the_gate_still_wants(night):
    found = status(night.settings)
    assert found["night"] == "n1"
    assert found["audit"].endswith("verdicts")
    assert "minutes for one reviewer" in found["left"]
    assert "9" in found["teacher"]
    assert "more verdicts at this rate would do" in found["gate"]
    assert "gold" not in found  # which are hidden, nobody is told
    json.dumps(found)


def test_before_any_night_it_says_what_to_run(tmp_path, begin):
    settings = begin([label(1)]).settings
    assert drawn_nights(settings) == []
    with pytest.raises(InputError, match=r"nothing to review under .* yet; run `make demo`, or `stillhouse night`"):
        last_night(settings)


@pytest.mark.parametrize("format_", ["jsonl", "label-studio", "argilla"])
def test_what_is_written_for_another_tool_comes_back_and_adds_nothing(night, tmp_path, format_):
    file = tmp_path / "out.json"
    assert "verdicts in" in export(night.settings, file, format_)
    assert take_in(night.settings, file) == (0, [])


def test_verdicts_given_in_another_folder_are_taken_once_and_count_in_the_queue(night, tmp_path):
    file = tmp_path / "out.jsonl"
    export(night.settings, file, "jsonl")
    before = len(night.warehouse.verdicts())
    done = queue_of(night).progress("ann").done["audit"]
    with night.warehouse.said.transaction() as con:
        con.execute("DELETE FROM verdicts")  # as if these had been given elsewhere
    sample_labels(night)
    assert queue_of(night).progress("ann").done["audit"] == 0
    taken, problems = take_in(night.settings, file)
    assert (taken, problems) == (60, [])
    assert take_in(night.settings, file) == (0, [])
    assert len(night.warehouse.verdicts()) == before
    assert queue_of(night).progress("ann").done["audit"] == done


def test_what_cannot_be_taken_is_told_by_its_line_and_the_rest_is_taken(night, tmp_path):
    file = tmp_path / "out.jsonl"
    export(night.settings, file, "jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    fresh = [line for line in lines if not line["verdicts"]][:3]
    said = next(line["verdicts"][0] for line in lines if line["verdicts"])
    for number, line in enumerate(fresh):
        mine = {"identity": line["label"]["identity"], "query": line["label"]["query"], "id": f"new{number}"}
        line["verdicts"] = [said | mine | {"decision": "corrected", "value": roles("tea")}]
    fresh[0]["verdicts"][0]["task_version"] = "older"
    fresh[1]["verdicts"][0]["value"] = '{"product": 3}'
    file.write_text("\n".join(map(json.dumps, fresh)) + "\nno json\n")
    taken, problems = take_in(night.settings, file)
    assert taken == 1
    assert len(problems) == 3
    assert all("line" in problem for problem in problems)


def test_an_unknown_format_is_refused_with_those_there_are(night, tmp_path):
    with pytest.raises(SettingsError, match="wanted one of jsonl, label-studio, argilla"):
        export(night.settings, tmp_path / "x", "xml")
    assert Verdicts(tmp_path / "x").all() == []
