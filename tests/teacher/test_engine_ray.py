"""Several replicas under Ray Data: real Ray on this machine, two real vLLM engines of the tiny teacher."""

import json
import os
import subprocess
import sys

import pytest

from flows.settings import ROOT
from labels.confidence import field_confidence
from labels.semantic_roles import SemanticRoles
from teacher.engine_ray import AHEAD
from tests.teacher.ray_labelling import asked


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a process of its own gave, which must have been quiet about it."""

    def ran(what):
        file = tmp_path_factory.mktemp("ray") / "result.json"
        command = [sys.executable, "-m", "tests.teacher.ray_labelling", what, file]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=290)
        assert process.returncode == 0, process.stderr
        assert (process.stdout, process.stderr) == ("", "")
        return json.loads(file.read_text(encoding="utf-8"))

    return ran


@pytest.fixture(scope="module")
def labelled(run):
    return run("label")


def test_each_prompt_comes_back_once_and_every_replica_took_part(labelled):
    assert sorted(one["key"] for one in labelled["first"]) == sorted(prompt.key for prompt in asked())
    assert sum(labelled["answered"]) == len(asked())
    assert min(labelled["answered"]) > 0
    hits, looked_up = labelled["prefix_cache"]
    assert 0 < hits < looked_up


def test_the_answers_are_those_of_the_offline_engine(labelled, offline_engine):
    offline = {one.key: one for one in offline_engine.complete(SemanticRoles, asked())}
    same = 0
    for one in labelled["first"]:
        other = offline[one["key"]]
        assert (one["error"], one["tokens_in"]) == (other.error, other.tokens_in) or one["attempts"] != other.attempts
        if other.error or one["samples"][0]["text"] != other.samples[0].text:
            same += bool(other.error)
            continue
        same += 1
        [given], [wanted] = one["samples"], other.samples
        assert (given["finished"], one["tokens_out"]) == (wanted.finished, other.tokens_out)
        if wanted.finished:
            confidence = field_confidence(SemanticRoles, given["text"], [tuple(piece) for piece in given["pieces"]])
            wanted_confidence = field_confidence(SemanticRoles, wanted.text, wanted.pieces)
            assert confidence == pytest.approx(wanted_confidence, abs=0.01)
    assert same >= 0.98 * len(asked())  # another batch may round another way
    assert sum(bool(one["error"]) for one in labelled["first"]) == 1  # the prompt that is too long


def test_the_engine_can_be_asked_again(labelled):
    again = {one["key"]: one["samples"][0]["text"] for one in labelled["again"]}
    first = {one["key"]: one["samples"][0]["text"] for one in labelled["first"] if one["key"] in again}
    assert again == first
    assert len(again) == 5
    assert labelled["none"] == []


def test_a_replica_that_dies_ends_the_run_with_one_clear_error(labelled):
    assert len(set(labelled["before"])) == 100
    assert labelled["died"].startswith("a vLLM replica under Ray ended: its process was killed or crashed. Look at ")
    assert labelled["died"].endswith("then run the same command again")
    assert labelled["closed"] == "the teacher's engine is closed"
    assert labelled["left"] == []


@pytest.fixture(scope="module")
def refused(run):
    return run("refuse")


def test_what_ray_cannot_do_is_said_before_anything_is_asked(refused):
    address, options, room = refused["address"], refused["options"], refused["room"]
    assert address.startswith("teacher.ray_address: wanted HOST:PORT of a Ray cluster's head, but 127.0.0.1:1 can't")
    assert options.startswith("vLLM could not load the teacher")
    assert options.endswith("unexpected keyword argument 'no_such_option'")
    assert room.startswith("teacher.replicas = 4, but Ray has room for 1 with a CPU each on its 1 machines")


def test_an_engine_left_midway_is_closed_and_a_ray_that_was_there_before_stays(refused):
    assert len(set(refused["seen"])) == 3
    assert 0 <= refused["ahead"] <= AHEAD
    assert refused["closed"] == "the teacher's engine is closed"
    assert refused["left"] == []
    assert refused["connected"] is True
