"""The page in a real browser: Debian's chromium, driven by Playwright. Set STILLHOUSE_SHOTS to keep screenshots."""

import json
import os
import resource
import shutil
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from labels.services import free_port
from tests.evals.page_server import Shopping, item, open_queue, serving, sign_in

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
if not BROWSER:
    pytest.skip("no chromium on this machine: apt-get install chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
READY = "#place > article[data-ready]"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SMALL = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
# What Chromium itself writes to the console of an answer that the page expects and deals with.
EXPECTED = ("Failed to load resource",)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        yield engine.chromium.launch(executable_path=BROWSER, args=ARGS)


class Desk:
    """A queue, its server, and browser windows that note every complaint."""

    def __init__(self, folder, browser, stack):
        self.folder, self.browser, self.stack, self.port = folder, browser, stack, free_port()
        self.queue, self.complaints = open_queue(folder), []
        self.url = f"http://127.0.0.1:{self.port}/"

    def fill(self, *items):
        self.queue.fill(items, "n1")
        self.start()

    def start(self):
        self.process = self.stack.enter_context(serving(self.folder, self.port))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def sign_in(self, page):
        page.goto(f"{self.url}sign-in?token={sign_in().token('ann')}")
        page.wait_for_url(self.url)

    def window(self, enter=True, **options):
        context = self.stack.enter_context(
            self.browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = context.new_page()
        page.on("console", lambda said: self.note(said.type, said.text))
        page.on("pageerror", lambda error: self.note("error", str(error)))
        if enter:
            self.sign_in(page)
            page.wait_for_selector(READY)
        return page

    def note(self, kind, words):
        if kind in ("error", "warning") and not words.startswith(EXPECTED):
            self.complaints.append(words)

    def said(self):
        return self.queue.verdicts.all()

    def verdict(self):
        [verdict] = self.said()
        return json.loads(verdict.value)


@pytest.fixture
def desk(tmp_path, browser):
    with ExitStack() as stack:
        desk = Desk(tmp_path / "queue", browser, stack)
        yield desk
        assert desk.complaints == []


@pytest.fixture
def shoot(tmp_path):
    folder = Path(os.environ.get("STILLHOUSE_SHOTS") or tmp_path)

    def shoot(page, name, **options):
        page.screenshot(path=folder / f"{name}.png", **options)

    return shoot


def query(page):
    """What the query says, without the tags under its slots."""
    return page.evaluate("() => [...document.querySelectorAll('#place .w')].map((word) => word.textContent).join(' ')")


def press(page, *keys):
    """Keys as a person presses them: once the query has been there for a moment."""
    page.wait_for_selector(READY)
    for key in keys:
        page.keyboard.press(key)


def status(page, words):
    page.get_by_role("status").get_by_text(words, exact=True).wait_for()


def judge(page, key, then):
    """One verdict by one key; `then` is what the page says of it. Back once the next query is shown."""
    before = page.get_attribute("#place > article", "data-lease")
    press(page, key)
    page.wait_for_function("(lease) => document.querySelector('#place > article').dataset.lease !== lease", arg=before)
    status(page, then)


def test_twenty_queries_by_keyboard_alone_with_the_server_killed_in_between(desk):
    desk.fill(*[item(n, f"organic oat milk oatly {n}") for n in range(20)])
    page = desk.window()
    for _ in range(6):
        judge(page, "Enter", "Saved: right.")
    judge(page, "c", "Saved: can't tell.")
    press(page, "e", "3", "End", "Space")  # "7" is an attribute too
    judge(page, "Enter", "Saved: corrected.")
    judge(page, "a", "Saved: right.")
    press(page, "u")
    status(page, "Taken back. Answer it again.")
    assert query(page) == "organic oat milk oatly 8"
    judge(page, "c", "Saved: can't tell.")
    page.reload()
    page.wait_for_selector(READY)
    assert query(page) == "organic oat milk oatly 9"
    judge(page, "Enter", "Saved: right.")
    desk.kill()
    press(page, "Enter")
    page.get_by_role("alert").get_by_text("Your answer is kept on this page and is sent again by itself").wait_for()
    assert query(page) == "organic oat milk oatly 10"  # the one whose answer is on its way
    desk.start()
    status(page, "Saved: right.")
    assert page.get_by_role("alert").count() == 0
    for _ in range(8):
        judge(page, "Enter", "Saved: right.")
    press_last(page)
    said = desk.said()
    assert sorted(verdict.query for verdict in said) == sorted(f"organic oat milk oatly {n}" for n in range(20))
    by_query = {verdict.query.split()[-1]: verdict for verdict in said}
    assert [by_query[n].decision for n in ("6", "7", "8", "9")] == ["cant_tell", "corrected", "cant_tell", "right"]
    assert json.loads(by_query["7"].value)["attributes"] == ["organic", "7"]
    assert all(verdict.seconds > 0 for verdict in said)


def press_last(page):
    press(page, "Enter")
    page.get_by_role("heading", name="All done").wait_for()


def test_an_answer_that_the_server_saved_before_it_died_is_not_saved_twice(desk):
    desk.fill(item(0), item(1))
    page = desk.window()

    def die_after_saving(route):
        route.fetch()
        desk.kill()
        route.abort()

    page.route("**/verdict", die_after_saving, times=1)
    press(page, "Enter")
    page.get_by_role("alert").get_by_text("can't be reached").wait_for()
    assert len(desk.said()) == 1
    desk.start()
    status(page, "Saved: right.")
    assert len(desk.said()) == 1


def test_on_a_full_disk_the_page_keeps_what_was_typed_and_tries_again(desk):
    desk.fill(item(0), item(1))
    page = desk.window()
    press(page, "e", "2")
    page.get_by_role("textbox", name="brand").fill("organic")
    free = resource.prlimit(desk.process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("Not saved: the server's disk is full").wait_for()
    assert page.get_by_role("textbox", name="brand").input_value() == "organic"
    assert desk.said() == []
    resource.prlimit(desk.process.pid, resource.RLIMIT_FSIZE, free)
    page.get_by_role("button", name="Try again").click()
    status(page, "Saved: corrected.")
    assert desk.verdict()["brand"] == "organic"


def test_after_the_session_ended_the_answer_is_still_there_to_be_sent(desk):
    desk.fill(item(0), item(1))
    page = desk.window()
    page.context.clear_cookies()
    press(page, "Enter")
    page.get_by_role("alert").get_by_text("You are not signed in").wait_for()
    other = page.context.new_page()
    desk.sign_in(other)
    page.get_by_role("button", name="Try again").click()
    status(page, "Saved: right.")
    assert len(desk.said()) == 1


def test_a_link_in_a_mail_on_another_site_signs_in(desk):
    desk.fill(item(0))
    page = desk.window(enter=False)
    link = f"{desk.url}sign-in?token={sign_in().token('ann')}"
    page.route(
        "http://mail.example/",
        lambda route: route.fulfill(body=f"<a href='{link}'>review</a>", content_type="text/html"),
    )
    page.goto("http://mail.example/")
    page.get_by_role("link", name="review").click()
    page.wait_for_selector(READY)
    assert page.url == desk.url  # without the token


def test_a_double_click_on_accept_judges_one_query(desk):
    desk.fill(*[item(n) for n in range(3)])
    page = desk.window()
    page.get_by_role("button", name="Accept").dblclick()
    status(page, "Saved: right.")
    page.wait_for_selector(READY)
    assert len(desk.said()) == 1


def test_words_are_marked_by_mouse_and_a_marked_word_leaves_its_field(desk):
    desk.fill(item(0, "gluten free oat milk oatly"))
    page = desk.window()
    press(page, "e")
    words = page.get_by_role("option")
    page.get_by_role("button", name="attributes").click()
    words.nth(0).hover()
    page.mouse.down()
    words.nth(1).hover()
    page.mouse.up()
    page.get_by_role("button", name="brand").click()
    words.nth(4).click()  # off
    words.nth(3).click()  # from the product
    page.get_by_role("button", name="Save").click()
    status(page, "Saved: corrected.")
    # "organic" of the draft is not in this query, and stays
    assert desk.verdict() == {
        "product": "oat", "brand": "milk", "attributes": ["gluten free", "organic"], "category": ["plant milk"]
    }  # fmt: skip


def test_what_is_typed_is_found_in_the_query(desk):
    desk.fill(item(0))
    page = desk.window()
    press(page, "e")
    for words, tags in (
        ("oat", ["attributes", "product", "brand"]),
        ("Milk ", ["attributes", "product", "brand"]),
        ("oat cream", ["attributes", "brand"]),
        ("oatly", ["attributes", "brand"]),  # the brand's
        ("milk oatly", ["attributes", "brand"]),
    ):
        page.get_by_role("textbox", name="product").fill(words)
        assert page.locator(".tag").all_inner_texts() == tags
    page.get_by_role("textbox", name="brand").fill("")
    page.get_by_role("textbox", name="product").fill("milk oatly")
    assert page.locator(".slot.f1 .words").inner_text() == "milk oatly"


def test_words_are_marked_by_a_finger(desk):
    empty = Shopping(product="", brand="", attributes=[], category=[]).to_json()
    desk.fill(item(0, "gluten free bread", label={"value": empty}))
    page = desk.window(**PHONE)
    page.get_by_role("button", name="Correct").tap()
    page.get_by_role("button", name="attributes").tap()
    boxes = [page.get_by_role("option").nth(n).bounding_box() for n in range(3)]
    spots = [{"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2} for box in boxes]
    finger = page.context.new_cdp_session(page)
    touch = "Input.dispatchTouchEvent"
    finger.send(touch, {"type": "touchStart", "touchPoints": [spots[0]]})
    for share in (0.25, 0.5, 0.75, 1):
        x = spots[0]["x"] + share * (spots[1]["x"] - spots[0]["x"])
        finger.send(touch, {"type": "touchMove", "touchPoints": [{"x": x, "y": spots[0]["y"]}]})
    finger.send(touch, {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(600)  # until then the browser takes a tap for the end of a fling
    page.get_by_role("button", name="product").tap()
    page.get_by_role("option").nth(2).tap()
    page.get_by_role("button", name="Save").tap()
    status(page, "Saved: corrected.")
    assert desk.verdict() == {"product": "bread", "brand": "", "attributes": ["gluten free"], "category": []}


def test_words_are_marked_by_keys_several_as_one_value(desk):
    desk.fill(
        item(
            0,
            "gluten free organic bread",
            label={"value": Shopping(product="", brand="", attributes=[], category=[]).to_json()},
        )
    )
    page = desk.window()
    press(
        page,
        "e",
        "3",
        "Shift+ArrowRight",
        "Shift+ArrowRight",
        "Shift+ArrowLeft",
        "ArrowRight",
        "Space",
        "1",
        "End",
        "Space",
    )
    assert page.locator(".tag").all_inner_texts() == ["attributes", "attributes", "product"]
    page.keyboard.press("Enter")
    status(page, "Saved: corrected.")
    assert desk.verdict() == {"product": "bread", "brand": "", "attributes": ["gluten free", "organic"], "category": []}


def test_in_a_query_from_right_to_left_the_left_key_goes_on(desk):
    empty = Shopping(product="", brand="", attributes=[], category=[]).to_json()
    desk.fill(item(0, "חלב שיבולת אורגני", label={"value": empty}))
    page = desk.window()
    press(page, "e", "Shift+ArrowLeft", "Enter")
    status(page, "Saved: corrected.")
    assert desk.verdict()["product"] == "חלב שיבולת"


def test_an_allowed_value_is_searched_and_taken_by_keys(desk):
    desk.fill(item(0))
    page = desk.window()
    press(page, "e")
    box = page.get_by_role("combobox", name="category, value 2")
    box.press_sequentially("d")
    assert (
        page.get_by_role("listbox", name="Allowed values").get_by_role("option").all_inner_texts()
        == ["dairy", "drinks", "bread"][:2]
    )
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert box.input_value() == "drinks"
    assert page.get_by_role("combobox", name="category, value 3").is_visible()
    page.keyboard.press("Enter")
    status(page, "Saved: corrected.")
    assert desk.verdict()["category"] == ["drinks", "plant milk"]


def test_a_doubted_value_is_marked_and_taken_when_saved_again(desk):
    desk.fill(item(0))
    page = desk.window()
    press(page, "e")
    page.get_by_role("textbox", name="brand").fill("zzzzz")
    page.keyboard.press("Enter")
    page.get_by_text("“zzzzz” stands neither in the query nor in the facts.").wait_for()
    assert page.evaluate("document.activeElement.name") == "value.brand"
    assert page.get_by_role("textbox", name="brand").get_attribute("aria-invalid") == "true"
    page.keyboard.press("Enter")
    status(page, "Saved: corrected.")
    assert desk.verdict()["brand"] == "zzzzz"


def test_escape_leaves_correcting_and_the_draft_is_what_is_accepted(desk):
    desk.fill(item(0))
    page = desk.window()
    press(page, "e", "2", "End", "Space", "n")
    page.keyboard.type("1 2 c")
    press(page, "Escape", "Escape")  # to the words, then out
    assert page.locator(".tag").all_inner_texts() == ["attributes", "product", "brand"]
    page.keyboard.press("Enter")
    status(page, "Saved: right.")
    assert desk.verdict()["brand"] == "oatly"
    assert desk.said()[0].note == "1 2 c"


def test_skip_note_and_the_dialog_of_keys(desk):
    desk.fill(item(0, "one milk"), item(1, "two milk"))
    page = desk.window()
    judge(page, "s", "Skipped.")
    assert query(page) == "two milk"
    press(page, "?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    press(page, "a")  # nothing, while it is open
    press(page, "Escape", "n")
    page.keyboard.type("scan a c u ?")
    page.keyboard.press("Escape")
    judge(page, "Enter", "Saved: right.")
    assert query(page) == "one milk"
    assert [verdict.note for verdict in desk.said()] == ["scan a c u ?"]


@pytest.mark.parametrize("options", [PHONE, SMALL], ids=["390", "360"])
def test_on_a_phone_all_is_in_reach_and_nothing_overflows(desk, options, shoot):
    desk.fill(item(0, "organic oat milk oatly " + "x" * 300), item(1))
    page = desk.window(**options)
    width = options["viewport"]["width"]
    shoot(page, f"phone-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("Accept", "Correct", "Can't tell", "Skip"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= options["viewport"]["height"]
    page.get_by_role("button", name="Correct").tap()
    page.get_by_role("button", name="attributes").tap()
    page.get_by_role("option").nth(4).scroll_into_view_if_needed()
    page.get_by_role("option").nth(4).tap()
    shoot(page, f"phone-{width}-edit")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("button", name="Save").tap()
    status(page, "Saved: corrected.")
    assert desk.verdict()["attributes"] == ["organic", "x" * 300]


def test_everything_has_a_name_for_those_who_hear_the_page(desk):
    desk.fill(item(0), item(1, part="active", reason="they disagree"))
    page = desk.window()
    heard = page.locator("body").aria_snapshot()
    for part in (
        "banner", 'navigation "Pages"', "main", 'article "Query"', 'group "Your answer"', 'button "Accept',
        'progressbar "0 of 2 answers given"', 'region "What the teacher saw"', 'row "product oat milk 97%"',
        'table "The teacher\'s answer, field by field"', "status",
    ):  # fmt: skip
        assert part in heard
    judge(page, "Enter", "Saved: right.")
    assert page.evaluate("document.activeElement.id") == "query"  # so that the next query is read out
    press(page, "e")
    heard = page.locator("main").aria_snapshot()
    for part in (
        'listbox "Words of the query, to mark as product"',
        'option "oat, product" [selected]',
        'option "oatly, brand"',
    ):
        assert part in heard
    assert page.evaluate(UNNAMED) == []


def test_one_sees_where_the_focus_is(desk):
    desk.fill(item(0))
    page = desk.window()
    seen = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        style = (
            "() => [document.activeElement.textContent.trim(), getComputedStyle(document.activeElement).outlineStyle]"
        )
        words, outline = page.evaluate(style)
        if words and page.evaluate("document.activeElement !== document.body"):
            assert outline == "solid"
            seen.add(words.split()[0])
    assert {"Recent", "Keys", "Note", "Accept", "Correct", "Can't", "Skip"} <= seen


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(desk, theme, shoot):
    """WCAG AA: 4.5 to 1 for text; 3 to 1 where it is large."""
    desk.fill(item(0), item(1))
    page = desk.window(color_scheme=theme)
    shoot(page, f"desktop-{theme}")
    assert page.evaluate(TOO_FAINT) == []
    press(page, "e", "3", "End", "Space")
    shoot(page, f"edit-{theme}", full_page=True)
    assert page.evaluate(TOO_FAINT) == []
    page.keyboard.press("Enter")
    status(page, "Saved: corrected.")
    assert page.evaluate(TOO_FAINT) == []
    page.goto(f"{desk.url}recent")
    shoot(page, f"recent-{theme}")
    assert page.evaluate(TOO_FAINT) == []


UNNAMED = """() => [...document.querySelectorAll('button, input:not([type=hidden]), textarea, a')]
  .filter((one) => one.checkVisibility() && !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
  .map((one) => one.outerHTML)"""

# A canvas reads any colour the browser writes, color-mix included; backgrounds are laid over each other from the page up.
TOO_FAINT = """() => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const paint = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((part) => (part /= 255) <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const faint = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.checkVisibility() || one.closest('.unseen, [disabled], template, datalist, dialog')) continue;
    const style = getComputedStyle(one), behind = [];
    for (let up = one; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
    const [text, back] = [light(paint([...behind, style.color])), light(paint(behind))];
    const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
    const enough = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < enough) faint.push(`${one.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return faint;
}"""


def test_a_hostile_query_runs_nothing_and_its_words_can_be_marked(desk):
    text = "<script>window.hit=1</script> <img/src/onerror=window.hit=1> \u202emilk 🥛 " + "e\u0301" + "\u0301" * 200
    desk.fill(item(0, text), item(1, " ".join(f"w{n}" for n in range(3000)) + " " + "x" * 80_000))
    page = desk.window()
    assert "<script>window.hit=1</script>" in query(page)
    assert page.evaluate("window.hit") is None
    press(page, "e", "2", "End", "Space")
    page.keyboard.press("Enter")
    status(page, "Saved: corrected.")
    page.wait_for_selector(READY)
    box = page.locator("#query").bounding_box()
    assert box["height"] < 400
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    press(page, "e", "2", "ArrowRight", "Space")
    assert page.get_by_role("textbox", name="brand").input_value() == "w1"


def test_without_scripts_one_can_accept_correct_skip_and_undo(desk):
    desk.fill(*[item(n, f"organic oat milk oatly {n}") for n in range(4)])
    page = desk.window(enter=False, java_script_enabled=False)
    desk.sign_in(page)
    page.get_by_role("button", name="Accept").click()
    assert page.get_by_role("status").inner_text() == "Saved: right."
    page.get_by_role("article").get_by_text("Correct it").click()
    page.get_by_role("textbox", name="brand").fill("organic")
    page.get_by_role("textbox", name="brand").press("Enter")  # saves the correction, not the draft
    assert page.get_by_role("status").inner_text() == "Saved: corrected."
    page.get_by_role("button", name="Undo").click()
    assert page.get_by_text("You took back: corrected").is_visible()
    page.get_by_role("button", name="Skip").click()
    assert page.get_by_role("status").inner_text() == "Skipped."
    page.get_by_role("button", name="Can't tell").click()
    assert [verdict.decision for verdict in desk.said()] == ["right", "cant_tell"]


def test_nothing_is_asked_of_any_other_server(desk):
    desk.fill(item(0), item(1))
    page, asked = desk.window(enter=False), []
    page.on("request", lambda request: asked.append(httpx.URL(request.url).host))
    desk.sign_in(page)
    judge(page, "Enter", "Saved: right.")
    page.goto(f"{desk.url}recent")
    assert set(asked) <= {"127.0.0.1", ""}  # "" is the empty icon, a data: address
