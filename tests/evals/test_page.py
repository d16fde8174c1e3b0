import json
import re
import resource
import time
from dataclasses import replace
from html import unescape
from typing import Annotated, ClassVar

import httpx
import pytest
from fastapi import FastAPI
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from pydantic import Field
from starlette.testclient import TestClient

from evals.page.app import COOKIE, create_app
from evals.page.show import Value, allowed, located, place, show, visible
from evals.page.sign_in import SESSION_SALT, SignIn
from evals.queue import Given, ReviewQueue
from labels.errors import SettingsError
from labels.guardrails import InTaxonomy
from labels.records import Verdict
from labels.services import free_port
from labels.task import Task
from labels.verdicts import Verdicts
from tests.evals.page_server import SECRET, SHELVES, Shopping, item, open_queue, serving, sign_in

DRAFT = json.loads(item(0).label.value)


class Reviewer:
    """A reviewer's browser: cookies, the CSRF token of the page, and the leases it shows."""

    def __init__(self, client, root="", name="ann"):
        self.client, self.root = client, root
        self.entered = client.get(f"{root}/sign-in", params={"token": sign_in().token(name)})
        assert self.entered.status_code == 200

    def home(self):
        page = self.client.get(f"{self.root}/")
        self.csrf = unescape(re.search(r'name="csrf" value="([^"]+)"', page.text)[1])
        self.leases = [lease for lease in re.findall(r'data-lease="(\w*)"', page.text) if lease]
        self.last = re.search(r'name="last" value="(\w*)"', page.text)
        return page

    def post(self, path, script=True, headers=None, **fields):
        accept = {"accept": "application/json" if script else "text/html"}
        data = {"csrf": self.csrf} | fields
        return self.client.post(
            f"{self.root}{path}", data=data, headers=accept | (headers or {}), follow_redirects=False
        )

    def say(self, decision="right", **more):
        self.home()
        return self.post("/verdict", lease=self.leases[0], decision=decision, **more)


def values(**changed):
    return {f"value.{name}": value for name, value in (DRAFT | changed).items()}


@pytest.fixture
def queue(tmp_path):
    queue = open_queue(tmp_path)
    queue.fill([item(n) for n in range(4)], "n1")
    return queue


@pytest.fixture
def client(queue):
    return TestClient(create_app(queue, Shopping, sign_in()), base_url="http://localhost")


@pytest.fixture
def ann(client):
    return Reviewer(client)


# Signing in


def test_a_link_sets_a_strict_cookie_and_goes_on_without_the_token(ann):
    cookie = ann.entered.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert part in cookie
    assert "Secure" not in cookie
    assert ann.entered.headers["refresh"] == "0; url=/"
    assert ann.entered.headers["referrer-policy"] == "no-referrer"
    assert sign_in().token("ann").split(".")[0] not in ann.entered.text
    assert ann.home().status_code == 200


def test_over_https_the_cookie_is_secure(queue):
    client = TestClient(create_app(queue, Shopping, sign_in()), base_url="https://localhost")
    assert "Secure" in Reviewer(client).entered.headers["set-cookie"]


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("forged", "not valid"),
        (SignIn(b"another", ["ann"]).token("ann"), "not valid"),
        (SignIn(SECRET, ["eve"]).token("eve"), "'eve' is not among the reviewers"),
    ],
    ids=["forged", "another secret", "a stranger"],
)
def test_a_link_that_does_not_count_sets_no_cookie_and_says_what_to_do(client, token, says):
    answer = client.get("/sign-in", params={"token": token})
    assert answer.status_code == 401
    assert says in unescape(answer.text)
    assert "stillhouse review" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/recent", "/session"])
def test_without_a_session_no_page_shows_a_query(client, path):
    answer = client.get(path)
    assert answer.status_code == 401
    assert "oat" not in answer.text


def test_a_session_that_ended_is_a_401_and_what_was_typed_comes_back(ann):
    class Yesterday(TimestampSigner):
        def get_timestamp(self):
            return int(time.time()) - 13 * 60 * 60

    ann.home()
    old = URLSafeTimedSerializer(SECRET, salt=SESSION_SALT, signer=Yesterday).dumps(["ann", "id"])
    ann.client.cookies.clear()
    ann.client.cookies.set(COOKIE, old)
    fields = values(brand="arla") | {"lease": ann.leases[0], "decision": "corrected"}
    answer = ann.post("/verdict", **fields)
    assert answer.status_code == 401
    assert "ended after 12 hours" in answer.json()["message"]
    page = ann.post("/verdict", script=False, **fields)
    assert page.status_code == 401
    assert 'name="value.brand" value="arla"' in page.text


