"""The screen of `python -m exporter top`: what stands where, in which colour, and what does not fit."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from exporter.commands.alerts import Alerts
from exporter.commands.history import History
from exporter.commands.remote import Snapshot
from exporter.commands.screen import Screen
from exporter.commands.view import View

ENDPOINT = {
    "request_count": 1234, "error_count": 61, "error_rate": 0.05, "average_response_time_ms": 5.0,
    "max_response_time_ms": 30.0, "response_time_percentiles": {"p50": 4.0, "p95": 9.0, "p99": 20.0},
}  # fmt: skip


def look(at: float = 100.0, total: int = 2000, endpoints: int = 1, requests: int = 1) -> Snapshot:
    """A look at a service with so many endpoints and latest requests."""
    stats = {
        "uptime_seconds": 59.9, "total_requests": total, "total_errors": total // 20, "error_rate": 0.05,
        "requests_per_second": 3.0, "average_response_time_ms": at, "error_types": {"KeyError": 7},
        "response_time_percentiles": {"p50": 4.0, "p95": 9.0, "p99": 20.0},
    }  # fmt: skip
    latest = [
        {
            "timestamp": 30.5 + number, "method": "GET", "path": f"/orders/{number}", "status_code": 200,
            "duration_ms": 4.0, "request_id": f"id-{number}", "url_rule": "/orders/<int:number>",
        }
        for number in range(requests)
    ]  # fmt: skip
    figures = {f"/{number:02}": ENDPOINT for number in range(endpoints)}
    return Snapshot(at, stats, figures, latest, [], {"status": "healthy"})


def screen(snapshot: Snapshot, view: View | None = None, *earlier: Snapshot) -> Screen:
    """The screen after these looks."""
    history = History()
    for moment in (*earlier, snapshot):
        history.add(moment)
    return Screen("http://shop:8000", snapshot, history, view or View())


def coloured(picture: RenderableType, width: int) -> str:
    """The picture in a terminal of so many columns, with its colours."""
    console = Console(
        width=width, file=io.StringIO(), force_terminal=True, color_system="standard", highlight=False
    )
    with console.capture() as capture:
        console.print(picture)
    return capture.get()


def lines(picture: RenderableType, width: int) -> list[str]:
    """Its lines without colours."""
    return [line.rstrip() for line in Text.from_ansi(coloured(picture, width)).plain.split("\n")][:-1]


def test_one_look_shows_everything() -> None:
    """The twenty latest requests, the five most frequent types of errors, and the course so far."""
    snapshot = look(104.0, 2040, requests=21)
    stats = {
        **snapshot.stats,
        "uptime_seconds": 2 * 86400 + 3 * 3600 + 4 * 60 + 5.9,
        "error_types": {f"Error{9 - number}": 1200 - number for number in range(6)},
    }
    checks = {"database": {"up": True}, "queue": {"up": False, "error": "no answer"}}
    snapshot = replace(
        snapshot,
        stats=stats,
        health={"status": "degraded", "checks": checks},
        alerts=Alerts(("A", "B"), ("C",)),
    )
    picture = screen(snapshot, None, look(100.0, 2000), look(102.0, 2010)).once(120, None)
    blank = " " * 51
    times = [datetime.fromtimestamp(30.5 + number).strftime("%H:%M:%S.%f")[:-3] for number in range(20)]

    assert lines(picture, 120) == [
        "http://shop:8000  degraded  database up  queue down: no answer  up 2d 03:04:05  2,040 requests",
        "3 firing  A  B  C",
        f"requests/s        15.0  ▂▃█{blank}error types",
        f"errors            6.7%  ▆▁█{blank}Error9       1,200",
        f"mean          104.0 ms  ▁▅█{blank}Error8       1,199",
        f"p50             4.0 ms  ▁▁▁{blank}Error7       1,198",
        f"p95             9.0 ms  ▁▁▁{blank}Error6       1,197",
        f"p99            20.0 ms  ▁▁▁{blank}Error5       1,196",
        "",
        "endpoint  requests▼  rate  errors  mean ms  p50 ms  p95 ms  p99 ms  max ms",
        "/00           1,234   0.0    5.0%      5.0     4.0     9.0    20.0    30.0",
        "",
        "time          method  path        status   ms  error  request id",
        *(
            f"{time}  GET     {f'/orders/{number}':<10}     200  4.0         id-{number}"
            for number, time in enumerate(times)
        ),
    ]


@pytest.mark.parametrize(
    ("height", "endpoints", "requests"),
    [(40, 10, 17), (21, 3, 5), (20, 2, 5), (19, 5, 8), (12, 2, 4), (8, 1, 1), (7, 1, 0), (6, 1, 0)],
)
def test_both_tables_share_the_lines(height: int, endpoints: int, requests: int) -> None:
    """Below twenty lines there is no course, and always an endpoint; one look has no keys."""
    drawn = screen(look(endpoints=50, requests=50))
    for picture, least in ((drawn.live(80, height), height), (drawn.once(80, height - 1), height - 1)):
        found = lines(picture, 80)
        text = "\n".join(found)

        assert (text.count("\n/"), text.count("/orders/")) == (endpoints, requests)
        assert f"\n1 to {endpoints} of 50 endpoints" in text
        assert ("requests/s" in text, "\ntime " in text) == (height >= 20, requests > 0)
        assert len(found) == least - (height == 7)


def test_a_table_that_shows_all_endpoints_does_not_count_them() -> None:
    assert "endpoints" not in "".join(lines(screen(look(endpoints=10)).live(80, 40), 80))


def test_a_service_without_requests() -> None:
    """One look says so with an empty table; a live view leaves it out."""
    drawn = screen(look(endpoints=0, requests=0))

    assert [line.split()[0] for line in lines(drawn.once(80, None), 80)[-3:] if line] == ["endpoint", "time"]
    assert [line.split()[0] for line in lines(drawn.live(80, 30), 80)[-3:] if line] == ["endpoint", "q"]


@pytest.mark.parametrize(
    ("width", "bars"), [(26, 1), (33, 7), (60, 34), (99, 73), (100, 30), (180, 110), (240, 160)]
)
def test_the_course_ends_with_the_latest_look(width: int, bars: int) -> None:
    """It takes the room that there is, beside the types of errors in a hundred columns; 160 looks at most."""
    former = [look(2.0 * number, 10 * number) for number in range(200)]
    drawn = lines(screen(look(400.0, 2990), None, *former).once(width, None), width)

    assert drawn[2].split("error types")[0].rstrip().endswith(" " + (bars - 1) * "▁" + "█")


def test_a_line_too_narrow_for_a_course_keeps_the_figures() -> None:
    assert lines(screen(look()).once(22, None), 22)[2:8] == [
        "requests…         3.0",
        "errors           5.0%",
        "mean         100.0 ms",
        "p50            4.0 ms",
        "p95            9.0 ms",
        "p99           20.0 ms",
    ]


def test_the_course_is_blue_and_that_of_errors_good_or_bad() -> None:
    drawn = coloured(screen(look()).once(60, None), 60).splitlines()

    assert [
        line.count(colour) for line, colour in zip(drawn[2:5], ("[34m█", "[32m█", "[34m▁"), strict=True)
    ] == [1] * 3


@pytest.mark.parametrize(("width", "errors"), [(100, True), (99, False)])
def test_the_types_of_errors_want_a_hundred_columns(width: int, errors: bool) -> None:
    assert ("KeyError     7" in "\n".join(lines(screen(look()).once(width, None), width))) is errors


def test_the_head_says_what_is_shown() -> None:
    """What is typed now is at the bottom, and in the head when it is kept."""
    view = View(endpoint="/00", errors_only=True, paused=True)
    drawn = screen(look(), view)
    assert lines(drawn.live(150, 30), 150)[0] == (
        "http://shop:8000  healthy  up 00:00:59  2,000 requests  endpoint: /00  errors only  paused"
    )

    for key in "/ord":
        view.press(key)
    found = lines(drawn.live(150, 30), 150)
    assert found[0].endswith("  errors only  paused")
    assert found[-1] == "filter: ord▏"

    view.press("\r")
    found = lines(drawn.live(150, 30), 150)
    assert found[0].endswith("  errors only  filter: ord  paused")
    assert found[-1].startswith("q quit   ? help")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "00:00:00"), (59.9, "00:00:59"), (60, "00:01:00"), (3599, "00:59:59"),
        (3600, "01:00:00"), (86399, "23:59:59"), (86400, "1d 00:00:00"), (903661, "10d 11:01:01"),
    ],
)  # fmt: skip
def test_how_long_it_is_up(seconds: float | None, text: str) -> None:
    snapshot = replace(look(), stats={"uptime_seconds": seconds})

    assert (
        lines(screen(snapshot).once(150, None), 150)[0] == f"http://shop:8000  healthy  up {text}  - requests"
    )


@pytest.mark.parametrize(
    ("state", "colour"),
    [("healthy", "32"), ("warning", "33"), ("unhealthy", "31"), ("confused", "2")],
)
def test_the_state_has_its_colour(state: str, colour: str) -> None:
    checks = {"database": {"up": True}, "queue": {"up": False, "error": "no answer"}}
    snapshot = replace(look(), health={"status": state, "checks": checks})

    assert coloured(screen(snapshot).once(150, None), 150).startswith(
        f"\x1b[1mhttp://shop:8000\x1b[0m\x1b[1;{colour}m  {state}\x1b[0m  database \x1b[32mup\x1b[0m"
        "  queue \x1b[31mdown: no answer\x1b[0m"
    )


@pytest.mark.parametrize(("ratio", "colour"), [(0.0, 32), (0.05, 32), (0.051, 31), (1.0, 31)])
def test_errors_are_red_above_five_in_a_hundred(ratio: float, colour: int) -> None:
    snapshot = look()
    snapshot.stats["error_rate"] = ratio
    snapshot.endpoints["/00"] = {**ENDPOINT, "error_rate": ratio}
    picture = coloured(screen(snapshot).once(150, None), 150)

    assert f"\x1b[1;{colour}m{ratio:>10.1%}" in picture
    assert (f"\x1b[31m{ratio:.1%}" in picture) is (colour == 31)


@pytest.mark.parametrize("length", [0, 1])
def test_what_is_too_long_is_cut(length: int) -> None:
    """A service's words do not push the others off the screen."""
    checks = {"c" * (30 + length): {"up": False, "error": "e" * (60 + length)}}
    snapshot = replace(
        look(),
        health={"status": "s" * (20 + length), "checks": checks},
        alerts=Alerts((("a" * (80 + length)),)),
    )
    cut = "…" * length

    head, news, *_ = lines(screen(snapshot, View(endpoint="/" * (60 + length))).once(300, None), 300)
    assert (
        f"  {(20 - length) * 's'}{cut}  {(30 - length) * 'c'}{cut} down: {(60 - length) * 'e'}{cut}  up"
        in head
    )
    assert head.endswith(f"  endpoint: {(60 - length) * '/'}{cut}")
    assert news == f"1 firing  {(80 - length) * 'a'}{cut}"


