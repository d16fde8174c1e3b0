"""Reviewing: our page against Label Studio and potato, on loopback with the same tasks; and ours as its queue grows.

A tool's start runs from its process to a reviewer's first task; a step is what its own page asks of its server from an
answer to the next task in hand, over one session. The tools take turns, one running at a time. Ours loads as a night
does: it draws the audit from the labels on disk, writes audit.json and fills the queue.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from benchmarks.labelling import CACHE
from benchmarks.peers.label_studio import LabelStudio
from benchmarks.peers.potato import Potato
from benchmarks.peers.serving import Draft, ReviewTool, Round, client, running, say, well
from benchmarks.teacher import fresh_night, spread
from labels.services import free_port

if TYPE_CHECKING:
    from flows.night import Night
    from labels.records import Label

OURS = "ours"
PEERS = (LabelStudio.name, Potato.name)
REVIEWERS = ("ana", "ben", "eve")
FACTS = (
    "organic oat milk 1 l | oatly | plant milk",
    "oat drink barista | oatly | plant milk",
    "oats | quaker | cereals",
)
STILLHOUSE = Path(sys.executable).with_name("stillhouse")
BROKEN = (RuntimeError, OSError, httpx.HTTPError, subprocess.SubprocessError)


def run(
    rounds: int = 3, steps: int = 100, tasks: int = 1000, many: int = 100_000, peers: str = CACHE
) -> dict[str, Any]:
    """`X_vs_PEER`: the peer's figure over ours (above 1: ours is ahead), median of `rounds`, with least and greatest.

    `step_vs` is by our page's script, `plain_step_vs` by its forms alone. `step_100k_vs_1k`: ours with `many` queued
    items over ours with `tasks`; `step_half_done_vs_1k`: after half of the many were judged. A peer that can't be run
    has null figures.
    """
    begun = os.getloadavg()
    with TemporaryDirectory() as work:
        folder = Path(peers).expanduser()
        ours, studio = Stillhouse(Path(work) / OURS), LabelStudio(folder, Path(work) / "label_studio")
        tools: list[ReviewTool] = [ours, studio, Potato(folder, Path(work) / "potato")]
        firsts, held = _contest(tools, drafts_of(tasks), rounds, steps)
        figures = _compared(held)
        grown = _growth(Path(work) / "grown", rounds, steps, tasks, many)
    figures |= grown | {name: _absolute(firsts[name], held[name]) for name in held}
    load = [[round(one, 1) for one in each] for each in (begun, os.getloadavg())]
    return figures | {"rounds": rounds, "steps": steps, "tasks": tasks, "load_average_before_after": load}


def drafts_of(count: int) -> list[Draft]:
    """What the peers are given: the queries that ours has, and their answers in words."""
    return [Draft(label.query, ", ".join(f"{k}: {v}" for k, v in _value(label).items())) for label in labels_of(count)]


def labels_of(count: int) -> list["Label"]:
    """Accepted labels of the built-in task, on distinct invented queries."""
    from demo.brands import ADJECTIVES, NOUNS
    from demo.words import ATTRIBUTES, PRODUCTS
    from labels.records import Label
    from labels.semantic_roles import SemanticRoles

    rng, made = random.Random(5), []
    for number in range(count):
        product, attribute = rng.choice(PRODUCTS), rng.choice(ATTRIBUTES)
        brand = f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
        value = SemanticRoles(product=product, brand=brand, attributes=[attribute]).normalised().to_json()
        sure = rng.uniform(0.5, 1.0)
        made.append(
            Label(
                identity=f"label{number}",
                query=f"{attribute} {product} {brand} {number}",
                status="accepted",
                value=value,
                confidence={"product": sure, "brand": 0.9, "attributes": 0.8},
                reason="",
                raw=value,
                facts=FACTS,
                scores=(0.8, 0.7, 0.5),
                task=SemanticRoles.name,
                task_version=SemanticRoles.version(),
                model="none",
                prompt="none",
                night="bench",
                tokens_in=74,
                tokens_out=20,
            )
        )
    return made


class Stillhouse:
    """Ours: a work folder for each start, all of it as a first night leaves it."""

    name = OURS

    def __init__(self, folder: Path) -> None:
        """All lies in `folder`."""
        self.folder, self.times = folder, 0

    def first(self, drafts: Sequence[Draft]) -> float:
        """A start like any other: it has nothing to set up."""
        return self.round(drafts, 1).start

    def round(self, drafts: Sequence[Draft], steps: int) -> Round:
        """Load, start, and work by the page's script, then by its forms."""
        self.times += 1
        work = self.folder / str(self.times)
        night, load = filled(work, len(drafts))
        with ExitStack() as stack:
            page = Page.open(work, stack)
            memory = page.memory()
            taken = [page.step() for _ in range(steps)]
            plain = [page.plain_step() for _ in range(steps)]
        given = len(night.warehouse.said.all())
        if given != 2 * steps:
            raise RuntimeError(f"{given} verdicts lie on disk of {2 * steps}")
        return Round(page.seconds, memory, load, taken, plain)


