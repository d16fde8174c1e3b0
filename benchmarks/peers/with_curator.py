"""curator 0.1.31: `curator.LLM` with its OpenAI backend; run by its own Python (see __init__.py).

The schema goes as the `response_format` of each request, as its own would. Its rate limits are set out of the way.
"""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

job = json.loads(sys.stdin.read())
folder = Path(job["folder"])
os.environ["CURATOR_CACHE_DIR"] = str(folder / "cache")
# It counts tokens with an encoding it would download; litellm, which it depends on, brings the same file along.
litellm = Path(str(importlib.util.find_spec("litellm").origin)).parent  # type: ignore[union-attr]
os.environ["TIKTOKEN_CACHE_DIR"] = str(litellm / "litellm_core_utils" / "tokenizers")

from bespokelabs import curator  # noqa: E402 - it reads the environment when imported

UNLIMITED = 1_000_000_000


class Asked(curator.LLM):  # type: ignore[misc]
    """Sends the messages as they are and keeps the answer as it comes."""

    def prompt(self, row: dict[str, Any]) -> Any:  # noqa: ANN401
        """The row's messages."""
        return row["messages"]

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        """The row's number and answer."""
        return {"number": row["number"], "answer": response}


def main() -> None:
    """Ask the job's prompts and print what came of them."""
    schema = {"name": "answer", "schema": job["schema"]}
    llm = Asked(
        model_name=job["model"],
        backend="openai",
        generation_params={
            "temperature": 0.0,
            "max_tokens": job["max_tokens"],
            "response_format": {"type": "json_schema", "json_schema": schema},
        },
        backend_params={
            "base_url": job["url"] + "/v1",
            "api_key": "none",
            "max_concurrent_requests": job["concurrency"],
            "max_requests_per_minute": UNLIMITED,
            "max_tokens_per_minute": UNLIMITED,
        },
    )
    rows = [{"number": number, "messages": messages} for number, messages in enumerate(job["prompts"])]
    started = time.time()
    done = llm(rows)
    done.dataset.to_parquet(folder / "answers.parquet")
    finished = time.time()
    answers = {row["number"]: row["answer"] for row in done.dataset}
    told = {
        "answers": [answers.get(number) for number in range(len(rows))],
        "tokens_in": done.token_usage.input,
        "tokens_out": done.token_usage.output,
        "seconds": finished - started,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
