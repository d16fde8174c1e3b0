"""Write requirements/cpu.txt and gpu.txt from the .in files. `make lock` runs this.

Each lock is resolved for Python 3.11 on Linux x86-64 (glibc 2.31, wheels only), then proved for 3.12:
a second resolution, held to the same versions, must ask for nothing that the lock lacks.

`torch==...+cpu` is looked up in PyTorch's own index; where that can't be reached, name a folder that
holds the wheel in UV_FIND_LINKS (or PIP_FIND_LINKS, as pip reads it).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
UV = "uv==0.13.8"
OVERRIDES = {"cpu": "no-cpu-build.txt", "gpu": "gpu-override.txt"}
HEADERS = {
    "cpu": "no GPU: vLLM's CPU build; torch from PyTorch's own index, the rest from the package index",
    "gpu": "an NVIDIA GPU: vLLM on CUDA 13",
}


def resolve(kind: str, python: str, *options: str) -> list[str]:
    """The pins for one kind of machine and one Python."""
    command = [sys.executable, "-m", "uv", "pip", "compile", f"{kind}.in", "--override", OVERRIDES[kind], *options]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_31"]
    command += ["--only-binary", ":all:", "--no-header", "--no-annotate", "--quiet"]
    folder = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    if folder:
        command += ["--find-links", folder]
    elif kind == "cpu":
        command += ["--torch-backend", "cpu"]
    done = subprocess.run(command, cwd=REQUIREMENTS, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind}.in has no resolution on Python {python}; the lock is left as it was.")
    return done.stdout.splitlines()


def lock(kind: str) -> None:
    """Resolve, prove and write one lock."""
    found = resolve(kind, "3.11")
    held = [pin for pin in found if "+cpu" not in pin]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints, tempfile.NamedTemporaryFile("w") as without:
        constraints.write("\n".join(held))
        constraints.flush()
        # The +cpu torch may be at hand for one Python alone; all that it asks for is in the lock by now.
        without.write("torch; sys_platform == 'never'\n" if kind == "cpu" else "")
        without.flush()
        newer = resolve(kind, "3.12", "--constraint", constraints.name, "--override", without.name)
    lacking = sorted(set(newer) - set(found))
    if lacking:
        sys.exit(f"{kind}.in needs more on Python 3.12 than on 3.11: {', '.join(lacking)}. The lock is left as it was.")
    header = [
        f"# The full lock for Linux x86-64 (glibc 2.31 or newer), CPython 3.11 and 3.12, {HEADERS[kind]}.",
        f"# Made by `make lock` from {kind}.in; install it whole:  pip install --no-deps -r requirements/{kind}.txt",
    ]
    (REQUIREMENTS / f"{kind}.txt").write_text("\n".join([*header, *found]) + "\n", encoding="utf-8")
    print(f"requirements/{kind}.txt: {len(found)} packages", flush=True)


if __name__ == "__main__":
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", UV], check=True)
    lock("cpu")
    lock("gpu")
