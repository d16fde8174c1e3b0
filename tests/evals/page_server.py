"""The review page as a process: `python tests/evals/page_server.py FOLDER PORT`, and what its tests share.

FOLDER holds the queue; it is served for "ann" and "bo", whose links are signed with SECRET.
"""

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar

import httpx
import uvicorn
from pydantic import Field

from evals.item import Item
from evals.page.app import create_app
from evals.page.sign_in import SignIn
from evals.queue import ReviewQueue
from labels.guardrails import Grounded, InTaxonomy
from labels.records import Example, Label
from labels.task import Task
from labels.verdicts import Verdicts

SECRET = b"only of the tests"
SHELVES = ["Dairy", "Bakery", "Plant milk", "Drinks", "Coffee & tea", "Snacks"]


class Shopping(Task):
    """Find what a shopper's query names."""

    name: ClassVar[str] = "shopping"
    product: Annotated[str, Grounded()] = Field(description="the thing wanted")
    brand: Annotated[str, Grounded()] = Field(description="its maker")
    attributes: Annotated[list[str], Grounded()] = Field(description="its other qualities")
    category: Annotated[list[str], InTaxonomy(SHELVES)] = Field(description="its shelves")


def sign_in():
    return SignIn(SECRET, ["ann", "bo"])


def open_queue(folder):
    return ReviewQueue(Verdicts(Path(folder) / "verdicts.sqlite"))


def item(number, query="organic oat milk oatly 1l", part="audit", answer=None, label=None, **other):
    """An item by hand; `label` overrides the label's fields, `other` the item's."""
    value = Shopping(product="oat milk", brand="oatly", attributes=["organic"], category=["plant milk"]).to_json()
    example = Example("soy milk alpro", '{"product":"soy milk","brand":"alpro","attributes":[],"category":[]}', 0.66)
    shown = {
        "identity": f"id{number}", "query": query, "status": "accepted", "value": value, "reason": "", "raw": value,
        "confidence": {"product": 0.97, "brand": 0.91, "attributes": 0.62, "category": 0.48},
        "facts": ("oat drink organic 1 l | oatly | plant milk", "oat milk barista 1 l | oatly | plant milk"),
        "scores": (0.83, 0.71), "examples": (example,), "task": Shopping.name, "task_version": Shopping.version(),
        "model": "m", "prompt": "p", "night": "n1", "tokens_in": 9, "tokens_out": 4,
    }  # fmt: skip
    given = {"label": Label(**shown | (label or {})), "part": part, "band": "head", "traffic": 1234.0, "answer": answer}
    return Item(**given | other)


@contextmanager
def serving(folder, port):
    """The page as a process of its own; entered once it answers."""
    process = subprocess.Popen([sys.executable, __file__, str(folder), str(port)])
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < until
            try:
                httpx.get(f"http://127.0.0.1:{port}/sign-in")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def main(folder, port):
    app = create_app(open_queue(folder), Shopping, sign_in())
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