def test_a_look_at_other_requests_gives_no_rate() -> None:
    """It shows what it found, and the next one like it gives the rate since the last one that counted."""
    drawn = screen(look(100.0, 2000))
    drawn.show(replace(look(101.0, 2010), query={"endpoint": "/00"}))
    head, _, rate, *_ = lines(drawn.live(80, 30), 80)
    assert (head[-14:], rate) == ("2,010 requests", "requests/s         3.0  █")

    drawn.show(replace(look(104.0, 2040), query={"endpoint": "/00"}))
    head, _, rate, *_ = lines(drawn.live(80, 30), 80)
    assert (head[-14:], rate) == ("2,040 requests", "requests/s        10.0  ▃█")


def test_a_service_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is that since the first look in vain, the reason that of the last."""
    drawn = screen(look())
    for now, reason in ((50.0, "first"), (53.0, "gone " * 61)):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        drawn.lose(reason)
    monkeypatch.setattr("time.monotonic", lambda: 57.4)

    assert lines(drawn.live(400, 30), 400)[:2] == [
        "http://shop:8000  DOWN 7 s  up 00:00:59  2,000 requests",
        "gone " * 59 + "gone…",
    ]
    assert lines(drawn.live(40, 30), 40)[1:3] == ["gone " * 7 + "gone…", "requests/s         3.0  █"]
    picture = coloured(drawn.live(80, 30), 80)
    assert "\x1b[1;31m  DOWN 7 s\x1b[0m\x1b[2m  up 00:00:59\x1b[0m\x1b[2m  2,000 requests" in picture
    assert "\x1b[1;31mgone " in picture

    drawn.show(look(102.0))
    assert lines(drawn.live(80, 30), 80)[:2] == ["http://shop:8000  healthy  up 00:00:59  2,000 requests", ""]


@pytest.mark.parametrize(
    ("alerts", "line"),
    [
        (None, ""),
        (Alerts(), "\x1b[32mno alert fires\x1b[0m"),
        (Alerts(complaint="gone " + "x" * 295), "\x1b[33malerts unknown: gone " + "x" * 295 + "\x1b[0m"),
        (Alerts(complaint="gone " + "x" * 296), "\x1b[33malerts unknown: gone " + "x" * 294 + "…\x1b[0m"),
        (Alerts(("A",), ("B",)), "\x1b[1m2 firing\x1b[0m  \x1b[1;31mA\x1b[0m  \x1b[33mB\x1b[0m"),
    ],
    ids=["nobody asked", "none", "unknown", "unknown for long", "two"],
)
def test_the_news(alerts: Alerts | None, line: str) -> None:
    drawn = screen(replace(look(), alerts=alerts))

    assert coloured(drawn.live(400, 30), 400).splitlines()[1].rstrip() == line
    assert coloured(drawn.once(400, 30), 400).splitlines()[1].rstrip() == line


def test_the_news_keep_to_one_line() -> None:
    found = lines(screen(replace(look(), alerts=Alerts(tuple("ABCDEFGHIJKL")))).live(30, 30), 30)

    assert found[1:3] == ["12 firing  A  B  C  D  E  F  …", "requests/s         3.0  █"]


def test_a_long_address_is_cut() -> None:
    history = History()
    history.add(look())
    for length, shown in ((80, "h" * 80), (81, "h" * 79 + "…")):
        drawn = Screen("h" * length, look(), history, View())

        assert lines(drawn.live(150, 30), 150)[0].split()[0] == shown


@pytest.mark.parametrize(("width", "room"), [(39, 20), (26, 11)])
def test_help_and_details_break_only_their_values(width: int, room: int) -> None:
    """Each value goes on below itself, in twenty columns if there are as many."""
    view = View()
    drawn = screen(look(), view)
    view.press("?")
    assert lines(drawn.live(120, 30), 120)[2:5] == [
        "",
        "↑ ↓, k j  select a row; PgUp and PgDn move by ten, Tab to the other table",
        "Enter     of an endpoint: its requests alone; of a request: everything about it",
    ]

    view.press("?")
    view.detail = {"error_message": "x" * (2 * room + 5), "request_id": None}
    assert lines(drawn.live(width, 30), width)[2:7] == [
        "",
        "error_message  " + "x" * room,
        " " * 15 + "x" * room,
        " " * 15 + "x" * 5,
        "request_id     -",
    ]


@pytest.mark.parametrize(("length", "shown"), [(2000, 2000), (2001, 1999)])
def test_the_longest_detail(length: int, shown: int) -> None:
    drawn = screen(look(), View(detail={"error_message": "Z" * length}))

    assert "".join(lines(drawn.live(120, 40), 120)).count("Z") == shown
