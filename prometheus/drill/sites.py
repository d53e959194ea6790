"""Exporters and sites outside the stack, which the drill plays: they can be slow, large or broken."""

import datetime
import ssl
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import trustme

from prometheus.drill.server import Server


class Site:
    """An HTTP server on a free port: it answers `status` after `delay` seconds with `samples` metrics."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.status, self.delay, self.samples = 200, 0.0, 1
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                threading.Event().wait(site.delay)
                body = site.metrics().encode()
                self.send_response(site.status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None:
                """Nobody reads the server's log."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls:
            # The handshake belongs to the request's own thread, not to the one that accepts.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def metrics(self) -> str:
        """Return the text of the metrics."""
        return "".join(f'drill_sample{{number="{n}"}} 1\n' for n in range(self.samples))

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Shipper(Site):
    """Plays Alloy: each scrape counts ten more lines sent if it `sends`, ten more lost if it `drops`."""

    def __init__(self) -> None:
        self.sends, self.drops = True, False
        self._deliveries = self._losses = 0
        super().__init__()

    def metrics(self) -> str:
        """Advance Alloy's counters and return their text."""
        self._deliveries += 10 * self.sends
        self._losses += 10 * self.drops
        return (
            f'loki_write_sent_entries_total{{host="loki:3100",tenant=""}} {self._deliveries}\n'
            'loki_write_dropped_entries_total{host="loki:3100",tenant="",reason="ingester_error"}'
            f" {self._losses}\n"
        )


class Certificates:
    """The drill's own certificate authority, and the certificate that a site shows."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.authority = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.authority))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew(datetime.timedelta(days=365))

    def renew(self, duration: datetime.timedelta) -> None:
        """Let the site show a new certificate from the next connection on."""
        until = datetime.datetime.now(datetime.timezone.utc) + duration
        self._authority.issue_cert("127.0.0.1", not_after=until).configure_cert(self.context)