def test_a_removed_reviewer_is_out_at_once(queue, ann):
    later = TestClient(create_app(queue, Shopping, SignIn(SECRET, ["bo"])), base_url="http://localhost")
    later.cookies = ann.client.cookies
    assert later.get("/").status_code == 401


def test_signing_out_ends_the_session_and_gives_back_what_was_held(queue, ann):
    ann.home()
    assert ann.post("/sign-out").status_code == 200
    assert ann.client.get("/").status_code == 401
    assert queue.take("bo", 1)[0].item.label.identity == "id0"


# Where forms may come from


@pytest.mark.parametrize("path", ["/verdict", "/skip", "/undo", "/sign-out"])
@pytest.mark.parametrize(
    ("csrf", "headers"),
    [
        ("", {}),
        ("wrong", {}),
        (None, {"origin": "http://evil.example"}),
        (None, {"origin": "null"}),
        (None, {"sec-fetch-site": "cross-site"}),
        (None, {"sec-fetch-site": "same-site", "origin": "http://localhost"}),
    ],
)
def test_a_form_from_anywhere_else_does_nothing(queue, ann, path, csrf, headers):
    ann.home()
    fields = {} if csrf is None else {"csrf": csrf}
    answer = ann.post(path, lease=ann.leases[0], decision="right", headers=headers, **fields)
    assert answer.status_code == 403
    assert queue.verdicts.all() == []
    assert len(queue.verdicts.read("SELECT * FROM leases")) == 2


def test_behind_a_proxy_the_browsers_word_counts_that_a_form_is_the_pages_own(ann):
    ann.home()
    headers = {"sec-fetch-site": "same-origin", "origin": "https://review.example.org"}
    assert ann.post("/verdict", lease=ann.leases[0], decision="right", headers=headers).status_code == 200


def test_a_form_of_the_page_itself_counts(queue, ann):
    ann.home()
    headers = {"sec-fetch-site": "same-origin", "origin": "http://localhost"}
    assert ann.post("/verdict", lease=ann.leases[0], decision="right", headers=headers).status_code == 200
    assert len(queue.verdicts.all()) == 1


def test_a_page_of_an_earlier_session_can_fetch_the_token_of_this_one(ann):
    ann.home()
    before = ann.csrf
    ann.client.get("/sign-in", params={"token": sign_in().token("ann")})
    assert ann.post("/verdict", lease=ann.leases[0], decision="right").status_code == 403
    ann.csrf = ann.client.get("/session").json()["csrf"]
    assert ann.csrf != before
    assert ann.post("/verdict", lease=ann.leases[0], decision="right").status_code == 200


def test_a_form_larger_than_any_answer_is_refused_unread(ann):
    ann.home()
    answer = ann.post("/verdict", lease=ann.leases[0], decision="right", note="x" * 600_000)
    assert answer.status_code == 403
    assert "at most 512 kB" in answer.json()["message"]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "localhost:80:80", "", "127.0.0.1.nip.io"])
def test_under_a_foreign_name_nothing_is_served(ann, host):
    answer = ann.client.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "Allowed: 127.0.0.1, [::1], localhost" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8808", "[::1]"])
def test_under_this_machines_own_names_it_is(ann, host):
    assert ann.client.get("/", headers={"host": host}).status_code == 200


def test_other_names_can_be_allowed(queue):
    client = TestClient(
        create_app(queue, Shopping, sign_in(), hosts=["review.example"]), base_url="http://review.example"
    )
    assert Reviewer(client).home().status_code == 200
    assert client.get("/", headers={"host": "localhost"}).status_code == 421


def test_every_answer_has_the_strict_headers(ann):
    for path in ("/", "/recent", "/session", "/sign-in", "/nowhere", "/static/x/y"):
        headers = ann.client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_pages_files_may_be_kept_for_ever_as_their_address_is_their_content(ann):
    found = re.findall(r'(?:href|src)="(/static/[^"]+)"', ann.home().text)
    assert len(found) == 5
    for path in found:
        answer = ann.client.get(path)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
    assert ann.client.get(found[0].replace("review.css", "%2e%2e%2fapp.py")).status_code == 404