@dataclass
class Page:
    """A reviewer at `stillhouse review`, with the form of the item they look at."""

    browser: httpx.Client
    seconds: float
    memory: Callable[[], float]
    form: dict[str, str]

    @classmethod
    def open(cls, work: Path, stack: ExitStack) -> "Page":
        """Start the page's process, sign in by the reviewer's link, fetch the first item. `stack` stops it."""
        browser, sign_in = client(port := free_port()), _link(work)

        def served() -> bool:
            return browser.get(sign_in).is_success and browser.get("/").is_success

        command: list[str | Path] = [STILLHOUSE, "review", *_settings(work), "--port", str(port), "--no-open"]
        tool = stack.enter_context(running(command, work, {}, served))
        return cls(browser, tool.seconds, tool.memory, _form(well(browser.get("/")).text))

    def step(self) -> float:
        """Seconds of an answer as the script sends it: what comes back holds the next item, and the one after."""
        sent = self.form | {"decision": "right", "seconds": "3.20"}
        start = time.perf_counter()
        body = well(self.browser.post("/verdict", data=sent, headers={"Accept": "application/json"})).json()
        seconds = time.perf_counter() - start
        self._go_on(body["items"][0])
        return seconds

    def plain_step(self) -> float:
        """Seconds of an answer as a browser without scripts sends it, and of the page that it is led to."""
        sent = self.form | {"decision": "right"}
        start = time.perf_counter()
        told = self.browser.post("/verdict", data=sent)
        page = well(self.browser.get(told.headers["Location"])).text if told.is_redirect else well(told).text
        seconds = time.perf_counter() - start
        self._go_on(page)
        return seconds

    def _go_on(self, html: str) -> None:
        before, self.form = self.form["lease"], _form(html)
        if self.form["lease"] == before:
            raise RuntimeError("our page gave the same item again")


class _Form(HTMLParser):
    """The fields of the first form that answers an item."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the field, where it is one."""
        found = dict(attrs)
        if tag == "form":
            self.within = "answer" in (found.get("class") or "") and "lease" not in self.fields
        elif self.within and tag in ("input", "textarea") and (name := found.get("name")):
            self.fields[name] = found.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        """The form's end."""
        self.within = self.within and tag != "form"


def filled(work: Path, count: int) -> tuple["Night", float]:
    """A night whose queue holds `count` labels, and the seconds from its labels on disk to that queue."""
    import pyarrow as pa

    from flows.review import sample_labels
    from flows.settings import load_settings
    from labels.files import write_parquet

    changes = {"work": str(work), "review.sample": count, "review.active": 0, "review.reviewers": list(REVIEWERS)}
    labels = labels_of(count)
    night = fresh_night(load_settings("laptop", changes, environment={}), [label.query for label in labels])
    night.warehouse.add_labels(labels)
    write_parquet(night.folder / "requests.parquet", pa.table({"identity": [one.identity for one in labels]}))
    start = time.perf_counter()
    sample_labels(night)
    return night, time.perf_counter() - start


def _contest(
    tools: Sequence[ReviewTool], drafts: Sequence[Draft], rounds: int, steps: int
) -> tuple[dict[str, float], dict[str, list[Round]]]:
    """Each tool's first start and its rounds, taking turns at going first. What can't be run is told and left out."""
    firsts: dict[str, float] = {}
    held: dict[str, list[Round]] = {tool.name: [] for tool in tools}
    for turn in range(-1, rounds):
        for tool in [*tools[turn % len(tools) :], *tools[: turn % len(tools)]]:
            if tool.name not in held:
                continue
            try:
                if turn < 0:
                    firsts[tool.name] = tool.first(drafts)
                else:
                    held[tool.name].append(tool.round(drafts, steps))
                    say(_in_words(tool.name, held[tool.name][-1]))
            except BROKEN as error:
                if tool.name == OURS:
                    raise
                say(f"{tool.name} can't be run here: {error}")
                del held[tool.name]
    return firsts, held


def _compared(held: dict[str, list[Round]]) -> dict[str, Any]:
    """Each peer's figure over ours, round by round."""
    parts: dict[str, Callable[[Round], float | None]] = {
        "start": lambda one: one.start,
        "step": lambda one: statistics.median(one.steps),
        "memory": lambda one: one.memory,
        "load": lambda one: one.load,
        "load_and_start": lambda one: (one.load or 0.0) + one.start,
        "plain_step": lambda one: statistics.median(one.plain or one.steps),
    }
    figures: dict[str, Any] = {}
    for peer in PEERS:
        for part, of in parts.items():
            pairs = [(of(theirs), of(ours)) for theirs, ours in zip(held.get(peer, []), held[OURS], strict=False)]
            _add(figures, f"{part}_vs_{peer}", [theirs / ours for theirs, ours in pairs if theirs and ours])
    if Potato.name in held:
        say("load_vs_potato is null: potato reads its tasks at its start; load_and_start_vs_potato compares both sums")
    return figures


