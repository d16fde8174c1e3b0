"""Anything that may be sent to the service, good and bad, made by schemathesis from its own description.

More of it by hand, against a service that runs: st run http://127.0.0.1:8017/openapi.json --max-examples 2000
"""

import subprocess
import sys
from pathlib import Path

from tests.cache.serving import ended, serving
from tests.cache.shop import publish_queries

ST = Path(sys.executable).with_name("st")  # not its pytest plugin, which takes seconds of every run of the tests


def test_the_service_does_what_its_description_says_whatever_it_is_sent(client, redis_url, tmp_path):
    publish_queries(client, 1, "milk")
    with serving(redis_url) as (http, process):
        command = [ST, "run", f"{http.base_url}/openapi.json", "--max-examples", "40", "--generation-deterministic"]
        done = subprocess.run(
            [*command, "--no-color"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout
        assert "Tested: 5" in done.stdout, done.stdout  # all but the description itself
        assert not [line for line in ended(process) if '"level": "error"' in line]