def test_nothing_on_the_page_needs_what_its_policy_forbids(ann):
    for page in (ann.home().text, ann.client.get("/recent").text):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=\"/static)", page)
        assert "http:" not in page
        assert "https:" not in page


# Giving verdicts


def test_right_is_saved_before_the_answer_which_brings_the_next_two(queue, ann):
    ann.home()
    shown, ahead = ann.leases
    answer = ann.post("/verdict", lease=shown, decision="right", seconds="7.25", note=" so be it ").json()
    [verdict] = queue.verdicts.all()
    assert (verdict.decision, verdict.seconds, verdict.note) == ("right", 7.25, "so be it")
    assert (verdict.value, verdict.id) == (item(0).label.value, shown)
    assert answer["message"] == "Saved: right."
    leases = [re.search(r'data-lease="(\w+)"', one)[1] for one in answer["items"]]
    assert leases[0] == ahead
    assert leases[1] not in (shown, ahead)
    assert "1</strong> of 4" in answer["progress"]


def test_without_the_script_a_verdict_is_a_redirect_to_the_next_query(queue, ann):
    ann.home()
    shown = ann.leases[0]
    answer = ann.post("/verdict", script=False, lease=shown, decision="cant_tell")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?said=cant_tell")
    assert "Saved: can&#39;t tell." in ann.client.get("/?said=cant_tell").text
    assert ann.home().text.count(shown) == 1  # as the last verdict, that can be taken back
    [verdict] = queue.verdicts.all()
    assert (verdict.decision, verdict.value) == ("cant_tell", None)


def test_what_is_said_above_the_query_is_the_pages_own_words(ann):
    assert "evil" not in ann.client.get("/", params={"said": "evil <b>"}).text


def test_a_verdict_sent_again_is_the_same_verdict(queue, ann):
    ann.home()
    for _ in range(3):
        answer = ann.post("/verdict", lease=ann.leases[0], decision="right")
        assert (answer.status_code, answer.json()["message"]) == (200, "Saved: right.")
    assert len(queue.verdicts.all()) == 1
    assert ann.post("/verdict", lease=ann.leases[0], decision="cant_tell").json()["message"] == "Saved: right."


@pytest.mark.parametrize("sent", ["", "nan", "inf", "-5", "1e9", "x", "12.5"])
def test_seconds_are_held_between_none_and_ten_minutes(queue, ann, sent):
    ann.say(seconds=sent)
    expected = {"1e9": 600.0, "12.5": 12.5}.get(sent, 0.0)
    assert queue.verdicts.all()[0].seconds == expected


def test_a_correction_is_saved_in_normal_form_lists_in_the_querys_order(queue, ann):
    answer = ann.say("corrected", **values(product=" Oat  MILK", attributes=["1L", "", "Organic", "organic"]))
    assert answer.json()["message"] == "Saved: corrected."
    assert json.loads(queue.verdicts.all()[0].value) == DRAFT | {"attributes": ["organic", "1l"]}


def test_a_correction_that_says_what_the_draft_says_is_right(queue, ann):
    assert ann.say("corrected", **values(brand="OATLY ")).json()["message"] == "Saved: right."
    assert queue.verdicts.all()[0].value == item(0).label.value


def test_everything_can_be_taken_out_of_an_answer(queue, ann):
    ann.say("corrected", **values(product="", brand="", attributes=[], category=[]))
    assert queue.verdicts.all()[0].value == Shopping(product="", brand="", attributes=[], category=[]).to_json()


def test_a_schema_error_is_said_at_its_field_and_nothing_typed_is_lost(queue, ann):
    ann.home()
    fields = values(attributes=[f"word{n}" for n in range(9)], brand="arla <b>") | {"note": "kept", "seconds": "3"}
    answer = ann.post("/verdict", lease=ann.leases[0], decision="corrected", **fields)
    assert answer.status_code == 422
    body = answer.json()
    assert "attributes: At most 8 values." in body["message"]
    assert re.search(r'class="wrong" id="wrong-3">At most 8 values.<', body["item"])
    assert 'value="arla &lt;b&gt;"' in body["item"]
    assert ">kept</textarea>" in body["item"]
    page = ann.post("/verdict", script=False, lease=ann.leases[0], decision="corrected", **fields)
    assert page.status_code == 422
    assert all(f'value="word{n}"' in page.text for n in range(9))
    assert queue.verdicts.all() == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"brand": "zzzzz"}, "“zzzzz” stands neither in the query nor in the facts."),
        ({"category": ["milk", "dairy"]}, "“milk” is not one of the allowed values."),
    ],
)
def test_what_a_guardrail_doubts_is_asked_about_once_and_can_be_overruled(queue, ann, changed, says):
    ann.home()
    fields = values(**changed) | {"lease": ann.leases[0], "decision": "corrected"}
    answer = ann.post("/verdict", **fields)
    assert answer.status_code == 422
    assert says in unescape(answer.json()["item"])
    sure = unescape(re.search(r'name="sure" value="([^"]+)"', answer.json()["item"])[1])
    other = ann.post("/verdict", **fields | values(brand="yyyyy") | {"sure": sure})
    assert other.status_code == 422  # sure of another value
    assert ann.post("/verdict", **fields | {"sure": sure}).status_code == 200
    assert queue.verdicts.all()[0].value == sure


