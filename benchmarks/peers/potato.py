"""potato 2.12.1: what its annotation page asks of its server at Next, up to the page of the next task.

Recorded from its page in a browser: it saves the answer, moves on, and loads the page anew. What the new page fetches
then (spans, colours, highlights, scripts) is left out. Its tasks are a file that it reads at its start.
"""

import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peers import environment
from benchmarks.peers.serving import Draft, Round, client, running, well
from labels.services import free_port

CONFIG = """annotation_task_name: review
task_dir: .
output_annotation_dir: answers
data_files: [tasks.jsonl]
item_properties: {id_key: id, text_key: text}
annotation_schemes:
  - annotation_type: radio
    name: decision
    description: Is the answer right?
    labels: [right, wrong, cant_tell]
secret_key: only of the benchmark
persist_sessions: true
authentication: {user_config_path: users.jsonl}
"""
ACCOUNT = {"email": "ana", "pass": "only-of-the-benchmark", "action": "signup"}
INSTANCE = re.compile(r'id="instance_id"[^>]*value="([^"]+)"')
MOVE = {"X-Potato-Navigation": "1"}  # its page's header: answer with the next task's id alone


class Potato:
    """One project with one reviewer; a session that lasts over restarts."""

    name = "potato"

    def __init__(self, environments: Path, folder: Path) -> None:
        """`environments` holds the peers' virtual environments; all else lies in `folder`."""
        self.environments, self.folder = environments, folder
        self.port = free_port()
        self.browser = client(self.port)

    def first(self, drafts: Sequence[Draft]) -> float:
        """Its first start, with the tasks; then the reviewer registers."""
        environment(self.name, self.environments)
        self.folder.mkdir(parents=True)
        (self.folder / "config.yaml").write_text(CONFIG)
        tasks = [{"id": f"task{n}", "text": f"{one.query}: {one.answer}"} for n, one in enumerate(drafts)]
        (self.folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
        with running(self._command(), self.folder, {}, lambda: self.browser.get("/").is_success) as tool:
            well(self.browser.post("/register", data=ACCOUNT))
            self._step(self._shown())  # a reviewer who has said nothing is forgotten at the end
        return tool.seconds

    def round(self, drafts: Sequence[Draft], steps: int) -> Round:
        """Start and go on where the reviewer was. `drafts` are those of the first start."""
        with running(self._command(), self.folder, {}, lambda: bool(self._shown())) as tool:
            memory = tool.memory()
            task, taken = self._shown(), []
            for _ in range(steps):
                task, seconds = self._step(task)
                taken.append(seconds)
        return Round(tool.seconds, memory, None, taken)

    def _command(self) -> list[str | Path]:
        program = environment(self.name, self.environments).with_name("potato")
        return [program, "start", "config.yaml", "--host", "127.0.0.1", "--port", str(self.port)]

    def _shown(self) -> str:
        """The task on the reviewer's page; "" where it shows none."""
        answer = self.browser.get("/annotate")
        return _instance(answer.text) if answer.is_success else ""

    def _step(self, task: str) -> tuple[str, float]:
        """Answer the task; the next one, and the seconds until its page was there."""
        said = {
            "instance_id": task,
            "annotations": {"decision:right": "right"},
            "cleared_schemas": [],
            "span_annotations": [],
            "client_timestamp": datetime.now(UTC).isoformat(),
            "response_time_seconds": 3.2,
        }
        moved = {"action": "next_instance", "instance_id": task}
        start = time.perf_counter()
        saved = well(self.browser.post("/updateinstance", json=said)).json()
        following: str = well(self.browser.post("/annotate", json=moved, headers=MOVE)).json()["instance_id"]
        page = well(self.browser.get("/annotate")).text
        seconds = time.perf_counter() - start
        if saved.get("status") == "error" or following == task or _instance(page) != following:
            raise RuntimeError(f"potato did not save {task} and move on: {saved}")
        return following, seconds


def _instance(page: str) -> str:
    found = INSTANCE.search(page)
    return found.group(1) if found else ""
