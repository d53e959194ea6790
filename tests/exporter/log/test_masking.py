"""Secrets in URLs, headers and documents: hidden wherever they stand; what looks like them stays."""

from __future__ import annotations

import time

import pytest

from exporter.log.masking import Mask
from exporter.settings import DEFAULT_MASK

MASK = Mask(DEFAULT_MASK)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /x?token=S&a=1 was slow", "GET /x?token=***&a=1 was slow"),
        ("https://h/x?a=1&PassWord=S#top", "https://h/x?a=1&PassWord=***"),
        ("/x?user[password]=S&user%5Btoken%5D=S", "/x?user[password]=***&user%5Btoken%5D=***"),
        ("/x?pass%77ord=S", "/x?pass%77ord=***"),
        ("/x?a=1;token=S", "/x?a=1;token=***"),
        ("/x?token=it's;secret&a=1", "/x?token=***&a=1"),
        ("?token=S was refused", "?token=*** was refused"),
        ("<a href='/x?a=1&amp;token=S'>", "<a href='/x?a=1&amp;token=***>"),
        ("token=S&page=2", "token=***&page=2"),
        ("b'token=S'", "b'token=***"),
        ('{"url": "/x?key=S", "n": 1}', '{"url": "/x?key=***", "n": 1}'),
        ("/login?next=%2Fx%3Ftoken%3DS&a=1", "/login?next=***&a=1"),
        ("/login?next=%2Fx%3Fnext%3D%252Fy%253Ftoken%253DS", "/login?next=***"),
        ("/login?next=https%3A%2F%2Fshop%3AS%40db%2F", "/login?next=***"),
        ("cannot reach postgresql://shop:S@db:5432/x", "cannot reach postgresql://shop:***@db:5432/x"),
        ("redis://:p@ss@cache/0", "redis://:***@cache/0"),
        ("https://h/cb#access_token=S", "https://h/cb#access_token=***"),
        ("https://ghp_0123456789abcdef@h/x.git", "https://***@h/x.git"),
        ("\x1b[33mGET /x?to\x1b[0mken=S\x1b[0m 404", "GET /x?token=*** 404"),
        ("\x1b]8;;https://h/?token=S\x07link\x1b]8;;\x07", "link"),
    ],
)
def test_a_secret_in_a_url_is_hidden(text: str, shown: str) -> None:
    assert MASK.text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Digest S\nHost: h", "Authorization: ***\nHost: h"),
        ("curl -H 'X-Api-Key: S' https://h", "curl -H 'X-Api-Key: ***' https://h"),
        ("Set-Cookie: id=S; Path=/", "Set-Cookie: ***"),
        ("the header was Bearer 0123456789abcdef, twice", "the header was Bearer ***, twice"),
        ("it sent Basic Ym9iOlM0NzEx, once", "it sent Basic ***, once"),
        ("{'Authorization': 'Basic S'}", "{'Authorization': '***'}"),
        ('{"a":1,"refresh_token":"S\\"S","b":"c"}', '{"a":1,"refresh_token":"***","b":"c"}'),
        (r'"{\"password\": \"S\"}"', r'"{\"password\": \"***\"}"'),
        ('b\'{"token": "S"}\'', 'b\'{"token": "***"}\''),
        ("ImmutableMultiDict([('password', 'S')])", "ImmutableMultiDict([('password', '***')])"),
        ("User(name='x', password='S')", "User(name='x', password='***')"),
        ("host=db password=S dbname=x", "host=db password=*** dbname=x"),
        ("AccountKey=S;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
    ],
)
def test_a_secret_in_a_header_or_a_document_is_hidden(text: str, shown: str) -> None:
    assert MASK.text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("login failed, password: hunter", "login failed, password: ***"),
        ("login failed (Password: hunter2) for bob", "login failed (Password: ***) for bob"),
        ("db_password: hunter\nport: 5432", "db_password: ***\nport: 5432"),
        ("{user: bob, password: p!ss, n: 1}", "{user: bob, password: ***, n: 1}"),
        ("user: bob password: hunter host: db", "user: bob password: *** host: db"),
        ("passphrase: 'correct horse'", "passphrase: '***'"),
        ("password:hunter2", "password:***"),
        ("the new password: s3(ret! is set", "the new password: *** is set"),
        ('{"otp": 123456, "n": 123456}', '{"otp": ***, "n": 123456}'),
        ("access token: abc.def-0 expires", "access token: *** expires"),
        ("API key: sk_live_4711", "API key: ***"),
        ("session_id: 5f3a2b", "session_id: ***"),
        ("session: ab12 of x12", "session: *** of x12"),
        ("bad password: token: a1b2c3", "bad password: token: ***"),
        ("db_password: 'p(ss' was refused", "db_password: '***' was refused"),
        ("clientSecret: 'a1b2'", "clientSecret: '***'"),
        ("run: tool --password hunter --level 3", "run: tool --password *** --level 3"),
        ("run: tool --api-key=abc --token 'a b'", "run: tool --api-key=*** --token '***'"),
        ("['tool', '--db-password', 'hunter', '-v']", "['tool', '--db-password', '***', '-v']"),
        ("ALTER ROLE bob PASSWORD 'S S'", "ALTER ROLE bob PASSWORD '***'"),
        (
            "[SQL: INSERT INTO u (a, password) VALUES (?, ?)]\n[parameters: ('b', 'S')]\n(Background",
            "[SQL: INSERT INTO u (a, password) VALUES (?, ?)]\n[parameters: ***]\n(Background",
        ),
        (
            "[SQL: SET password]\n[parameters: ('S',)]\n[SQL: SELECT a]\n[parameters: ('b',)]",
            "[SQL: SET password]\n[parameters: ***]\n[SQL: SELECT a]\n[parameters: ('b',)]",
        ),
        (  # the text of an error within another text
            r"{'error': '[SQL: SET password]\n[parameters: (S,)]\n(Background'}",
            r"{'error': '[SQL: SET password]\n[parameters: ***]",
        ),
        (
            "user.password\n  too short [type=x, input_value='S', input_type=str]",
            "user.password\n  too short [type=x, input_value=***, input_type=str]",
        ),
        ("<user>bob</user><password>S</password>", "<user>bob</user><password>***</password>"),
        ("<w:Password t='x'>\nS S\n</w:Password>", "<w:Password t='x'>***</w:Password>"),
        ("<ApiKey><![CDATA[S<S]]></ApiKey>", "<ApiKey>***</ApiKey>"),
    ],
)
def test_a_secret_that_a_sentence_a_command_or_an_element_tells_is_hidden(text: str, shown: str) -> None:
    assert MASK.text(text) == shown


