"""A connection to a server that is asked again and again."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

_TIMEOUT = 10.0
_SIZE_LIMIT = 1 << 26  # bytes of an answer


class Unavailable(Exception):  # noqa: N818  a state of the service, not a fault of this program
    """The service gives no answer that can be used; the message says why and what to do."""


class Connection:
    """The server at `url`, which may have a path.

    Raises ValueError for an invalid URL. Proxies that the environment names are not used: a forwarded
    request would count as one from outside.
    """

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address: give one such as http://127.0.0.1:8000")
        if parts.username is not None or parts.password is not None:
            raise ValueError("the address has a user or a password in it: give a token with --token-file")
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = connect(parts.hostname, parts.port, timeout=_TIMEOUT)
        self._root = parts.path.rstrip("/")
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self.url = f"{parts.scheme}://{parts.netloc}{self._root}"

    @property
    def has_token(self) -> bool:
        """Whether each request has a token."""
        return "Authorization" in self._headers

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of an answer. Raises Unavailable."""
        try:
            self._connection.request("GET", self._root + path, headers=self._headers)
            response = self._connection.getresponse()
            body = response.read(_SIZE_LIMIT)
            if response.length:  # the rest has not come, or is too much
                raise http.client.IncompleteRead(body, response.length)
            return response.status, body
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unavailable(
                f"{self.url} cannot be reached: {reason}. Is the service running there?"
            ) from error

    def close(self) -> None:
        """Close it until the next request: the server would do so before."""
        self._connection.close()
