"""Labelling, whole: against the bare engine, and by URL against distilabel and curator.

All contenders answer the same prompts (the demo shop's queries with three facts each, in our prefix order) with the
same model, schema, greedy sampling and token budget, one after the other, taking turns at going first. Ours is all a
night does from its queries to their labels: retrieval, planning, rendering, guardrails, confidence, Parquet files. Not
counted, on any side: starting the engine or the tool, building the catalogue's index, making the others' prompts.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import prefixes
from benchmarks.contenders import Run, bare, in_words, ours, peer, ready_prompts
from benchmarks.teacher import forget, laptop, served, shop_queries, spread

CACHE = os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/stillhouse-peers"
WARM_UP = 200
OURS, BARE, URL, DISTILABEL, CURATOR = "ours", "bare", "ours_by_url", "distilabel", "curator"
OURS_AS_MANY = "ours_as_many"  # offline on as many queries as the others are asked by URL
RATIOS = {
    "vs_engine": (OURS, BARE),
    "vs_distilabel": (URL, DISTILABEL),
    "vs_curator": (URL, CURATOR),
    "offline_vs_distilabel": (OURS_AS_MANY, DISTILABEL),
    "offline_vs_curator": (OURS_AS_MANY, CURATOR),
}


@dataclass(frozen=True)
class Contest:
    """Both engines, running: the one in this process and the server."""

    contenders: dict[str, Callable[[int], Run]]

    def round(self, turn: int, sizes: dict[str, int]) -> dict[str, Run]:
        """Each contender once, the first one last next time."""
        names = list(sizes)
        names = names[turn % len(names) :] + names[: turn % len(names)]
        runs = {}
        for name in names:
            runs[name] = self.contenders[name](sizes[name])
            sys.stderr.write(in_words(name, runs[name]))
        return runs


def run(queries: int = 3000, http: int = 1000, rounds: int = 3, peers: str = CACHE) -> dict[str, Any]:
    """Ratios of rates (medians of `rounds`, with least and greatest), what each contender did, what prefix order saves.

    `queries` a round offline, `http` a round through the server; `peers` holds the other tools' environments.
    """
    offline = {OURS: queries, BARE: queries}
    online = {URL: http, DISTILABEL: http, CURATOR: http, OURS_AS_MANY: http}
    with TemporaryDirectory() as work, _contest(Path(work), Path(peers).expanduser()) as contest:
        contest.round(0, dict.fromkeys([*offline, *online], WARM_UP))
        runs = [contest.round(turn, offline) | contest.round(turn, online) for turn in range(rounds)]
    return _figures(runs) | prefixes.run(queries)


@contextmanager
def _contest(work: Path, folder: Path) -> Iterator[Contest]:
    settings = laptop(work)
    from flows.teacher import open_engine
    from teacher.engine_vllm import VllmEngine

    engine = open_engine(settings)
    assert isinstance(engine, VllmEngine)
    llm, pool = engine._llm, shop_queries(settings, 1_000_000)
    assert llm is not None
    with served(settings, work) as url:
        by_url = laptop(work / "by_url", teacher__url=f"{url}/v1")
        client = open_engine(by_url)

        def prompts(count: int) -> dict[str, list[dict[str, str]]]:
            return ready_prompts(settings, pool[:count])

        def ours_offline(count: int) -> Run:
            llm.reset_prefix_cache()
            return ours(settings, engine, pool[:count])

        def bare_engine(count: int) -> Run:
            ready = prompts(count)
            tokenizer: Any = llm.get_tokenizer()
            text = tokenizer.apply_chat_template([*ready.values()], tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            llm.reset_prefix_cache()
            return bare(settings, llm, list(ready), ids)

        def ours_by_url(count: int) -> Run:
            forget(url)
            return ours(by_url, client, pool[:count])

        def other(name: str) -> Callable[[int], Run]:
            def asked(count: int) -> Run:
                ready = prompts(count)
                forget(url)
                return peer(name, folder, settings, url, ready)

            return asked

        contenders = {OURS: ours_offline, BARE: bare_engine, URL: ours_by_url, OURS_AS_MANY: ours_offline}
        yield Contest(contenders | {name: other(name) for name in (DISTILABEL, CURATOR)})
    engine.close()


def _figures(runs: list[dict[str, Run]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for key, (one, two) in RATIOS.items():
        ratios = spread([each[one].rate / each[two].rate for each in runs])
        figures |= {key: ratios["median"], f"{key}_range": [ratios["min"], ratios["max"]]}
    cpu = spread([each[BARE].cpu / each[OURS].cpu for each in runs])
    figures |= {"vs_engine_cpu": cpu["median"], "vs_engine_cpu_range": [cpu["min"], cpu["max"]], "rounds": len(runs)}
    for name in runs[0]:
        figures[name] = _contender([each[name] for each in runs], runs[0][BARE].answers)
    return figures


def _contender(runs: list[Run], expected: Any) -> dict[str, Any]:  # noqa: ANN401
    last = runs[-1]
    same = sum(expected.get(query) == answer for query, answer in last.answers.items())
    return {
        "queries": len(last.answers),
        "queries_per_s": spread([one.rate for one in runs]),
        "cpu_s": spread([one.cpu for one in runs]) if last.cpu else None,
        "tokens_in": last.tokens_in,
        "tokens_out": last.tokens_out,
        "asked_again": last.again,
        "nulls": sum(one.nulls for one in runs),
        "answers_as_the_bare_engine": round(same / len(last.answers), 4),
    }
