"""Who may read what the exporter knows: /metrics, /monitoring/* and the details of /health.

Works on the WSGI environ alone, so that every way of serving a page asks the same question. A private
address proves little behind a plain reverse proxy or Docker's gateway, where everybody looks private: set a
token there.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
import time
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_network
from typing import NamedTuple

from click import ClickException

from exporter.addresses import Environ, Network, client_address, plain_networks, sender_of, within
from exporter.pages.answers import Answer, as_json
from exporter.settings import Settings

# Explicit, because ipaddress.is_private also holds for documentation, benchmarking and other ranges.
PRIVATE_NETWORKS: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
)

_TOKEN = re.compile(rb"[\x21-\x7e]+")
_LONGEST = 4096  # bytes
# How long a file that is rewritten must have been as it is (s): half of a token must not open the door.
_SETTLED = 1.0

Version = tuple[int, int, int]
_NONE = 0, 0, 0

_MISSING = "A token is needed here: send it as 'Authorization: Bearer <token>'."
_WRONG = "This is not the service's token, or it was not sent as 'Authorization: Bearer <token>'."


class TokenError(ClickException, ValueError):
    """The token file cannot be used; the message names it and the remedy."""


class Refusal(NamedTuple):
    """An answer to somebody who may not read: 401 (no good token) or 403 (not from here)."""

    status: int
    message: str

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that the answer needs besides its type."""
        return [("WWW-Authenticate", "Bearer")] if self.status == 401 else []

    def answer(self) -> Answer:
        """The same JSON on every page."""
        return as_json({"error": self.message}, self.status, self.headers)


class Access:
    """The rules of one application, fixed at start-up; only the token may be rotated.

    Raises TokenError if `settings.token_file` is missing, empty or holds anything but one printable word.
    """

    def __init__(self, settings: Settings) -> None:
        networks = settings.allow
        self._token = None if settings.token_file is None else _TokenFile(settings.token_file)
        if networks is None and self._token is None:
            networks = PRIVATE_NETWORKS
        self._networks = None if networks is None else plain_networks(networks)
        self._proxies = plain_networks(settings.trusted_proxies)

    def refusal(self, environ: Environ) -> Refusal | None:
        """None for an insider. The message says what is missing, never what is configured."""
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if self._token is not None and not self._token.opens(authorization):
            return Refusal(401, _WRONG if authorization else _MISSING)
        if self._networks is None or within(client_address(environ, self._proxies), self._networks):
            return None
        return Refusal(403, "Your address may not read this page.")

    def from_proxy(self, environ: Environ) -> bool:
        """Whether a declared proxy sent this request, so that what it says in headers may be believed."""
        return within(sender_of(environ), self._proxies)


class _TokenFile:
    """The token in a file, read again when the file changes: a secret is rotated without a restart."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version, self._digest = self._read()

    def opens(self, authorization: str) -> bool:
        """Compared as digests in constant time: neither content nor length can be found out by timing."""
        scheme, _, token = authorization.partition(" ")
        given = sha256(token.strip().encode("utf-8", "replace")).digest()
        return hmac.compare_digest(given, self._current()) and scheme.lower() == "bearer"

    def _current(self) -> bytes:
        # A file that is broken while it is being replaced leaves the last good token in force.
        with suppress(TokenError):
            try:
                status = os.stat(self._path)
            except OSError:
                self._version = _NONE
                return self._digest
            # One that is put in its place is whole; one that is written anew may be half of what it will be.
            writing = status.st_ino == self._version[0] and 0 <= time.time() - status.st_mtime < _SETTLED
            if _version(status) != self._version and not writing:
                self._version, self._digest = self._read()
        return self._digest

    def _read(self) -> tuple[Version, bytes]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise TokenError(self._complaint("it is no regular file"))
                content = os.read(descriptor, _LONGEST + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TokenError(self._complaint(error.strerror or str(error))) from error
        if len(content) > _LONGEST:
            raise TokenError(self._complaint(f"it has more than {_LONGEST} bytes"))
        token = content.strip()
        if not token:
            raise TokenError(self._complaint("the file is empty"))
        if not _TOKEN.fullmatch(token):
            raise TokenError(self._complaint("a token is one word of printable ASCII characters"))
        return _version(status), sha256(token).digest()

    def _complaint(self, reason: str) -> str:
        return (
            f"EXPORTER_TOKEN_FILE={self._path!r}: {reason}. Write the token into it, readable by the user "
            "that the service runs as, or unset it to use addresses alone."
        )


def _version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_size, status.st_mtime_ns
