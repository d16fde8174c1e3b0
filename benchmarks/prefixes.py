"""What asking in prefix order saves: prompt tokens the engine computes, in that order and shuffled.

With a key-value cache that holds nearly all prompts at once (the laptop's own), and one far smaller than they are, as
a big model's is. Each in a process of its own; counts, not timings.
"""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.teacher import laptop, shop_queries

SMALL = 1100
"""Cache blocks of 32 tokens: about what the 256 prompts in the engine's hands need themselves."""
SEED = 1


def run(queries: int = 3000) -> dict[str, Any]:
    """`prefix_tokens_ratio` (ordered over shuffled, small cache; less is better), the same with the profile's own cache."""
    found = {}
    for size, blocks in (("small", SMALL), ("own", 0)):
        command = [sys.executable, "-m", "benchmarks.prefixes", str(blocks), str(queries)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found[size] = json.loads(done.stdout.splitlines()[-1])
    return {
        "prefix_tokens_ratio": found["small"]["ratio"],
        "prefix_tokens_ratio_large_cache": found["own"]["ratio"],
        "prefixes": found,
    }


def _measure(blocks: int, queries: int) -> dict[str, Any]:
    with TemporaryDirectory() as work:
        settings = laptop(Path(work), **({"teacher__engine__num_gpu_blocks_override": blocks} if blocks else {}))
        from benchmarks.contenders import ready_prompts
        from flows.teacher import open_engine
        from teacher.engine import Prompt

        ready = [*ready_prompts(settings, shop_queries(settings, queries)).values()]
        prompts = [Prompt(str(n), messages, settings.teacher.max_tokens) for n, messages in enumerate(ready)]
        shuffled = random.Random(SEED).sample(prompts, len(prompts))
        engine = open_engine(settings)
        figures: dict[str, Any] = {"blocks": blocks or "the profile's"}
        for order, asked in (("ordered", prompts), ("shuffled", shuffled)):
            _reset(engine)
            done = list(engine.complete(settings.task_class(), asked))
            figures[order] = _tokens(done)
        engine.close()
    figures["ratio"] = round(figures["ordered"]["computed"] / figures["shuffled"]["computed"], 3)
    return figures


def _tokens(done: Sequence[Any]) -> dict[str, int]:
    first = [one for one in done if one.attempts == 1]  # a second attempt finds its whole prompt in the cache
    tokens, cached = sum(one.tokens_in for one in first), sum(one.tokens_cached for one in first)
    return {"prompts": len(first), "tokens_in": tokens, "cached": cached, "computed": tokens - cached}


def _reset(engine: Any) -> None:  # noqa: ANN401
    engine._llm.reset_prefix_cache()


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), int(sys.argv[2]))), flush=True)
