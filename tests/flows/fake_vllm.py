"""A stand-in for `vllm serve` on one port: answers at once, by a rule, what the real server would take half a minute to.

    python -m tests.flows.fake_vllm PORT MODEL_FOLDER

A query's last word is its product, but "cut" is cut short; to a model whose folder is named -int8 it is the first word where
the last is "milk". Texts cost a nat a token. What it was asked it counts: GET /asked.
"""

import json
import re
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import jinja2
from tokenizers import Tokenizer


class Handler(BaseHTTPRequestHandler):
    """The four paths that the student's client asks, and two for the test."""

    folder: Path
    asked: ClassVar[Counter[str]] = Counter()
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Health, or how often each path was asked."""
        self.answer(self.asked if self.path == "/asked" else {})

    def do_POST(self):
        """What vLLM would say."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked[self.path] += 1
        if self.path == "/tokenize":
            template = jinja2.Template((self.folder / "chat_template.jinja").read_text())
            text = template.render(messages=body["messages"], add_generation_prompt=True, bos_token="<|begin_of_text|>")
            tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            return self.answer({"tokens": tokenizer.encode(text, add_special_tokens=False).ids})
        if self.path == "/v1/completions":
            tokens = [None, *({"7": {"logprob": -1.0}} for _ in body["prompt"].split()[1:])]
            return self.answer({"choices": [{"prompt_logprobs": tokens}]})
        said = body["messages"][-1]["content"]
        *first, word = (re.findall("<query>(.*)</query>", said) or [said])[-1].split()
        if word == "milk" and self.folder.name.endswith("-int8"):
            word = first[0]
        text = json.dumps({"product": word, "brand": "", "attributes": []}, separators=(",", ":"))
        text = text if "response_format" in body else word
        tokens = [{"token": char, "logprob": 0.0} for char in text]
        finish = "length" if word == "cut" else "stop"
        return self.answer(
            {"choices": [{"message": {"content": text}, "logprobs": {"content": tokens}, "finish_reason": finish}]}
        )

    def answer(self, value):
        """200, with JSON."""
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


class Server(ThreadingHTTPServer):
    """Many callers may connect at once."""

    request_queue_size = 128


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[2])
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
