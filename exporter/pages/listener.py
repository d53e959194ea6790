"""EXPORTER_LISTEN: metrics on an address of their own, from a process that serves nothing else.

It also tells what is in progress, where no worker can answer any more, and what the dead were answering.

It is a child of the server's master, so that no worker pays for a scrape; a thread in the master would be
unsafe, because the master forks. It reads the worker files, so what only a worker's memory knows is not
there: `flask_health_check_up` and the extremes of the last minute.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from exporter import guard
from exporter.addresses import Environ
from exporter.pages.access import Access
from exporter.pages.answers import Answer, Page, as_json, as_text, serve
from exporter.pages.deaths import deaths
from exporter.pages.inflight import inflight
from exporter.pages.metrics import MetricsPage
from exporter.scrape.exposition import Exposition
from exporter.scrape.sources import DirectorySource
from exporter.settings import Settings
from exporter.store.directory import WorkerDirectory
from exporter.worker.deaths import latest
from exporter.worker.facts import Facts
from exporter.worker.inflight import Busy, InProgress, in_flight, tallies
from exporter.worker.stackring import read_stacks

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PARENT_INTERVAL = 0.5
_BIND_INTERVAL = 0.2
_ACCEPT_PAUSE = 0.1
# Scrapers are few and take less than a second: slower clients, and crowds of them, are no scrapers.
_CONNECTIONS = 32
_CONNECTION_SECONDS = 10
# Records of a ring that are read.
_RECORDS = 10_001


class Listener:
    """Serves the metrics of a worker directory on `settings.listen`."""

    def __init__(
        self, settings: Settings, directory: WorkerDirectory, owner: tuple[int, int] | None = None
    ) -> None:
        """`owner` is the (uid, gid) of the workers; the process keeps only their rights once it listens."""
        assert settings.listen is not None  # noqa: S101  the caller has asked
        self._address = settings.listen
        self._owner = owner
        self._application = _Application(settings, directory)
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        assert self._server is not None  # noqa: S101  the caller has bound it
        return int(self._server.server_address[1])

    def bind(self) -> _Server:
        """Bind the address; raises OSError if that is not possible."""
        self._server = _Server(self._address, _Handler)
        self._server.set_app(self._application)
        return self._server

    def close(self) -> None:
        """Close the address in this process."""
        if self._server is not None:
            self._server.server_close()

    def run(self, parent: int) -> None:
        """Serve until the process `parent` is gone; wait for the address if it is not bound yet."""
        server = self._server
        while server is None:
            with suppress(OSError):  # the master that this one replaces still has it
                server = self.bind()
                break
            if os.getppid() != parent:
                return
            time.sleep(_BIND_INTERVAL)
        guard.become(self._owner)
        server.parent = parent
        with suppress(_ParentGoneError):
            server.serve_forever(_PARENT_INTERVAL)

    def fork(self, sockets: Iterable[socket.socket], pause: float) -> int:
        """Run in a child process, after a pause in seconds, and return its id.

        The child closes `sockets`, those of the master.
        """
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for listener in sockets:
                listener.close()
            time.sleep(pause)
            self.run(parent)
        finally:
            os._exit(0)


class _Application:
    """A WSGI application that serves the metrics of a worker directory to those who may see them."""

    def __init__(self, settings: Settings, directory: WorkerDirectory) -> None:
        self._path = settings.path or "/metrics"
        self._access = Access(settings)
        read = partial(tallies, directory.path)
        facts = Facts(settings.app_version, directory.counts, settings.names)
        live = [facts, Busy(read, settings.names), InProgress(read)]
        page = MetricsPage(Exposition(DirectorySource(directory, live)), self._access)
        self._pages: dict[str, Page] = {self._path: page.answer}
        if settings.monitoring_path:
            path, most = directory.path, max(settings.recent, _RECORDS)
            self._pages |= {
                f"{settings.monitoring_path}/inflight": lambda _: as_json(
                    inflight(in_flight(path, most), read_stacks(path))
                ),
                f"{settings.monitoring_path}/deaths": lambda _: as_json(deaths(latest(path))),
            }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return serve(self._answer, environ, start_response)

    def _answer(self, environ: Environ) -> Answer:
        page = self._pages.get(environ["PATH_INFO"])
        if page is None:
            return as_text(f"Metrics are at {self._path}", 404)
        refusal = self._access.refusal(environ)
        return page(environ) if refusal is None else refusal.answer()


class _ParentGoneError(Exception):
    pass


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread of its own; limits their number and their time."""

    daemon_threads = True
    # With the usual 5 a scraper beside a crowd has to try again after a second.
    request_queue_size = 128
    parent: int

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._since: dict[socket.socket, float] = {}  # the beginning of each connection, the oldest first
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer's method asks the name service for the host's full name, which can be slow.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; the oldest has to go for it if there are many."""
        try:
            connection, address = super().get_request()
        except OSError:  # no descriptor is free: without a pause the next attempt would follow at once
            time.sleep(_ACCEPT_PAUSE)
            raise
        while len(self._since) >= _CONNECTIONS:
            self._cut(next(iter(self._since)))
        self._since[connection] = time.monotonic()
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Called by the thread of a connection at its end."""
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: cut connections that last too long; end with the parent."""
        if os.getppid() != self.parent:
            raise _ParentGoneError
        oldest = time.monotonic() - _CONNECTION_SECONDS
        for connection, since in list(self._since.items()):
            if since < oldest:
                self._cut(connection)

    def _cut(self, connection: socket.socket) -> None:
        self._since.pop(connection, None)
        with suppress(OSError):  # its thread may have closed it
            connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback for a client that left or was cut off."""


class _Handler(WSGIRequestHandler):
    timeout = _CONNECTION_SECONDS  # for each read from a client that sends nothing

    def get_environ(self) -> dict[str, Any]:
        """The environ without headers with an underscore: they would pass for those with a hyphen."""
        for name in {name for name in self.headers if "_" in name}:
            del self.headers[name]
        return super().get_environ()

    def log_message(self, *args: Any) -> None:
        """Log nothing: a line for each scrape would drown the server's own."""
