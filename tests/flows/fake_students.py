"""Several students' stand-in vLLM servers on one port, each under its name: the first word of the path.

    python -m tests.flows.fake_students PORT MODEL…

"plain" takes a query's last word for the product, "fancy" for the brand. A name that is no MODEL gets another's server.
"""

import json
import re
import sys

from tests.flows.fake_vllm import Handler, Server

FIELDS = {"plain": "product", "fancy": "brand"}


class Students(Handler):
    """Health, the models, and answers."""

    models: tuple[str, ...]

    def do_GET(self):
        """What is served here."""
        asked = self.path.split("/")[1]
        mine = [asked] if asked in self.models else self.models
        self.answer({"data": [{"id": model} for model in mine]} if self.path.endswith("/v1/models") else {})

    def do_POST(self):
        """What the student says whose path it is."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        word = re.findall("<query>(.*)</query>", body["messages"][-1]["content"])[-1].split()[-1]
        said = {"product": "", "brand": "", "attributes": []} | {FIELDS[self.path.split("/")[1]]: word}
        text = json.dumps(said, separators=(",", ":"))
        tokens = [{"token": char, "logprob": 0.0} for char in text]
        self.answer(
            {"choices": [{"message": {"content": text}, "logprobs": {"content": tokens}, "finish_reason": "stop"}]}
        )


if __name__ == "__main__":
    Students.models = tuple(sys.argv[2:])
    Server(("127.0.0.1", int(sys.argv[1])), Students).serve_forever()
