"""Who is let in, asked over real sockets: what the client can invent must not help it."""

from __future__ import annotations

import hmac
import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from exporter.addresses import client_address
from exporter.pages.access import Access, TokenError
from exporter.settings import Settings
from tests.rig.deadline import eventually
from tests.rig.descriptors import open_below
from tests.rig.server import QUIET


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: pytest's output is for failures."""


class _V6Server(WSGIServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 arrives as ::ffff:a.b.c.d
        super().server_bind()


@contextmanager
def _served(
    access: Access, server_type: type[WSGIServer] = WSGIServer, bind: str = "127.0.0.1"
) -> Iterator[int]:
    """The port of a server whose every page is for insiders."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        refused = access.refusal(environ)
        status, message = refused or (200, "come in")
        headers = refused.headers if refused else []
        start_response(f"{status} X", [("Content-Type", "text/plain"), *headers])
        return [message.encode()]

    server = server_type((bind, 0), _QuietHandler)
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _get(
    port: int, headers: Mapping[str, str] | None = None, host: str = "127.0.0.1"
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/metrics", headers=dict(headers or {}))
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def _access(**settings: Any) -> Access:
    return Access(Settings.load({}, **settings))


def _token_file(path: Path, token: bytes = b"s3cret\n") -> str:
    path.write_bytes(token)
    return str(path)


def _status(access: Access, environ: dict[str, Any]) -> int:
    refused = access.refusal(environ)
    return refused.status if refused else 200


class TestSockets:
    def test_loopback_is_inside_by_default(self) -> None:
        with _served(_access()) as port:
            assert _get(port).status == 200

    def test_ipv6_loopback_is_inside_by_default(self) -> None:
        with _served(_access(), _V6Server, "::1") as port:
            assert _get(port, host="::1").status == 200

    @pytest.mark.parametrize(
        ("networks", "status"),
        [("127.0.0.0/8", 200), ("::ffff:127.0.0.1/128", 200), ("::ffff:0:0/96", 200), ("::1", 403)],
    )
    def test_ipv4_through_an_ipv6_socket_counts_as_ipv4(self, networks: str, status: int) -> None:
        with _served(_access(allow=networks), _V6Server, "::") as port:
            assert status == _get(port).status

    def test_outside_the_allowed_networks_is_403_without_a_hint(self) -> None:
        with _served(_access(allow="10.1.2.0/24")) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/")
            response = connection.getresponse()

            assert (response.status, response.read()) == (403, b"Your address may not read this page.")
            connection.close()

    @pytest.mark.parametrize(
        "header",
        [
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-For", ""),
            ("Forwarded", "for=127.0.0.1"),
            ("X-Real-IP", "127.0.0.1"),
            ("X-Client-IP", "127.0.0.1"),
            ("True-Client-IP", "10.0.0.1"),
            ("CF-Connecting-IP", "10.0.0.1"),
            ("Via", "1.1 proxy"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "example.org"),
            ("X-Azure-SocketIP", "10.0.0.1"),
            ("CF-Connecting-IPv6", "fc00::1"),
            ("CloudFront-Viewer-Address", "10.0.0.1:80"),
            ("X-Remote-Addr", "10.0.0.1"),
            ("X-Vercel-Forwarded-For", "10.0.0.1"),
            ("X-Original-URL", "/"),
            ("CDN-Loop", "cdn"),
        ],
    )
    def test_a_forwarding_header_from_no_declared_proxy_is_from_outside(
        self, header: tuple[str, str]
    ) -> None:
        with _served(_access()) as port:
            assert _get(port, dict([header])).status == 403

    @pytest.mark.parametrize(
        "header",
        ["X-Request-ID", "Traceparent", "X-Prometheus-Scrape-Timeout-Seconds", "Zip", "X-Description"],
    )
    def test_any_other_header_is_no_proxys(self, header: str) -> None:
        with _served(_access()) as port:
            assert _get(port, {header: "10"}).status == 200

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 403),  # it says nobody's name, or does so in a header that is not known here
            ({"X-Azure-ClientIP": "10.9.8.7"}, 403),
            ({"X-Azure-ClientIP": "8.8.8.8"}, 403),
            ({"X-Forwarded-For": "10.9.8.7"}, 200),
            ({"X-Forwarded-For": "203.0.113.9"}, 403),
            ({"X-Forwarded-For": "127.0.0.1, 203.0.113.9"}, 403),  # the left part is the client's own
            ({"X-Forwarded-For": "203.0.113.9, 10.9.8.7"}, 200),
            (
                {"X-Forwarded-For": "203.0.113.9, 127.0.0.5"},
                403,
            ),  # the right-most is a declared proxy as well
            ({"X-Forwarded-For": "203.0.113.9:4711"}, 403),
            ({"X-Forwarded-For": "10.9.8.7:4711"}, 200),
            ({"X-Forwarded-For": "[fc00::7]:4711"}, 200),
            ({"X-Forwarded-For": "::ffff:10.9.8.7"}, 200),
            ({"X-Forwarded-For": "unknown"}, 403),
            ({"X-Forwarded-For": ""}, 403),
            ({"X-Forwarded-Proto": "https"}, 403),
            ({"Forwarded": 'for="[fc00::7]:4711";proto=https'}, 200),
            ({"Forwarded": "for=203.0.113.9"}, 403),
            ({"Forwarded": "for=10.9.8.7, for=203.0.113.9;by=127.0.0.1"}, 403),
            ({"Forwarded": "for=203.0.113.9, for=10.9.8.7"}, 200),
            ({"Forwarded": "for=10.9.8.7, by=127.0.0.1"}, 403),  # whom the last one heard from is not said
            ({"Forwarded": "proto=https;For=10.9.8.7"}, 200),
            ({"Forwarded": "for=_hidden"}, 403),
            # What the client sent as its Host, which the proxy quotes as RFC 7239 wants it.
            ({"Forwarded": 'for=203.0.113.9;host="x,for=10.0.0.9"'}, 403),
            ({"Forwarded": 'host="x;for=10.0.0.9";for=203.0.113.9'}, 403),
            ({"Forwarded": r'for=203.0.113.9;host="x\",for=10.0.0.9;a=\""'}, 403),
            ({"Forwarded": 'for=10.9.8.7;host="x,for=203.0.113.9"'}, 200),
            ({"Forwarded": 'for=203.0.113.9;host="x, for=10.0.0.9'}, 403),
            ({"Forwarded": "host=x,for=10.0.0.9;for=203.0.113.9"}, 403),
            ({"Forwarded": "for=;for=10.0.0.9"}, 403),
            ({"Forwarded": "for=10.9.8.7;proto=https;proto="}, 403),
            ({"Forwarded": "for=203.0.113.9 for=10.0.0.9"}, 403),
            ({"X-Real-IP": "10.9.8.7"}, 200),
            # The proxy maintains one header and passes the client's invention in the other on.
            ({"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=127.0.0.1"}, 403),
            ({"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "10.9.8.7"}, 403),
            ({"X-Forwarded-For": "10.9.8.6", "X-Real-IP": "10.9.8.7"}, 403),
            (
                {"X-Forwarded-For": "10.9.8.7, 127.0.0.9", "X-Real-IP": "127.0.0.9"},
                200,
            ),  # two proxies in a row
        ],
    )
    def test_behind_a_declared_proxy_the_rightmost_stranger_counts(
        self, headers: dict[str, str], status: int
    ) -> None:
        with _served(_access(trusted_proxies="127.0.0.0/8")) as port:
            assert status == _get(port, headers).status

    def test_repeated_forwarding_headers_count_as_one_list(self) -> None:
        with _served(_access(trusted_proxies="127.0.0.1")) as port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.putrequest("GET", "/")
            connection.putheader("X-Forwarded-For", "10.0.0.1")
            connection.putheader("X-Forwarded-For", "203.0.113.9")
            connection.endheaders()

            assert connection.getresponse().status == 403
            connection.close()

    def test_with_a_token_everybody_needs_it(self, tmp_path: Path) -> None:
        with _served(_access(token_file=_token_file(tmp_path / "token"))) as port:
            refused = _get(port)

            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert _get(port, {"Authorization": "Bearer wrong"}).status == 401
            assert _get(port, {"Authorization": "Basic s3cret"}).status == 401
            assert _get(port, {"Authorization": "s3cret"}).status == 401
            assert _get(port, {"Authorization": "Bearer "}).status == 401
            assert _get(port, {"Authorization": "bearer s3cret"}).status == 200

    def test_the_token_opens_from_outside_where_no_networks_are_given(self, tmp_path: Path) -> None:
        with _served(_access(token_file=_token_file(tmp_path / "token"))) as port:
            headers = {"Authorization": "Bearer s3cret", "X-Forwarded-For": "203.0.113.9"}

            assert _get(port, headers).status == 200

    def test_networks_apply_beside_the_token(self, tmp_path: Path) -> None:
        token_file = _token_file(tmp_path / "token")
        for networks, status in (("10.0.0.0/8", 403), ("127.0.0.1", 200)):
            with _served(_access(token_file=token_file, allow=networks)) as port:
                assert status == _get(port, {"Authorization": "Bearer s3cret"}).status
                assert _get(port).status == 401

    def test_a_unix_socket_is_outside(self, tmp_path: Path) -> None:
        (tmp_path / "wall.py").write_text(
            "from exporter.pages.access import Access\n"
            "from exporter.settings import Settings\n"
            "access = Access(Settings.load({}, allow='0.0.0.0/0 ::/0'))\n"
            "def application(environ, start_response):\n"
            "    status, message = access.refusal(environ) or (200, 'come in')\n"
            "    start_response(f'{status} X', [('Content-Type', 'text/plain')])\n"
            "    return [message.encode()]\n"
        )
        path = tmp_path / "socket"
        command = [sys.executable, "-m", "gunicorn", *QUIET, "--chdir", str(tmp_path)]
        with subprocess.Popen(
            [*command, "--bind", f"unix:{path}", "wall:application"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                assert _first_answer(path)[9:12] == b"403"
            finally:
                server.terminate()


def _first_answer(path: Path) -> bytes:
    """What the server on a Unix socket says to `GET /`, once it is there."""

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(path)) == 0

    eventually(listens, f"somebody listens on {path}")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connection.recv(4096)


def _through_proxy_fix(sender: str, claim: str) -> dict[str, Any]:
    """The environ behind Werkzeug's ProxyFix of a request whose X-Forwarded-For is `claim`."""
    environ = {"REMOTE_ADDR": sender, "HTTP_X_FORWARDED_FOR": claim, "HTTP_HOST": "x"}
    ProxyFix(lambda *_: [])(environ, lambda *_: lambda _: None)
    return environ


class TestClientAddress:
    def test_proxy_fix_does_not_hide_the_sender(self) -> None:
        """Werkzeug's ProxyFix believes any header: whom we heard from still has to be a declared proxy."""
        environ = _through_proxy_fix("203.0.113.9", "127.0.0.1")

        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert client_address(environ, ()) is None
        assert _access().refusal(environ) is not None

    @pytest.mark.parametrize("claim", ["127.0.0.1", "10.0.0.1", "10.0.0.1, 127.0.0.1"])
    def test_proxy_fix_makes_no_declared_proxy_of_a_stranger(self, claim: str) -> None:
        access = _access(trusted_proxies="127.0.0.1 10.0.0.1")
        environ = _through_proxy_fix("203.0.113.9", claim)

        assert _status(access, environ) == 403
        assert not access.from_proxy(environ)
        assert access.from_proxy(_through_proxy_fix("10.0.0.1", "203.0.113.9"))

    @pytest.mark.parametrize("hops", ["10.0.0.2", "10.0.0.2, 10.0.0.1", "10.0.0.2,10.0.0.3"])
    def test_where_all_hops_are_declared_proxies_the_first_is_the_client(self, hops: str) -> None:
        environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": hops}

        assert str(client_address(environ, [ip_network("10.0.0.0/29")])) == "10.0.0.2"

    @pytest.mark.parametrize(
        "sender", ["", None, "not an address", "127.0.0.1.evil.example", "fe80::1%", "0x7f.1", "127.1"]
    )
    def test_what_is_no_address_is_outside(self, sender: str | None) -> None:
        access = _access(allow="0.0.0.0/0 ::/0")

        assert _status(access, {"REMOTE_ADDR": sender}) == 403
        assert _status(access, {}) == 403

    @pytest.mark.parametrize(
        ("address", "inside"),
        [
            ("10.255.0.1", True),
            ("172.15.255.255", False),
            ("172.16.0.1", True),
            ("172.17.0.1", True),  # Docker's own bridge
            ("172.31.255.255", True),
            ("172.32.0.1", False),
            ("192.168.3.4", True),
            ("192.0.2.1", False),  # is_private says yes
            ("198.18.0.1", False),  # is_private says yes
            ("169.254.1.1", False),
            ("100.64.0.1", False),
            ("fd00::1", True),
            ("fe80::1%eth0", True),
            ("febf::1", True),
            ("fec0::1", False),
            ("2001:db8::1", False),
            ("::ffff:192.168.0.1", True),
            ("::ffff:8.8.8.8", False),
            ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ],
    )
    def test_the_default_networks_are_an_explicit_list(self, address: str, inside: bool) -> None:
        assert inside == (_access().refusal({"REMOTE_ADDR": address}) is None)


class TestFromProxy:
    def test_a_declared_proxy_is_believed_and_nobody_else(self) -> None:
        access = _access(trusted_proxies="10.0.0.1 fc00::/7")

        assert access.from_proxy({"REMOTE_ADDR": "10.0.0.1"})
        assert access.from_proxy({"REMOTE_ADDR": "::ffff:10.0.0.1"})
        assert not access.from_proxy({"REMOTE_ADDR": "10.0.0.2", "HTTP_X_FORWARDED_FOR": "10.0.0.1"})
        assert not access.from_proxy({"REMOTE_ADDR": ""})
        assert not _access().from_proxy({"REMOTE_ADDR": "127.0.0.1"})


class TestToken:
    def test_it_is_compared_in_constant_time_whatever_its_length(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[tuple[int, int]] = []
        compare = hmac.compare_digest

        def spy(left: bytes, right: bytes) -> bool:
            compared.append((len(left), len(right)))
            return compare(left, right)

        monkeypatch.setattr(hmac, "compare_digest", spy)
        access = _access(token_file=_token_file(tmp_path / "token"))
        for given in (
            "",
            "Bearer s",
            "Bearer s3cret",
            "Bearer " + "s" * 10_000,
            "Bearer \udcff\xe9",
            "Basic s3cret",
        ):
            access.refusal({"HTTP_AUTHORIZATION": given, "REMOTE_ADDR": "127.0.0.1"})

        assert compared == [(32, 32)] * 6

    @pytest.mark.parametrize(
        ("authorization", "message"),
        [
            ("", "A token is needed here: send it as 'Authorization: Bearer <token>'."),
            ("Bearer other", "This is not the service's token, or it was not sent as"),
            ("Basic s3cret", "This is not the service's token, or it was not sent as"),
            ("s3cret", "This is not the service's token, or it was not sent as"),
        ],
    )
    def test_a_missing_token_and_a_wrong_one_are_told_apart(
        self, tmp_path: Path, authorization: str, message: str
    ) -> None:
        access = _access(token_file=_token_file(tmp_path / "token"))
        refusal = access.refusal({"HTTP_AUTHORIZATION": authorization, "REMOTE_ADDR": "127.0.0.1"})

        assert refusal is not None
        assert (refusal.status, refusal.message[: len(message)]) == (401, message)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "the file is empty"),
            (b" \n", "the file is empty"),
            (b"two words\n", "a token is one word"),
            (b"one\ntwo\n", "a token is one word"),
            ("gehe\u00efm".encode(), "a token is one word"),
        ],
    )
    def test_a_file_without_a_usable_token_is_an_error_at_start_up(
        self, tmp_path: Path, content: bytes, reason: str
    ) -> None:
        with pytest.raises(TokenError, match=f"'{tmp_path / 'token'}': {reason}"):
            _access(token_file=_token_file(tmp_path / "token", content))

    def test_a_missing_file_is_an_error_at_start_up_that_names_it(self, tmp_path: Path) -> None:
        with pytest.raises(TokenError, match=f"'{tmp_path / 'none'}': No such file or directory. Write the"):
            _access(token_file=str(tmp_path / "none"))

    def test_a_rotated_token_is_taken_over_and_a_broken_file_keeps_the_last(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        access = _access(token_file=_token_file(path))

        def opens(token: str) -> bool:
            return access.refusal({"HTTP_AUTHORIZATION": f"Bearer {token}"}) is None

        (tmp_path / "new").write_bytes(b"n3w-one")
        os.replace(tmp_path / "new", path)
        assert (opens("s3cret"), opens("n3w-one")) == (False, True)
        path.unlink()
        assert (opens("s3cret"), opens("n3w-one")) == (False, True)
        path.write_bytes(b"")
        assert (opens(""), opens("n3w-one")) == (False, True)
        path.write_bytes(b"third")
        assert (opens("third"), opens("n3w-one")) == (True, False)
        assert open_below(tmp_path) == []

    def test_a_file_that_comes_back_counts_at_once(self, tmp_path: Path) -> None:
        """Only one that is written in its place may be half a token."""
        path, elsewhere = tmp_path / "token", tmp_path / "elsewhere"
        access = _access(token_file=_token_file(path))
        path.rename(elsewhere)
        assert _status(access, {"HTTP_AUTHORIZATION": "Bearer s3cret"}) == 200
        elsewhere.write_bytes(b"n3w-one")
        elsewhere.rename(path)

        assert _status(access, {"HTTP_AUTHORIZATION": "Bearer n3w-one"}) == 200

    def test_a_token_that_replaces_one_of_the_same_length_and_time_is_taken_over(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "token"
        access = _access(token_file=_token_file(path, b"former"))
        status = path.stat()
        (tmp_path / "new").write_bytes(b"latter")
        os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(tmp_path / "new", path)

        assert _status(access, {"HTTP_AUTHORIZATION": "Bearer latter"}) == 200
        assert _status(access, {"HTTP_AUTHORIZATION": "Bearer former"}) == 401

    @pytest.mark.parametrize("authorization", ["Bearer  s3cret", "bearer s3cret ", "BEARER \ts3cret\t"])
    def test_spaces_around_it_and_the_case_of_the_scheme_do_not_matter(
        self, tmp_path: Path, authorization: str
    ) -> None:
        access = _access(token_file=_token_file(tmp_path / "token"))

        assert _status(access, {"HTTP_AUTHORIZATION": authorization}) == 200

    def test_half_of_a_token_opens_nothing(self, tmp_path: Path) -> None:
        """A file that is written anew counts when it has stayed as it is for a second."""
        path = tmp_path / "token"
        access = _access(token_file=_token_file(path))

        def opens(token: str) -> bool:
            return access.refusal({"HTTP_AUTHORIZATION": f"Bearer {token}"}) is None

        for part in (b"n", b"n3w", b"n3w-one"):
            path.write_bytes(part)
            assert (opens(part.decode()), opens("s3cret")) == (False, True)
        os.utime(path, (path.stat().st_mtime - 2,) * 2)
        assert (opens("n3w-one"), opens("s3cret")) == (True, False)

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_only_a_regular_file_has_a_token(self, make: Callable[[Path], None], tmp_path: Path) -> None:
        """At the start it is an error, and later it hangs nobody."""
        make(tmp_path / "strange")
        with pytest.raises(TokenError, match="regular file"):
            _access(token_file=str(tmp_path / "strange"))
        path = tmp_path / "token"
        access = _access(token_file=_token_file(path))
        os.unlink(path)
        make(path)

        assert access.refusal({"HTTP_AUTHORIZATION": "Bearer s3cret"}) is None

    def test_a_token_is_never_cut(self, tmp_path: Path) -> None:
        with pytest.raises(TokenError, match="more than 4096 bytes"):
            _access(token_file=_token_file(tmp_path / "token", b"s" * 4097))

        access = _access(token_file=_token_file(tmp_path / "token", b"s" * 4096))
        assert access.refusal({"HTTP_AUTHORIZATION": "Bearer " + "s" * 4096}) is None
        assert access.refusal({"HTTP_AUTHORIZATION": "Bearer " + "s" * 4095}) is not None
