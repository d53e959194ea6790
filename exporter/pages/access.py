"""Access: who may read /metrics, /monitoring/* and the details of /health.

Works on the WSGI environ alone, so the same rules hold for every server of a page. A private
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
_SIZE_LIMIT = 4096  # bytes
# A rewritten file is read when it has been the same for this long (s): half a token must open nothing.
_QUIET_SECONDS = 1.0

Version = tuple[int, int, int]
_NO_FILE = 0, 0, 0

_ABSENCE = "A token is needed here: send it as 'Authorization: Bearer <token>'."
_MISMATCH = "This is not the service's token, or it was not sent as 'Authorization: Bearer <token>'."


class TokenError(ClickException, ValueError):
    """The token file cannot be used; the message names it and the remedy."""


class Refusal(NamedTuple):
    """Why somebody may not read: 401 (no valid token) or 403 (not from this address)."""

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
        """None for an insider. The message tells what the request lacks, never what is configured."""
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if self._token is not None and not self._token.opens(authorization):
            return Refusal(401, _MISMATCH if authorization else _ABSENCE)
        if self._networks is None or within(client_address(environ, self._proxies), self._networks):
            return None
        return Refusal(403, "Your address may not read this page.")

    def from_proxy(self, environ: Environ) -> bool:
        """Whether a declared proxy sent this request, so that its headers may be believed."""
        return within(sender_of(environ), self._proxies)


class _TokenFile:
    """The token in a file, read again when the file changes: a secret is rotated without a restart."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version, self._digest = self._read()

    def opens(self, authorization: str) -> bool:
        """Whether the header has the token; digests are compared, so timing tells nothing about it."""
        scheme, _, token = authorization.partition(" ")
        digest = sha256(token.strip().encode("utf-8", "replace")).digest()
        return hmac.compare_digest(digest, self._current_digest()) and scheme.lower() == "bearer"

    def _current_digest(self) -> bytes:
        # A file that is broken while it is being replaced leaves the last good token in force.
        with suppress(TokenError):
            try:
                status = os.stat(self._path)
            except OSError:
                self._version = _NO_FILE
                return self._digest
            # A file that replaces another is whole; a file that is being rewritten may be half a token.
            is_unfinished = (
                status.st_ino == self._version[0] and 0 <= time.time() - status.st_mtime < _QUIET_SECONDS
            )
            if _version(status) != self._version and not is_unfinished:
                self._version, self._digest = self._read()
        return self._digest

    def _read(self) -> tuple[Version, bytes]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise TokenError(self._complaint("it is no regular file"))
                content = os.read(descriptor, _SIZE_LIMIT + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TokenError(self._complaint(error.strerror or str(error))) from error
        if len(content) > _SIZE_LIMIT:
            raise TokenError(self._complaint(f"it has more than {_SIZE_LIMIT} bytes"))
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
