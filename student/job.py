"""Training in processes of its own, by `accelerate launch`: several GPUs, FSDP, several machines.

`python -m student.job SPEC.json` is what each process runs. It says what it does in JSON lines on its standard output:
steps, and at the end the folder or the error.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from labels import errors
from labels.errors import SettingsError, StillhouseError, TrainingError
from labels.files import read_manifest, write_json
from labels.task import Task
from student.recipe import Progress, Recipe, Step
from student.train import adapter_folder, train_adapter

TAIL = 2000
"""Characters of the processes' own last words that an error shows."""


def train_by_accelerate(
    config: Path, task: type[Task], recipe: Recipe, dataset: Path, root: Path, progress: Progress
) -> tuple[Path, bool]:
    """As train_adapter, in the processes that `config` describes, a file that `accelerate config` wrote.

    The errors are those of train_adapter; SettingsError where there is no such file, TrainingError where the processes
    ended otherwise. They do not outlive this one for long: the first step they can't report ends them.
    """
    if not config.is_file():
        raise SettingsError(f"student.accelerate: no file {config}; wanted one that `accelerate config` wrote")
    folder = adapter_folder(recipe, dataset, root)
    if read_manifest(folder):
        return folder, False
    with tempfile.TemporaryDirectory() as place, (Path(place) / "stderr").open("w+", encoding="utf-8") as noise:
        spec = Path(place) / "spec.json"
        name = f"{task.__module__}:{task.__qualname__}"
        paths = {"dataset": str(dataset.resolve()), "root": str(root.resolve())}
        write_json(spec, {"task": name, "recipe": asdict(recipe), **paths})
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        process = subprocess.Popen(
            [*command, "-m", "student.job", str(spec)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
        )
        try:
            for line in process.stdout or ():
                _relay(_said(line), progress)
            process.wait()
        finally:
            process.terminate()
            process.wait()
        if process.returncode or not read_manifest(folder):
            noise.seek(0)
            raise TrainingError(
                f"`accelerate launch --config_file {config}` ended with {process.returncode} and no adapter: "
                f"…{noise.read()[-TAIL:]}"
            )
    return folder, True


def _said(line: str) -> Mapping[str, Any]:
    """What a process reports; nothing where a library printed something."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _relay(said: Mapping[str, Any], progress: Progress) -> None:
    if "step" in said:
        progress(Step(**said["step"]))
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])


def main(spec: str) -> int:
    """Train as the file `spec` says; returns the exit status."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no report
    given = json.loads(Path(spec).read_text(encoding="utf-8"))
    module, _, name = given["task"].partition(":")
    try:
        task = getattr(importlib.import_module(module), name)
        recipe = Recipe(**given["recipe"])
        train_adapter(
            task, recipe, Path(given["dataset"]), Path(given["root"]), lambda step: _say(out, step=asdict(step))
        )
    except StillhouseError as error:
        _say(out, error=type(error).__name__, message=str(error))
        return 1
    return 0


def _say(out: TextIO, **what: object) -> None:
    out.write(json.dumps(what) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
