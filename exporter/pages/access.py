"""Who may read what the exporter knows: /metrics, /monitoring/* and the details of /health.

Works on the WSGI environ alone, so that every way of serving a page asks the same question. A private
address proves little behind a plain reverse proxy or Docker's gateway, where everybody looks private: set a
token there.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from exporter.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Environ = Mapping[str, Any]

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

# Headers in which proxies name the client. Lists grow to the right: each proxy appends whom it heard from.
_ADDRESS_HEADERS = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_X_CLIENT_IP",
    "HTTP_X_CLUSTER_CLIENT_IP",
    "HTTP_X_ORIGINAL_FORWARDED_FOR",
    "HTTP_X_ENVOY_EXTERNAL_ADDRESS",
    "HTTP_TRUE_CLIENT_IP",
    "HTTP_CF_CONNECTING_IP",
    "HTTP_FASTLY_CLIENT_IP",
    "HTTP_FLY_CLIENT_IP",
)
# Headers that show that a proxy was there, and not for whom.
_PROXY_HEADERS = (
    "HTTP_VIA",
    "HTTP_X_FORWARDED",
    "HTTP_X_FORWARDED_BY",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_SCHEME",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_FORWARDED_SSL",
)
_FORWARDED_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("[^"]*"|[^;\s]*)', re.IGNORECASE)  # RFC 7239, section 4
_TOKEN = re.compile(rb"[\x21-\x7e]+")


class TokenError(ValueError):
    """The token file cannot be used; the message names it and the remedy."""


class Refusal(NamedTuple):
    """An answer to somebody who may not read: 401 (no good token) or 403 (not from here)."""

    status: int
    message: str

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that the answer needs besides its type."""
        return [("WWW-Authenticate", "Bearer")] if self.status == 401 else []


class Access:
    """The rules of one application, fixed at start-up; only the token may be rotated.

    Raises TokenError if `settings.token_file` is missing, empty or holds anything but one printable word.
    """

    def __init__(self, settings: Settings) -> None:
        networks = settings.allow
        self._token = None if settings.token_file is None else _TokenFile(settings.token_file)
        if networks is None and self._token is None:
            networks = PRIVATE_NETWORKS
        self._networks = None if networks is None else unmapped(networks)
        self._proxies = unmapped(settings.trusted_proxies)

    def refusal(self, environ: Environ) -> Refusal | None:
        """None for an insider. The message says what is missing, never what is configured."""
        if self._token is not None and not self._token.opens(environ.get("HTTP_AUTHORIZATION", "")):
            return Refusal(401, "A token is needed here: send it as 'Authorization: Bearer <token>'.")
        if self._networks is None or _within(client_address(environ, self._proxies), self._networks):
            return None
        return Refusal(403, "Your address may not read this page.")

    def from_proxy(self, environ: Environ) -> bool:
        """Whether a declared proxy sent this request, so that what it says in headers may be believed."""
        return _within(_sender(environ), self._proxies)


def client_address(environ: Environ, proxies: Iterable[Network]) -> Address | None:
    """Where a request comes from; None if that cannot be told.

    The headers in which proxies name the client count only where a declared proxy sent them. A proxy that
    maintains one of them passes the others on as the client wrote them, so where two name different strangers
    neither is believed.
    """
    sender = _sender(environ)
    named = [header for header in _ADDRESS_HEADERS if header in environ]
    if not named and not any(header in environ for header in _PROXY_HEADERS):
        return sender
    if not _within(sender, proxies):
        return None
    clients = {_rightmost_stranger(header, environ[header], proxies) for header in named}
    strangers = {client for client in clients if not _within(client, proxies)} or clients
    return strangers.pop() if len(strangers) == 1 else None


def _sender(environ: Environ) -> Address | None:
    # Werkzeug's ProxyFix overwrites REMOTE_ADDR with what a header says; whom we heard from is kept here.
    original = environ.get("werkzeug.proxy_fix.orig") or environ
    return _address(original.get("REMOTE_ADDR") or "")


def _rightmost_stranger(header: str, value: str, proxies: Iterable[Network]) -> Address | None:
    """The client according to one header; what stands left of it may be the client's own invention."""
    address = None
    for hop in reversed(value.split(",")):
        if header == "HTTP_FORWARDED":
            node = _FORWARDED_FOR.search(hop)
            hop = node[1] if node else ""
        address = _address(hop)
        if not _within(address, proxies):
            break
    return address


class _TokenFile:
    """The token in a file, read again when the file changes: a secret is rotated without a restart."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._version = self._stat()
        self._digest = self._read()

    def opens(self, authorization: str) -> bool:
        """Compared as digests in constant time: neither content nor length can be found out by timing."""
        scheme, _, token = authorization.partition(" ")
        given = sha256(token.strip().encode("utf-8", "replace")).digest()
        return hmac.compare_digest(given, self._current()) and scheme.lower() == "bearer"

    def _current(self) -> bytes:
        # A file that is broken while it is being replaced leaves the last good token in force.
        try:
            version = self._stat()
            if version != self._version:
                self._digest = self._read()
                self._version = version
        except TokenError:
            pass
        return self._digest

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise TokenError(self._complaint(error.strerror or str(error))) from error
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                token = file.read(4096).strip()
        except OSError as error:
            raise TokenError(self._complaint(error.strerror or str(error))) from error
        if not token:
            raise TokenError(self._complaint("the file is empty"))
        if not _TOKEN.fullmatch(token):
            raise TokenError(self._complaint("a token is one word of printable ASCII characters"))
        return sha256(token).digest()

    def _complaint(self, reason: str) -> str:
        return (
            f"EXPORTER_TOKEN_FILE={self._path!r}: {reason}. Write the token into it, readable by the user "
            "that the service runs as, or unset it to use addresses alone."
        )


def _address(text: str) -> Address | None:
    """`1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `"[2001:db8::1]:80"`; anything else is None."""
    text = text.strip().strip('"').strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def unmapped(networks: Iterable[Network]) -> tuple[Network, ...]:
    """IPv4-mapped networks as the IPv4 networks that they are."""
    plain: list[Network] = []
    for network in networks:
        mapped = network.network_address.ipv4_mapped if network.version == 6 else None
        if mapped is not None and network.prefixlen >= 96:
            plain.append(IPv4Network((mapped, network.prefixlen - 96)))
        else:
            plain.append(network)
    return tuple(plain)


def _within(address: Address | None, networks: Iterable[Network]) -> bool:
    return address is not None and any(address in network for network in networks)
