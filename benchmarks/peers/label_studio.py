"""Label Studio 1.23.2, on the SQLite file it makes itself: what its label stream asks of its server, and no more.

Recorded from its page in a browser: after Submit it posts the annotation, then asks for the next task; what it asks
besides (label links, progress) nobody waits for, so it is left out. Its calls home are turned off.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.peers import environment
from benchmarks.peers.serving import Draft, Round, client, running, well
from labels.services import free_port

EMAIL, PASSWORD = "ana@example.org", "only-of-the-benchmark"
CONFIG = """<View>
  <Text name="query" value="$query"/>
  <Text name="answer" value="$answer"/>
  <Choices name="decision" toName="query" choice="single">
    <Choice value="right"/><Choice value="wrong"/><Choice value="cant_tell"/>
  </Choices>
</View>"""
RIGHT = {"from_name": "decision", "to_name": "query", "type": "choices", "value": {"choices": ["right"]}}
QUIET = {
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "DJANGO_DB": "sqlite",
    # Left to itself it makes one at random; one that begins with "$" it reads back as none, and sessions end.
    "SECRET_KEY": "only of the benchmark, and long enough for what it signs",
}


class LabelStudio:
    """Projects of the same tasks in one database; a session that lasts over restarts."""

    name = "label_studio"

    def __init__(self, environments: Path, folder: Path) -> None:
        """`environments` holds the peers' virtual environments; all else lies in `folder`."""
        self.environments, self.folder = environments, folder
        self.port, self.project = free_port(), 0
        self.browser = client(self.port)

    def first(self, drafts: Sequence[Draft]) -> float:
        """Its first start makes the database; then sign in, and fill a project for the next start to show."""
        environment(self.name, self.environments)
        self.folder.mkdir(parents=True)
        account = {"LABEL_STUDIO_USERNAME": EMAIL, "LABEL_STUDIO_PASSWORD": PASSWORD}
        command, settings = self._command(), self._settings() | account
        with running(command, self.folder, settings, lambda: self.browser.get("/user/login/").is_success) as tool:
            self._sign_in()
            self._load(drafts)
        return tool.seconds

    def round(self, drafts: Sequence[Draft], steps: int) -> Round:
        """Start, load the tasks as a project of their own, work on them."""
        with running(self._command(), self.folder, self._settings(), lambda: self._next().is_success) as tool:
            memory = tool.memory()
            load = self._load(drafts)
            task = well(self._next()).json()
            taken = []
            for _ in range(steps):
                before = task["id"]
                start = time.perf_counter()
                self._submit(task)
                task = well(self._next()).json()
                taken.append(time.perf_counter() - start)
                if task["id"] == before:
                    raise RuntimeError("Label Studio gave the same task again")
        return Round(tool.seconds, memory, load, taken)

    def _command(self) -> list[str | Path]:
        program = environment(self.name, self.environments).with_name("label-studio")
        return [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.port)]

    def _settings(self) -> dict[str, str]:
        return QUIET | {"LABEL_STUDIO_BASE_DATA_DIR": str(self.folder / "data")}

    def _sign_in(self) -> None:
        form = well(self.browser.get("/user/login/")).text
        found = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', form)
        token = found.group(1) if found else ""
        sent = {"csrfmiddlewaretoken": token, "email": EMAIL, "password": PASSWORD}
        well(self.browser.post("/user/login/", data=sent))

    def _load(self, drafts: Sequence[Draft]) -> float:
        """Seconds to import the tasks, each with its draft as a prediction."""
        project = {"title": "review", "label_config": CONFIG}
        self.project = well(self.browser.post("/api/projects/", json=project)).json()["id"]
        predictions = [{"model_version": "teacher", "result": [RIGHT]}]
        tasks = [{"data": asdict(draft), "predictions": predictions} for draft in drafts]
        start = time.perf_counter()
        done = well(self.browser.post(f"/api/projects/{self.project}/import", json=tasks)).json()
        seconds = time.perf_counter() - start
        if done["task_count"] != len(drafts):
            raise RuntimeError(f"Label Studio imported {done['task_count']} tasks of {len(drafts)}")
        return seconds

    def _next(self) -> httpx.Response:
        which: dict[str, str | int] = {"id": "next_task", "project": self.project}
        return self.browser.post("/api/dm/actions", params=which, json={"project": str(self.project)})

    def _submit(self, task: Mapping[str, Any]) -> None:
        said = {
            "lead_time": 3.2,
            "result": [{"id": "decision", "origin": "prediction", **RIGHT}],
            "draft_id": 0,
            "parent_prediction": task["predictions"][0]["id"],
            "parent_annotation": None,
            "unique_id": task["unique_lock_id"],
            "project": str(self.project),
        }
        well(self.browser.post(f"/api/tasks/{task['id']}/annotations", params={"project": self.project}, json=said))