def _growth(work: Path, rounds: int, steps: int, few: int, many: int) -> dict[str, Any]:
    """Our step with a long queue over the same with a short one, in turns; both pages run all the time."""
    filled(work / "few", few)
    night, load = filled(work / "many", many)
    with ExitStack() as stack:
        short, long = Page.open(work / "few", stack), Page.open(work / "many", stack)
        queued = [_turns(short, long, turn, steps) for turn in range(rounds)]
        _judge_half(night)
        half_done = [_turns(short, long, turn, steps) for turn in range(rounds)]
        memory = long.memory()
    figures: dict[str, Any] = {}
    _add(figures, "step_100k_vs_1k", [two / one for one, two in queued])
    _add(figures, "step_half_done_vs_1k", [two / one for one, two in half_done])
    found = {"items": many, "load_s": round(load, 2), "memory_mib": round(memory), "start_s": round(long.seconds, 2)}
    found["step_ms"] = _ms([two for _, two in queued])
    found["step_half_done_ms"] = _ms([two for _, two in half_done])
    return figures | {"ours_100k": found}


def _turns(short: Page, long: Page, turn: int, steps: int) -> tuple[float, float]:
    """Median seconds of a step on either page; they go by tens, so that both meet the same machine."""
    taken: dict[int, list[float]] = {0: [], 1: []}
    for batch in range(0, steps, 10):
        for side in (0, 1) if (batch // 10 + turn) % 2 else (1, 0):
            taken[side] += [(short, long)[side].step() for _ in range(min(10, steps - batch))]
    return statistics.median(taken[0]), statistics.median(taken[1])


def _judge_half(night: "Night") -> None:
    """Half of the queue judged by three reviewers over the last weeks, as a later night finds it."""
    from flows.review import queue_of
    from labels.records import Verdict

    queue = queue_of(night)
    items = queue.items()
    judged = [item.label for item in items if not item.overlap][-len(items) // 2 :]
    begun, each = datetime.now(UTC) - timedelta(days=60), timedelta(days=50) / len(judged)
    night.warehouse.add_verdicts(
        [
            Verdict(
                identity=label.identity,
                query=label.query,
                reviewer=REVIEWERS[number % len(REVIEWERS)],
                decision="right",
                value=label.value,
                draft=label.value,
                seconds=4.0,
                task=label.task,
                task_version=label.task_version,
                simulated=False,
                created=(begun + number * each).isoformat(timespec="microseconds"),
            )
            for number, label in enumerate(judged)
        ]
    )
    queue.fill(items, night.id)


def _absolute(first: float, rounds: Sequence[Round]) -> dict[str, Any]:
    loads = [one.load for one in rounds if one.load is not None]
    found = {
        "first_start_s": round(first, 2),
        "start_s": _median([one.start for one in rounds]),
        "memory_mib": round(statistics.median(one.memory for one in rounds)),
        "load_s": _median(loads) if loads else None,
        "step_ms": _ms([statistics.median(one.steps) for one in rounds]),
    }
    if all(one.plain for one in rounds):
        found["plain_step_ms"] = _ms([statistics.median(one.plain) for one in rounds])
    return found


def _add(figures: dict[str, Any], name: str, ratios: Sequence[float]) -> None:
    """The median under `name`, least and greatest beside it; null where there are none."""
    found = spread(ratios) if ratios else None
    figures[name] = found["median"] if found else None
    figures[f"{name}_range"] = [found["min"], found["max"]] if found else None


def _median(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds), 3)


def _ms(seconds: Sequence[float]) -> float:
    return round(1000 * statistics.median(seconds), 2)


def _in_words(name: str, one: Round) -> str:
    load = "" if one.load is None else f", load {one.load:.2f} s"
    plain = f", by forms {_ms(one.plain)} ms" if one.plain else ""
    return f"{name:<13} start {one.start:6.2f} s, {one.memory:5.0f} MiB{load}, step {_ms(one.steps)} ms{plain}"


def _settings(work: Path) -> list[str]:
    return ["--work", str(work), "--set", f"review.reviewers={json.dumps(REVIEWERS)}"]


def _link(work: Path) -> str:
    """The first reviewer's link, as a path."""
    command = [str(STILLHOUSE), "review", "links", *_settings(work), "--json"]
    told = subprocess.run(command, cwd=work, check=True, stdout=subprocess.PIPE, text=True)
    address = urlsplit(json.loads(told.stdout)[0]["link"])
    return f"{address.path}?{address.query}"


def _form(html: str) -> dict[str, str]:
    """The fields that answer the item in `html`. Raises RuntimeError where it holds none: the queue is at its end."""
    reader = _Form()
    reader.feed(html)
    if "lease" not in reader.fields:
        raise RuntimeError("our page shows no item: ask for fewer rounds or steps")
    return reader.fields


def _value(label: "Label") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(label.value or "{}")
    return found
