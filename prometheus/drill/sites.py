"""What is outside the stack, played by the drill: exporters and sites that can be slow, large or broken."""

import datetime
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


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

            def log_message(self, *_: object) -> None:
                """Nobody reads the server's log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
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
        """What it exposes."""
        return "".join(f'drill_sample{{number="{n}"}} 1\n' for n in range(self.samples))

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Shipper(Site):
    """Exposes what Alloy counts: it sends ten lines whenever it is asked, and drops as many, if it is to."""

    def __init__(self) -> None:
        self.sends, self.drops = True, False
        self._sent = self._dropped = 0
        super().__init__()

    def metrics(self) -> str:
        """Alloy's counters, moved on."""
        self._sent += 10 * self.sends
        self._dropped += 10 * self.drops
        return (
            f'loki_write_sent_entries_total{{host="loki:3100",tenant=""}} {self._sent}\n'
            'loki_write_dropped_entries_total{host="loki:3100",tenant="",reason="ingester_error"}'
            f" {self._dropped}\n"
        )


class Certificates:
    """An authority of the drill's own, and a site's certificate from it."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.authority = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.authority))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew(datetime.timedelta(days=365))

    def renew(self, lasts: datetime.timedelta) -> None:
        """Let the site show a new certificate, from the next connection on."""
        until = datetime.datetime.now(datetime.timezone.utc) + lasts
        self._authority.issue_cert("127.0.0.1", not_after=until).configure_cert(self.context)
