"""A server on loopback that answers as it is told to, well or badly: what a real one may do on a bad day."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from labels.semantic_roles import SemanticRoles

SOON = {"retry-after-ms": "1"}


class Hostile(ThreadingHTTPServer):
    """`act(handler, request body, how often this prompt was asked before)` answers each POST."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, act):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.act = act
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.bodies, self.headers, self.times = [], [], {}
        self.active = self.most_active = 0
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """Clients that went away are part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    counted = False

    def do_GET(self):
        reply(self, 200, {"object": "list", "data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        with server.lock:
            server.bodies.append(body)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            before = server.times.get(asked(body), 0)
            server.times[asked(body)] = before + 1
            server.active += 1
            self.counted = True
            server.most_active = max(server.most_active, server.active)
        try:
            server.act(self, body, before)
        finally:
            self.uncount()

    def uncount(self):
        """To be called before the answer is sent: who has it may ask again before this thread goes on."""
        with self.server.lock:
            self.server.active -= self.counted
            self.counted = False

    def log_message(self, *args):
        """Quiet."""


@contextmanager
def hostile(act: Callable) -> Iterator[Hostile]:
    server = Hostile(act)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def asked(body):
    """The query of a request."""
    return body["messages"][-1]["content"].rpartition("<query>")[2].partition("</query>")[0]


def reply(handler, status, content, kind="application/json", headers=None):
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.uncount()
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(data)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def choice(text, finish="stop", **message):
    tokens = [{"token": char, "logprob": -0.1, "bytes": list(char.encode())} for char in text]
    return {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
        "logprobs": {"content": tokens},
    }


def roles(query):
    return SemanticRoles(product=query, brand="", attributes=[]).to_json()


def completion(*choices):
    details = {"cached_tokens": 16}
    usage = {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48, "prompt_tokens_details": details}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [*choices], "usage": usage}


def well(handler, body, before):
    """As an honest server does: every query is a product."""
    reply(handler, 200, completion(*[choice(roles(asked(body)))] * body.get("n", 1)))


def fails(status, times, said="not now", headers=SOON):
    """`status` so many times for each prompt, then well."""

    def act(handler, body, before):
        if before < times:
            reply(handler, status, {"error": {"message": said, "type": "t"}}, headers=headers)
        else:
            well(handler, body, before)

    return act


def says(content, kind="application/json"):
    def act(handler, body, before):
        reply(handler, 200, content, kind)

    return act


def cuts(times):
    """The connection, in the middle of the body."""

    def act(handler, body, before):
        if before >= times:
            well(handler, body, before)
            return
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [')
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    return act


def hangs(handler, body, before):
    """Sends a byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)