def test_every_doubtful_field_is_named_at_once(ann):
    body = ann.say("corrected", **values(brand="zzzzz", category=["nowhere"])).json()
    assert len(re.findall('class="wrong"', body["item"])) == 2


def test_a_label_without_an_answer_can_be_corrected_but_not_accepted(queue, ann):
    queue.fill([item(9, label={"value": None, "status": "failed"})], "n2")
    page = ann.home().text
    assert "The teacher gave no answer" in page
    assert 'data-act="accept"' not in page
    assert ann.say("right").status_code == 422
    assert ann.say("corrected", **values()).json()["message"] == "Saved: corrected."


@pytest.mark.parametrize("decision", ["", "wrong", "simulated"])
def test_any_other_decision_is_refused(queue, ann, decision):
    assert ann.say(decision).status_code == 422
    assert queue.verdicts.all() == []


def test_a_note_that_is_too_long_is_not_cut_in_silence(queue, ann):
    answer = ann.say("right", note="x" * 1001)
    assert (answer.status_code, len(queue.verdicts.all())) == (422, 0)
    assert "at most 1000 characters" in answer.json()["message"]


def test_anothers_lease_is_a_409_that_says_so_and_brings_ones_own_query(queue, ann, client):
    ann.home()
    bo = Reviewer(TestClient(client.app, base_url="http://localhost"), name="bo")
    bo.home()
    answer = bo.post("/verdict", lease=ann.leases[0], decision="right")
    assert answer.status_code == 409
    assert "not yours any more" in answer.json()["message"]
    assert bo.leases[0] in answer.json()["items"][0]
    page = bo.post("/verdict", script=False, lease="forged", decision="right")
    assert page.status_code == 409
    assert "go on with the next one" in page.text
    assert queue.verdicts.all() == []


def test_undo_brings_the_query_back_with_the_answer_it_had(queue, ann):
    ann.say("corrected", **values(brand="arla", attributes=["organic", "1l"]) | {"sure": "x", "note": "hm"})
    assert queue.verdicts.all() == []  # "arla" was doubted
    ann.say("corrected", **values(attributes=["organic", "1l"]) | {"note": "hm"})
    ann.home()
    body = ann.post("/undo", last=ann.last[1]).json()
    assert body["message"] == "Taken back. Answer it again."
    assert "You took back: <strong>corrected</strong>" in body["items"][0]
    assert 'value="1l"' in body["items"][0]
    assert ">hm</textarea>" in body["items"][0]
    assert queue.verdicts.all() == []


def test_undo_sent_twice_takes_one_verdict_back(queue, ann):
    ann.say()
    ann.say()
    ann.home()
    for words in ("Taken back. Answer it again.", "There is nothing to take back."):
        assert ann.post("/undo", last=ann.last[1]).json()["message"] == words
    assert len(queue.verdicts.all()) == 1
    assert ann.post("/undo", script=False, last="x").headers["location"] == "/?said=nothing"


def test_skip_brings_another_query_and_sent_twice_skips_one(queue, ann):
    ann.home()
    for _ in range(2):
        answer = ann.post("/skip", lease=ann.leases[0])
        assert (answer.status_code, answer.json()["message"]) == (200, "Skipped.")
        assert ann.leases[1] in answer.json()["items"][0]
    assert queue.verdicts.all() == []
    assert len(queue.verdicts.read("SELECT * FROM skips")) == 1


def test_when_nothing_is_left_the_page_says_what_happens_next(queue, ann):
    for _ in range(3):
        assert ann.say().status_code == 200
    ann.home()
    body = ann.post("/verdict", lease=ann.leases[0], decision="right").json()
    assert "All done" in body["items"][0]
    assert "The next night counts them" in ann.client.get("/").text


