"""distilabel 1.5.3: a pipeline of a generator and a ChatGeneration task; run by its own Python (see __init__.py).

Its own structured output goes through `instructor` and its JSON mode takes no schema, so the schema goes in vLLM's own
request field. A batch is `concurrency` prompts: it asks those at once, and the next when all have answered.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import GeneratorStep
from distilabel.steps.tasks import ChatGeneration


class Prompts(GeneratorStep):  # type: ignore[misc]
    """The job's prompts, each with its number and the moment the first batch was taken."""

    path: str

    @property
    def outputs(self) -> list[str]:
        """The columns."""
        return ["number", "messages", "started"]

    def process(self, offset: int = 0) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        """Batches of rows, and whether each is the last; called once every step is loaded."""
        started, prompts = time.time(), json.loads(Path(self.path).read_text())["prompts"]
        rows = [{"number": n, "messages": messages, "started": started} for n, messages in enumerate(prompts)]
        for first in range(0, len(rows), self.batch_size):
            yield rows[first : first + self.batch_size], first + self.batch_size >= len(rows)


def main() -> None:
    """Run the pipeline on the job and print what came of it."""
    job = json.loads(sys.stdin.read())
    folder = Path(job["folder"])
    (folder / "job.json").write_text(json.dumps(job))
    with Pipeline(name="labelling", cache_dir=folder / "cache") as pipeline:
        prompts = Prompts(path=str(folder / "job.json"), batch_size=job["concurrency"])
        llm = OpenAILLM(
            model=job["model"],
            base_url=job["url"] + "/v1",
            api_key="none",
            generation_kwargs={
                "temperature": 0.0,
                "max_new_tokens": job["max_tokens"],
                "extra_body": {"structured_outputs": {"json": job["schema"]}},
            },
        )
        prompts >> ChatGeneration(llm=llm, input_batch_size=job["concurrency"])
    done = pipeline.run(use_cache=False)["default"]["train"]
    done.to_parquet(folder / "answers.parquet")
    finished = time.time()
    rows = sorted(done, key=lambda row: row["number"])
    used = [row["distilabel_metadata"]["statistics_chat_generation_0"] for row in rows]
    told = {
        "answers": [row["generation"] for row in rows],
        "tokens_in": sum(one["input_tokens"] or 0 for one in used),
        "tokens_out": sum(one["output_tokens"] or 0 for one in used),
        "seconds": finished - rows[0]["started"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
