"""Addresses: who sent a request, and the networks that it may come from.

Works on the WSGI environ alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Environ = Mapping[str, Any]

# Headers in which proxies name the client. Lists grow to the right: each proxy appends its sender.
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
# Every header that shows a proxy, those above among them, as no list of them would ever be complete.
_SHOWS_PROXY = re.compile(
    r"HTTP_(?:.*FORWARDED.*|.*(?:_|CLIENT|SOCKET)(?:IP(?:V[46])?|ADDR(?:ESS)?)|X_ORIGINAL_.+|CDN_LOOP|CF_RAY"
    r"|FRONT_END_HTTPS|VIA|X_AMZ_CF_ID|X_NGINX_PROXY|X_SCHEME|X_VARNISH)"
).fullmatch
# RFC 7239, section 4: `for=1.2.3.4;host="a,b", for=…`. A match includes the separator after the pair.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = r"""[!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]*|"(?:[^"\\]|\\.)*\""""
_PAIR = re.compile(rf"[ \t]*(?:({_WORD})=({_VALUE})[ \t]*)?([;,]|\Z)")


def client_address(environ: Environ, proxies: Iterable[Network]) -> Address | None:
    """The address of the client; None if it is uncertain.

    The headers in which proxies name the client count only if a declared proxy sent them. A proxy maintains
    one of them and passes the others on as the client wrote them, so two headers that name different
    strangers make the client uncertain. So does a declared proxy that names nobody.
    """
    sender = sender_of(environ)
    if not within(sender, proxies):
        return None if any(map(_SHOWS_PROXY, environ)) else sender
    headers = [header for header in _ADDRESS_HEADERS if header in environ]
    if not headers:  # the proxy names no client, or uses a header that is not listed above
        return None
    clients = {_rightmost_stranger(header, environ[header], proxies) for header in headers}
    strangers = {client for client in clients if not within(client, proxies)} or clients
    return strangers.pop() if len(strangers) == 1 else None


def sender_of(environ: Environ) -> Address | None:
    """The address that sent the request to the server; None if that is no IP address."""
    # Werkzeug's ProxyFix overwrites REMOTE_ADDR from a header, and keeps the sender here.
    original = environ.get("werkzeug.proxy_fix.orig") or environ
    return address_of(original.get("REMOTE_ADDR") or "")


def _rightmost_stranger(header: str, value: str, proxies: Iterable[Network]) -> Address | None:
    """The client that one header names; all that stands left of it may be the client's own invention."""
    address = None
    for hop in reversed(_hops(value) if header == "HTTP_FORWARDED" else value.split(",")):
        address = address_of(hop)
        if not within(address, proxies):
            break
    return address


def _hops(value: str) -> list[str]:
    """The `for` of each hop in a Forwarded header, "" for a hop without one; no hops if it is malformed.

    A comma within quotes separates no hops, and no hop may repeat a name.
    """
    hops: list[dict[str, str]] = [{}]
    position = 0
    while position < len(value):
        pair = _PAIR.match(value, position)
        if pair is None or (pair[1] and pair[1].lower() in hops[-1]):
            return []
        if pair[1]:
            hops[-1][pair[1].lower()] = re.sub(r"\\(.)", r"\1", pair[2])
        if pair[3] == ",":
            hops.append({})
        position = pair.end()
    return [hop.get("for", "") for hop in hops]


def address_of(text: str) -> Address | None:
    """`1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `"[2001:db8::1]:80"` as an address; None for any other text."""
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


def plain_networks(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The networks, with IPv4-mapped ones as the IPv4 networks that they stand for."""
    plain: list[Network] = []
    for network in networks:
        ipv4 = network.network_address.ipv4_mapped if network.version == 6 else None
        if ipv4 is not None and network.prefixlen >= 96:
            plain.append(IPv4Network((ipv4, network.prefixlen - 96)))
        else:
            plain.append(network)
    return tuple(plain)


def within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether the address is in one of the networks; None is in no network."""
    return address is not None and any(address in network for network in networks)