def test_a_field_with_the_name_of_a_secret_is_hidden() -> None:
    assert [MASK.field(name, "S") for name in ("api_key", "key", "error_code")] == ["***", "S", "S"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"code": "E11", "key": "orders:1", "errorcode": "x"}',
        "login(user, password=password)\n    token=token,\n    session = self.sessions['a']",
        "basic authentication failed: the Bearer token is old, status-code: 500",
        "missing: ['password', 'name'], session_count=3",
        "git+ssh://git@h/x",
        "max(orders, key=len) of token=None",
        "/x?keyboard=1&monkey=2&page=%C3%A9",
        "/x?token&next=%2Fx%3Fpage%3D2",
        "https://h:8000/x@y and mail@example.org",
        "a == b, c != d",
        "password: must have at least 8 characters; password: required, token: expired",
        "unexpected token: end, session: x12",
        "unexpected token: 'end' near key: orders-2026, exit code: 1370, error_code: E1042",
        "jwt.exceptions.ExpiredSignatureError: Signature has expired2\nKeyError: 'item7'",
        "def login(user: str, password: str) -> None:\n    if not password: raise Refused(4711)",
        "tokens: 4096, sessions: 1200, tests passed: 1234, credit: 1000, session timeout: 1800",
        "http://session:8080/x of session-service:8080, auth.py:1234",
        "tool --no-password db1 --key-file /x/1 --passthrough yes --token -v",
        "[SQL: INSERT INTO u (a) VALUES (?)]\n[parameters: ('password1',)]",
        "user.name\n  too short [type=x, input_value='S', input_type=str]",
        "<code>E11</code><key>n</key><author>x</author><password></password>",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert MASK.text(text) == text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ('token=a"b<c', "token=***"),
        ("next=%2Fx%3Ftoken%3DS", "next=***"),
        ("filter=key%3DS", "filter=***"),
        ("next=/x?page=1%26token%3DS", "next=***"),
        ("a=1;token=S&b=2", "a=1;token=***&b=2"),
        ('d={"password":"S"}&b=2', 'd={"password":"***"}&b=2'),
    ],
)
def test_a_query_string_is_masked_as_a_whole(query: str, shown: str) -> None:
    assert MASK.query(query) == shown


@pytest.mark.parametrize(
    "part",
    [
        "password:",
        "password: ",
        "token: 'a ",
        "--",
        "--password='",
        "<a",
        "<token><![CDATA[",
        "a-",
        ":",
        "\"'=",
        "[SQL: ",
    ],
)
def test_no_text_takes_long(part: str) -> None:
    """Clients choose parts of it; an expression that looks again at the same characters takes minutes."""
    long = part * 32_000 + ".)" * 32_000 + "x"
    begin = time.process_time()
    MASK.text(long[: len(long) // 2])
    MASK.text(long)
    assert time.process_time() - begin < 30.0


def test_the_names_are_a_setting() -> None:
    assert Mask(["iban"]).text("ALTER ROLE bob PASSWORD 'S'") == "ALTER ROLE bob PASSWORD 'S'"
    assert Mask(["iban"]).text("/x?iban=1&token=2 iban: DE12") == "/x?iban=***&token=2 iban: ***"
