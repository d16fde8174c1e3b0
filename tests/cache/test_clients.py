"""The example clients, run as they are against the real service."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cache.serving import serving
from tests.cache.shop import publish_queries

EXAMPLES = Path(__file__).parents[2] / "examples"
TYPES = (": string | undefined", ": string[]", ': Promise<Answer["value"][]>', ": { answers: Answer[] }", ": string")
KEY = "alpha-7f3a9c"


@pytest.fixture(scope="module")
def service(redis_url):
    with serving(redis_url, keys=f"examples:{KEY}") as (http, _):
        yield str(http.base_url)


def client_of(name, folder):
    """The command that runs an example."""
    if name != "client.ts":
        return [sys.executable, EXAMPLES / name] if name == "client.py" else [EXAMPLES / name]
    if not (node := shutil.which("node")):
        pytest.skip("no node on PATH")
    source = (EXAMPLES / name).read_text()  # older ones can't leave the types out by themselves
    start, end = source.index("type Answer"), source.index("};", source.index("type Answer")) + 2
    source = source[:start] + source[end:]
    for annotation in TYPES:
        source = source.replace(annotation, "")
    (folder / "client.mjs").write_text(source)
    return [node, folder / "client.mjs"]


@pytest.mark.parametrize("name", ["client.sh", "client.py", "client.ts"])
def test_an_example_gets_the_answers_and_goes_on_without_the_service(service, client, tmp_path, name):
    publish_queries(client, 1, "milk", "crème & fraîche")
    command = client_of(name, tmp_path)

    def run(url, key):
        environment = os.environ | {"LOOKUP_URL": url, "LOOKUP_KEY": key}
        return subprocess.run(
            [*command, "milk", "crème & fraîche"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    found = run(service, KEY)
    assert found.returncode == 0, found.stderr
    assert "crème & fraîche" in found.stdout
    if name != "client.py":
        lines = [json.loads(line) for line in found.stdout.splitlines()]
        assert [line.get("value", line)["product"] for line in lines] == ["milk", "crème & fraîche"]
    assert "401" in (run(service, "wrong").stderr)
    down = run("http://127.0.0.1:1", KEY)
    assert "Traceback" not in down.stderr
    assert down.stderr
    assert down.returncode == (0 if name != "client.sh" else 7)