def test_when_others_hold_the_rest_the_page_says_so(queue, ann):
    queue.take("bo", 4)
    assert "Nothing is left for you" in ann.client.get("/").text


def test_the_last_answers_show_draft_answer_and_what_was_made_anew(queue, ann):
    ann.say("corrected", **values(brand="organic"))
    ann.say("cant_tell", note="<i>why</i>")
    queue.fill([item(1)], "n2")
    page = ann.client.get("/recent").text
    assert page.index("can&#39;t tell") < page.index("corrected")
    assert re.search(r"<del>.*oatly.*</del>.*<ins>.*organic.*</ins>", page)
    assert page.count("left the sample since") == 1
    assert "&lt;i&gt;why&lt;/i&gt;" in page


def test_an_answer_of_another_task_is_shown_as_it_is(queue, ann):
    queue.verdicts.add([Verdict("id9", "q", "ann", "corrected", '{"x":"<b>"}', draft='{"y":1}')])
    assert "{&#34;x&#34;:&#34;&lt;b&gt;&#34;}" in ann.client.get("/recent").text


@pytest.mark.parametrize("room", [100, 40_000])
def test_on_a_full_disk_nothing_is_said_to_be_saved_and_trying_again_works(tmp_path, room):
    """The child's files may grow to `room` bytes: too little to open SQLite's log, or to write to it."""
    open_queue(tmp_path).fill([item(n) for n in range(4)], "n1")
    port = free_port()
    with serving(tmp_path, port) as process:
        ann = Reviewer(httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True))
        ann.home()
        free = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        fields = values(brand="organic") | {"lease": ann.leases[0], "decision": "corrected"}
        answer = ann.post("/verdict", **fields)
        assert answer.status_code == 507
        assert "Not saved: the server's disk is full." in answer.json()["message"]
        page = ann.post("/verdict", script=False, **fields)
        assert page.status_code == 507
        assert 'name="value.brand" value="organic"' in page.text
        assert open_queue_reads(tmp_path) == []
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, free)
        assert ann.post("/verdict", **fields).json()["message"] == "Saved: corrected."
    assert [verdict.id for verdict in open_queue_reads(tmp_path)] == [ann.leases[0]]


def open_queue_reads(folder):
    return Verdicts(folder / "verdicts.sqlite").all()


# What is shown, and what is not


def page_of(tmp_path, one):
    queue = ReviewQueue(Verdicts(tmp_path / f"{one.part}{one.label.identity}.sqlite"))
    queue.fill([one], "n1")
    client = TestClient(create_app(queue, Shopping, sign_in()), base_url="http://localhost")
    ann = Reviewer(client)
    shown = ann.home().text
    said = ann.post("/verdict", lease=ann.leases[0], decision="right").text
    return [
        re.sub(r"[0-9a-f]{32}|(?<![\w-])[\w-]{27}(?![\w-])", "#", text)
        for text in (shown, said, client.get("/recent").text)
    ]


def test_a_hidden_gold_item_looks_exactly_like_an_audit_item(tmp_path):
    audit = item(1, stratum="head · sure", inclusion_probability=0.5)
    gold = replace(audit, part="gold", answer=json.dumps(DRAFT | {"brand": "secret"}), reason="gold", stratum="")
    shown, said, recent = page_of(tmp_path, gold)
    plain = page_of(tmp_path, audit)
    assert [shown, said] == plain[:2]
    clock = r"\d\d:\d\d[^<\"]*"
    assert re.sub(clock, "", recent) == re.sub(clock, "", plain[2])
    assert not re.search("gold|secret", shown + said + recent)


def test_an_active_item_says_why_it_was_chosen_and_no_other_does(tmp_path):
    assert "Asked because: they disagree" in page_of(tmp_path, item(1, part="active", reason="they disagree"))[0]
    assert "Asked because" not in page_of(tmp_path, item(2, reason="drawn"))[0]


def test_facts_scores_examples_confidence_traffic_and_band_are_there(ann):
    page = ann.home().text
    for part in (
        "oat drink organic 1 l | oatly | plant milk",
        "0.83",
        "soy milk alpro",
        "0.66",
        "97%",
        "1,234 searches",
        "head",
    ):
        assert part in page


