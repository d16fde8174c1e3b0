import asyncio
import json
import threading
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labels.errors import EngineError, ParityError
from labels.files import read_json, write_json, write_manifest
from student.parity import BOUNDS, SERVED, Parity, served_parity
from student.reference import REFERENCE

ROWS = [
    {
        "query": f"query {number}",
        "prompt": [0, 5, 6, number + 10],
        "answer": [7, 8, 1],
        "greedy": [7, 8, 1],
        "logprobs": [-3.0, -2.0, -9.0, -0.1, -0.2, -0.01],
        "likeliest": [9, 6, 4, 7, 8, 1],
    }
    for number in range(20)
]


@pytest.fixture
def student(tmp_path):
    """A student as a merge leaves it, of which no more is looked at than its manifest and its reference."""
    write_json(tmp_path / "student-1" / REFERENCE, {"rows": ROWS})
    write_manifest(tmp_path / "student-1", parity={"served_bounds": asdict(BOUNDS["float32"])})
    return tmp_path / "student-1"


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # all that ask at once


@contextmanager
def serving(shift=0.0, other_places=(), other_answers=(), spoil=lambda choice: choice):
    """The URL of a server that answers as vLLM does: what the reference says, or something else where asked.

    `other_places`: (row, place) pairs at which it thinks another token likeliest; `other_answers`: rows answered otherwise.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            number = asked["prompt"][3] - 10
            row = ROWS[number]
            assert asked["model"] == "student-1"
            assert asked["temperature"] == 0
            if asked.get("prompt_logprobs"):
                assert asked["prompt"] == row["prompt"] + row["answer"]
                places = [None]
                for place, token in enumerate(asked["prompt"][1:]):
                    best = 99 if (number, place) in other_places else row["likeliest"][place]
                    found = {str(best): {"logprob": -0.001, "rank": 1}}
                    found.setdefault(str(token), {"rank": 2})["logprob"] = row["logprobs"][place] + shift
                    places.append(found)
                choice = {"prompt_logprobs": places, "token_ids": [3]}
            else:
                assert asked["return_token_ids"]
                choice = {"token_ids": [7, 7, 1] if number in other_answers else row["greedy"]}
            body = json.dumps({"choices": [spoil(choice)]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def measured(student, **how):
    with serving(**how) as url:
        return asyncio.run(served_parity(url, "student-1", student))


def test_a_server_that_says_what_the_student_said_passes_and_its_figures_are_kept(student):
    assert measured(student, shift=0.0004) == Parity(20, 120, 0.0004, 0.0004, 1.0, 1.0)
    kept = read_json(student / SERVED)
    assert (kept["max_difference"], kept["within"]) == (0.0004, True)
    assert kept["bounds"] == asdict(BOUNDS["float32"])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"shift": 0.005}, r"differ by up to 0.005 \(0.01 allowed\), 0.005 on average \(0.001\)"),
        ({"shift": -0.02}, r"differ by up to 0.02 \(0.01 allowed\)"),
        ({"other_places": {(3, 2)}}, r"99.2% of next tokens are the same \(99.9% wanted\)"),
        ({"other_answers": {4}}, r"95.0% of answers \(98.0%\)"),
        ({"shift": float("nan")}, r"differ by up to nan"),
    ],
)
def test_another_model_behind_the_url_is_refused_with_figures_bounds_and_what_to_do(student, how, says):
    with pytest.raises(ParityError, match=says) as caught:
        measured(student, **how)
    assert "See that the server runs in the student's dtype" in str(caught.value)
    assert read_json(student / SERVED)["within"] is False


def test_each_serving_type_has_its_own_room(student):
    figures = measured(student, shift=0.0009)
    assert figures.within(BOUNDS["float32"])
    wider = [BOUNDS[name] for name in ("float32", "float16", "bfloat16")]
    assert [Parity(20, 120, 0.05, 0.005, 1.0, 1.0).within(bounds) for bounds in wider] == [False, True, True]
    assert [Parity(20, 120, 0.3, 0.03, 0.985, 0.96).within(bounds) for bounds in wider] == [False, False, True]
    assert not Parity(20, 120, 9.0, 2.0, 0.1, 0.0).within(BOUNDS["bfloat16"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda choice: {},
        lambda choice: choice | {"prompt_logprobs": None},
        lambda choice: choice | ({"prompt_logprobs": choice["prompt_logprobs"][:-1]} if len(choice) == 2 else {}),
        lambda choice: choice | ({"prompt_logprobs": [{}] * 7} if len(choice) == 2 else {}),
    ],
)
def test_a_server_that_gives_no_logprobs_is_no_pass(student, spoil):
    with pytest.raises(EngineError, match=r"gave no log-probabilities of a prompt.*wanted vLLM's prompt_logprobs"):
        measured(student, spoil=spoil)


def test_no_server_at_all_is_no_pass(student):
    with pytest.raises(EngineError, match="the student's server gave no answer"):
        asyncio.run(served_parity("http://127.0.0.1:9", "student-1", student))


def test_a_student_whose_reference_is_gone_is_refused(student):
    (student / REFERENCE).unlink()
    with pytest.raises(ParityError, match=f"has no {REFERENCE} to compare the server with; remove the folder"):
        asyncio.run(served_parity("http://127.0.0.1:9", "student-1", student))


def test_a_quantised_variant_is_measured_and_not_judged_and_a_base_neither(student, tmp_path):
    write_manifest(student, quantised_from="student-0")
    assert measured(student, shift=-0.5, other_answers={1, 2}).same_answers == 0.9
    assert read_json(student / SERVED)["within"] is None
    assert asyncio.run(served_parity("http://127.0.0.1:9", "base", tmp_path)) is None
