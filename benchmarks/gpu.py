"""An 8B Llama on a GPU: merged against unmerged LoRA and online FP8, p50 and p99; and LoRA training, tokens a second.

Random weights in Llama 3.1 8B's shape, made here: what is measured is speed alone. A prompt has 30 tokens and an answer
exactly 25. `--shape tiny` shows that it runs, on any machine. The figures of the whole shape are written to RESULTS.md.
"""

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from evals.latency import Latency, latency_of
from flows.environment import prepare
from labels.files import write_text
from student.serve import served_student

RESULTS = Path(__file__).with_name("RESULTS.md")
PROMPT, ANSWER, CALLERS = 30, 25, (1, 8, 64)
SERVER: dict[str, dict[str, Any]] = {
    "8b": {"max-model-len": 2048, "max-num-seqs": 128},
    "tiny": {"max-model-len": 512, "enforce-eager": True},
}


def run(shape: str = "8b", requests: int = 200, work: str = "") -> dict[str, Any]:
    """By model and callers the p50 and p99 of an answer (ms); training's tokens a second; and the machine."""
    prepare(offline=True)
    with tempfile.TemporaryDirectory() as own:
        folder = Path(work or own)
        made = _apart("make", folder, shape)
        lora = {
            "enable-lora": True,
            "max-lora-rank": made["rank"],
            "lora-modules": f"tuned={folder / 'adapter'}",
        }
        served: dict[str, tuple[str, str, dict[str, Any]]] = {
            "merged": ("merged", "merged", {}),
            "unmerged_lora": ("base", "tuned", lora),
            "merged_fp8": ("merged", "merged", {"quantization": "fp8_per_channel"}),
        }
        found: dict[str, Any] = {"shape": shape, **made}
        for name, (model, asked, options) in served.items():
            flags = SERVER[shape] | {"load-format": "safetensors", "no-enable-prefix-caching": True} | options
            with served_student(folder / model, folder / "services" / name, flags, "bfloat16", 900) as url:
                for one in asyncio.run(_latencies(url, asked, requests)):
                    found[f"{name}_{one.at_once}_p50_ms"] = round(one.p50_ms, 1)
                    found[f"{name}_{one.at_once}_p99_ms"] = round(one.p99_ms, 1)
        found |= _apart("train", folder, shape)
    if shape != "tiny":
        _write(found)
    return found


def _apart(what: str, folder: Path, shape: str) -> dict[str, Any]:
    """In a process of its own, which gives the GPU's memory back when it ends."""
    command = [sys.executable, "-m", "benchmarks.gpu_models", what, str(folder), shape]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


async def _latencies(url: str, model: str, requests: int) -> list[Latency]:
    async with httpx.AsyncClient(
        base_url=url, timeout=300, limits=httpx.Limits(max_connections=64), trust_env=False
    ) as http:
        await _level(http, model, 16, 64)  # warm
        return [await _level(http, model, at_once, requests) for at_once in CALLERS]


async def _level(http: httpx.AsyncClient, model: str, at_once: int, requests: int) -> Latency:
    """A closed loop of so many callers, each with a prompt of its own."""
    asked: Iterator[int] = iter(range(requests))
    seconds: list[float] = []

    async def caller() -> None:
        for number in asked:
            prompt = random.Random(f"{at_once} {number}").choices(range(10, 2000), k=PROMPT)
            body = {"model": model, "prompt": prompt, "max_tokens": ANSWER, "ignore_eos": True, "temperature": 0}
            began = time.perf_counter()
            response = await http.post("/v1/completions", json=body)
            response.raise_for_status()
            assert response.json()["usage"]["completion_tokens"] == ANSWER
            seconds.append(time.perf_counter() - began)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return latency_of(at_once, seconds, len(seconds) * ANSWER, time.perf_counter() - start)


def _write(found: dict[str, Any]) -> None:
    """The section of this machine in RESULTS.md, in the place of an earlier one."""
    title = f"## 8B Llama, {found['machine']}"
    rows = "".join(f"| {name} | {value} |\n" for name, value in found.items())
    head = f"{title}\n\n`python -m benchmarks gpu`, {datetime.now(UTC):%Y-%m-%d}\n\n| figure | value |\n| --- | --- |\n"
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    others = [part for part in text.split("\n## ")[1:] if not f"## {part}".startswith(title + "\n")]
    write_text(
        RESULTS,
        "\n## ".join([text.split("\n## ")[0], *(part.rstrip("\n") + "\n" for part in others)]) + f"\n{head}{rows}",
    )