HOSTILE = {
    "script": '<script>alert(1)</script> "><img src=x onerror=alert(1)> {{7*7}} ${7*7} </template></textarea>',
    "rtl": "milk \u202egnp.exe\u202c \u2066x",
    "control": "a\x00b\x07c \x7f\x85 \ud83d".replace("\ud83d", "\ufffd"),
    "emoji": "🥛🏴‍☠️ e\u0301" + "\u0301" * 500,
    "long": "x" * 100_000,
    "words": " ".join(f"w{n}" for n in range(16_000)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_query_is_shown_and_does_nothing(tmp_path, text):
    value = Shopping(product=text, brand="", attributes=[text], category=[]).to_json()
    facts = {"facts": (text,), "scores": (1.0,), "confidence": {}}
    shown, said, recent = page_of(tmp_path, item(1, text, part="active", reason=text, label={"value": value} | facts))
    for page in (shown, said, recent):
        assert "<script>alert" not in page
        assert "<img" not in page
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", re.sub(r'value="[^"]*"', "", page)
        )


def test_control_and_format_characters_are_signs_one_can_see():
    assert visible("a\x00b\x1b\x7f") == "a␀b␛⟨U+007F⟩"
    assert visible("\u202e\u200b\ud800\ue000") == "⟨U+202E⟩⟨U+200B⟩⟨U+D800⟩⟨U+E000⟩"
    assert visible("café 🏴‍☠️ می‌خواهم") == "café 🏴‍☠️ می‌خواهم"


@pytest.mark.parametrize(
    ("query", "held", "places"),
    [
        ("organic oat milk", ["oat milk", "organic"], [(1, 2), (0,)]),
        ("milk oat milk", ["oat milk", "milk"], [(1, 2), (0,)]),
        ("milk milk", ["milk", "milk", "milk"], [(0,), (1,), ()]),
        ("oat cold milk", ["oat milk"], [(0, 2)]),  # not side by side
        ("oat milk", ["oat milk", "milk"], [(0, 1), ()]),  # a word belongs to one value
        ("oat milk", ["oats", "oat cream", ""], [(), (), ()]),
        ("a b a c a b", ["a b", "a b", "a a"], [(0, 1), (4, 5), ()]),
        ("", ["x"], [()]),
    ],
)
def test_a_values_words_are_found_in_the_query(query, held, places):
    assert place(query.split(), held) == places


def test_values_are_found_field_after_field():
    found = located(["oat", "milk"], {"product": ["milk"], "brand": ["milk"], "attributes": ["oat"]})
    assert found == {"product": (Value("milk", (1,)),), "brand": (Value("milk"),), "attributes": (Value("oat", (0,)),)}


def test_a_taken_back_answer_is_what_correcting_begins_with():
    given = Given(
        "lease", item(0), Verdict("id0", "q", "ann", "corrected", Shopping(**DRAFT | {"brand": ""}).to_json())
    )
    shown = show(given, Shopping)
    assert ([one.text for one in shown.fields[1].draft], shown.fields[1].edited) == (["oatly"], ())


def test_a_closed_fields_values_are_offered_in_normal_form():
    assert allowed(Shopping) == {"4": [shelf.lower() for shelf in SHELVES]}


# Under another app


def test_it_works_mounted_under_a_prefix(queue):
    outer = FastAPI()
    outer.mount("/review", create_app(queue, Shopping, sign_in()))
    ann = Reviewer(TestClient(outer, base_url="http://localhost"), root="/review")
    assert "Path=/review" in ann.entered.headers["set-cookie"]
    assert ann.entered.headers["refresh"] == "0; url=/review/"
    page = ann.home().text
    for path in re.findall(r'(?:href|src|action)="(/[^"]*)"', page):
        assert path.startswith("/review/")
    assert ann.client.get(re.search(r'src="([^"]+)"', page)[1]).status_code == 200
    assert ann.post("/verdict", lease=ann.leases[0], decision="right").status_code == 200
    ann.home()
    assert ann.post("/undo", script=False, last=ann.last[1]).headers["location"] == "/review/?said=undone"
    assert ann.client.get("/review").status_code == 200


def test_a_task_whose_guardrails_cannot_be_used_fails_at_the_start(queue):
    class Broken(Task):
        """Find the shelf."""

        name: ClassVar[str] = "broken"
        shelf: Annotated[str, InTaxonomy([])] = Field(description="its shelf")

    with pytest.raises(SettingsError, match="its taxonomy is empty"):
        create_app(queue, Broken, sign_in())
