"""A receiver of alerts: an HTTP server on a free port that keeps all posts."""

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

from prometheus.drill.server import Server


@dataclass(frozen=True, slots=True)
class Post:
    """One request: its path, its JSON document, and the time.time() of its arrival."""

    path: str
    document: Any
    time: float


class Receiver:
    """Accepts every POST and keeps it in `posts`, except to a path in `refusals`, which answers 503."""

    def __init__(self) -> None:
        self.refusals: set[str] = set()
        self.posts: list[Post] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refusal = self.path in receiver.refusals
                if not refusal:
                    receiver.posts.append(Post(self.path, json.loads(body), time.time()))
                self.send_response(503 if refusal else 200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Nobody reads the server's log."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """Address of the server, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
