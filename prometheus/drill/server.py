"""The HTTP server of the drill's sites and of its receiver."""

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """One whose callers may hang up: the drill stops them, and their patience ends."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a traceback, but not that of a connection that ended."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
