"""Last words: what a worker was answering when it died is named, with the cause, whatever that was."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.store.directory import WorkerDirectory
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import Server, serving
from tests.rig.workerfiles import samples

SERVICE = """
import ctypes, os, signal, sys, time
from flask import Flask, Response
from exporter import FlaskExporter

app = Flask("mortal")
exporter = FlaskExporter(app)

def note(word, number):
    descriptor = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{word} {number} {os.getpid()}\\n".encode())
    os.close(descriptor)

@app.get("/pid")
def pid():
    return str(os.getpid())

@app.get("/wait/<int:number>")
def wait(number):
    note("begun", number)
    while not os.path.exists("go"):
        time.sleep(0.02)
    return "done"

@app.get("/work/<int:number>")
def work(number):
    note("begun", number)
    time.sleep(number % 7 / 1000)
    note("ended", number)
    return "done"

@app.get("/die/<kind>/<int:number>")
def die(kind, number):
    note("begun", number)
    if kind == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "SIGSEGV":
        ctypes.string_at(0)
    elif kind == "SIGABRT":
        os.abort()
    elif kind == "SIGBUS":
        os.kill(os.getpid(), signal.SIGBUS)
    elif kind.startswith("exit"):
        os._exit(int(kind[5:]))
    time.sleep(60)
"""
THREADS = ("--worker-class", "gthread", "--threads", "8")


@contextmanager
def waiting(server: Server, count: int) -> Iterator[None]:
    """Clients that wait for an answer meanwhile."""
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(count)]
    for number, connection in enumerate(connections):
        connection.request("GET", f"/wait/{number}")
    eventually(lambda: ledger(server)["begun"] >= count, "requests in progress")
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


def ledger(server: Server) -> Counter[str]:
    path = server.directory.parent / "ledger"
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()


def deaths(server: Server) -> list[dict[str, Any]]:
    with suppress(OSError, http.client.HTTPException):  # a worker may be dying
        answer = server.get("/monitoring/deaths")
        return list(answer.json) if answer.status == 200 else []
    return []


def provoke(server: Server, path: str) -> None:
    """Ask for what kills the worker that answers."""
    with pytest.raises((OSError, http.client.HTTPException)):
        server.get(path)


def lost(server: Server) -> dict[tuple[str, str], float]:
    """Lost requests by rule and cause."""
    pattern = re.compile(r'flask_http_requests_lost_total\{cause="(.*)",url_rule="(.*)"\}')
    with suppress(OSError, http.client.HTTPException, AssertionError):
        matches = ((pattern.fullmatch(name), value) for name, value in server.samples().items())
        return {(match[2], match[1]): value for match, value in matches if match and value}
    return {}


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "exit 7", "exit 0"])
def test_a_death_names_the_cause_and_all_that_was_in_progress(kind: str, tmp_path: Path) -> None:
    """In the log, on the page and in the counters; a crash with its Python stack."""
    with serving(tmp_path, *THREADS, source=SERVICE, workers=1) as server:
        with waiting(server, 3):
            provoke(server, f"/die/{kind.replace(' ', '%20')}/99")
            (death,) = eventually(lambda: deaths(server), "a death")

        assert list(death) == ["timestamp", "datetime", "pid", "cause", "requests", "stack"]
        assert death["cause"] == kind
        assert sorted(one["path"] for one in death["requests"]) == [
            f"/die/{kind}/99",
            *(f"/wait/{n}" for n in range(3)),
        ]
        assert {one["url_rule"] for one in death["requests"]} == {
            "/die/<kind>/<int:number>",
            "/wait/<int:number>",
        }
        assert {one["state"] for one in death["requests"]} == {"running"}
        assert all(0 <= one["age_seconds"] < 60 and len(one["request_id"]) == 24 for one in death["requests"])
        crashed = kind.startswith("SIG") and kind != "SIGKILL"
        assert any("served.py" in line and "in die" in line for line in death["stack"]) == crashed
        assert f"worker {death['pid']} died: {kind}" in server.text()
        assert '"/wait/2"' in server.text()
        expected = {("/die/<kind>/<int:number>", kind): 1.0, ("/wait/<int:number>", kind): 3.0}
        eventually(lambda: lost(server) == expected, "lost requests")
        assert server.samples()[f'flask_worker_deaths_total{{cause="{kind}"}}'] == 1.0


@pytest.mark.parametrize("code", [3, 4])
def test_an_exit_that_halts_gunicorn_is_told_in_its_log(code: int, tmp_path: Path) -> None:
    """It calls no hook for that worker; those that are stopped with it have the time that they are given."""
    options = (*THREADS, "--graceful-timeout", "1")
    with serving(tmp_path, *options, source=SERVICE, workers=1) as server, waiting(server, 2):
        provoke(server, f"/die/exit%20{code}/99")
        assert server.process.wait(60) == code

        (line,) = re.findall(r".*worker \d+ died.*", server.text())
        assert f"died: exit {code}; it was answering " in line
        assert {f'"/die/exit {code}/99"', '"/wait/0"', '"/wait/1"'} <= set(re.findall(r'"[^"]+"', line))


@pytest.mark.parametrize("kind", [("sync",), ("gthread", "--threads", "4")], ids=lambda kind: kind[0])
def test_what_is_cut_off_at_the_end_of_the_graceful_timeout_is_told(
    kind: tuple[str, ...], tmp_path: Path
) -> None:
    options = ("--worker-class", *kind, "--graceful-timeout", "1")
    with serving(tmp_path, *options, source=SERVICE, workers=1) as server, waiting(server, 1):
        assert server.end() == 0

        (line,) = re.findall(r".*worker \d+ died.*", server.text())
        assert re.search(r'died: graceful timeout; it was answering GET "/wait/0" \(', line)


HELD = f"""{SERVICE}
@app.get("/stream/<int:number>")
def stream(number):
    def chunks():
        yield "begun"
        while True:
            time.sleep(0.02)
    return Response(chunks())

@app.get("/held/<int:number>")
def held(number):
    note("begun", number)
    ctypes.PyDLL(None).sleep(60)  # with the interpreter's lock
"""


@pytest.mark.parametrize(
    ("kind", "path", "state"),
    [("sync", "/wait/9", "sending"), ("sync", "/stream/9", "sending"), ("gthread", "/held/9", "running")],
)
def test_a_timeout_names_its_request(kind: str, path: str, state: str, tmp_path: Path) -> None:
    """A sync worker answers 500 to what it is killed for, so that one is answered and not lost."""
    # Preloaded, since a worker that imports the application for 3 s would be killed for that.
    options = ("--worker-class", kind, "--timeout", "3", "--preload")
    with serving(tmp_path, *options, source=HELD, workers=1) as server:
        with suppress(OSError, http.client.HTTPException):
            server.get(path)
        (death,) = eventually(lambda: deaths(server), "a death", 60)

        assert death["cause"] == "timeout"
        assert [(one["path"], one["state"]) for one in death["requests"]] == [(path, state)]
        rule = path.replace("9", "<int:number>")
        expected = {} if state == "sending" else {(rule, "timeout"): 1.0}
        eventually(lambda: server.samples()['flask_worker_deaths_total{cause="timeout"}'] == 1.0, "the count")
        assert lost(server) == expected
        assert any("served.py" in line for line in death["stack"])


def test_workers_that_are_told_to_end_do_not_die(tmp_path: Path) -> None:
    """Neither those that are recycled, nor those that are replaced."""
    with serving(tmp_path, *THREADS, "--max-requests", "5", source=SERVICE, workers=2) as server:

        def unless_reset(ask: Callable[[], Any]) -> Any:
            with suppress(ConnectionResetError):  # gunicorn 23 resets what such a worker has just accepted
                return ask()
            return None

        def worker() -> Any:
            return unless_reset(lambda: server.get("/pid").text)

        pids = {worker() for _ in range(40)} - {None}
        assert len(pids) > 4
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: worker() not in {*pids, None}, "a reload")

        assert deaths(server) == []
        samples = eventually(lambda: unless_reset(server.samples), "an exposition")
        assert {value for name, value in samples.items() if "deaths_total" in name} == {0.0}


def test_a_hook_of_ones_own_that_calls_ours_has_the_cause(tmp_path: Path) -> None:
    """Also where nobody looks before gunicorn reaps."""
    (tmp_path / "conf.py").write_text(
        "from exporter import gunicorn as hooks\n"
        "from exporter.gunicorn import nworkers_changed, on_starting, post_worker_init\n"
        "def child_exit(server, worker):\n    hooks.child_exit(server, worker)\n"
    )
    with serving(tmp_path, *THREADS, source=SERVICE, config="conf.py", workers=1) as server:
        provoke(server, "/die/SIGKILL/9")
        (death,) = eventually(lambda: deaths(server), "a death")

        assert (death["cause"], [one["path"] for one in death["requests"]]) == ("SIGKILL", ["/die/SIGKILL/9"])


def test_the_process_for_metrics_tells_what_no_worker_can(tmp_path: Path) -> None:
    """All threads are stuck, one of them with the interpreter's lock."""
    (port,) = free_ports(1)
    options = ("--worker-class", "gthread", "--threads", "3")
    with (
        serving(tmp_path, *options, source=HELD, workers=1, EXPORTER_LISTEN=f"127.0.0.1:{port}") as server,
        waiting(server, 2),
        closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as holder,
    ):

        def stuck_now() -> list[dict[str, Any]]:
            return list(server.get("/monitoring/inflight", port=port).json)

        eventually(lambda: all(one["stack"] for one in stuck_now()), "stacks of two")
        holder.request("GET", "/held/2")
        eventually(lambda: ledger(server)["begun"] == 3, "three stuck threads")

        stuck = stuck_now()
        assert sorted(one["path"] for one in stuck) == ["/held/2", "/wait/0", "/wait/1"]
        assert {(one["state"], one["url_rule"]) for one in stuck} == {("running", None)}
        for one in stuck:
            if one["path"] == "/held/2":  # nobody could look at it
                assert (one["stack"], one["stack_age_seconds"]) == (None, None)
            else:
                assert any(line.startswith("served:wait:") for line in one["stack"])
                assert 0 < one["stack_age_seconds"] < one["age_seconds"]
        samples = server.samples(port)
        assert samples["flask_worker_threads_busy"] == 3.0
        ages = [
            value for name, value in samples.items() if name.startswith("flask_http_request_oldest_seconds")
        ]
        assert len(ages) == 1
        assert 0 < ages[0] < 60
        holder.close()
        os.kill(stuck[0]["pid"], signal.SIGKILL)
        (death,) = eventually(lambda: server.get("/monitoring/deaths", port=port).json, "a death")
        assert sorted(one["path"] for one in death["requests"]) == ["/held/2", "/wait/0", "/wait/1"]


class Load:
    """Clients that ask without a pause, each request with a number of its own."""

    numbers = itertools.count()

    def __init__(self, server: Server, clients: int) -> None:
        self._server = server
        self.sent: set[str] = set()
        self.answered: set[str] = set()
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def ask(self, path: str, number: str = "") -> str:
        """Ask for this path and a number, which is returned; OSError where nobody listens."""
        number = number or str(next(self.numbers))
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        with closing(connection):
            connection.connect()
            self.sent.add(number)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", f"{path}/{number}")
                connection.getresponse().read()
                self.answered.add(number)
        return number

    def _work(self) -> None:
        with suppress(OSError):  # until the server is gone
            while True:
                self.ask("/work")

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)


def violence(directory: Path, end: str, each: int, timeouts: int) -> int:
    """Let workers of one server die under load in many ways, and last the server; return their number.

    What is told is compared with what clients and application have noted. Every request that was begun and
    has not ended is named, with the cause, and no other; answered, lost and never read are what was sent.
    """
    options = (*THREADS, "--timeout", "3", "--graceful-timeout", "1", "--preload")
    variables = {"EXPORTER_RECENT": "100"}
    with serving(directory, *options, source=HELD, workers=4, **variables) as server:
        load = Load(server, 6)
        causes: dict[str, str] = {}
        with ThreadPoolExecutor(8) as clients:
            for kind in ("SIGKILL", "SIGSEGV", "SIGABRT") * each:
                causes[load.ask(f"/die/{kind}")] = kind
                eventually(lambda: set(causes) <= set(told(server)), "the news of a death", 60)
            # Of two in one worker one is never read.
            held = set(clients.map(load.ask, ["/held"] * timeouts)) & notes(server, "begun")
            causes |= dict.fromkeys(held, "timeout")
            eventually(lambda: set(causes) <= set(told(server)), "the news of timeouts", 60)
            eventually(lambda: counts(server) == news(server), "all deaths and losses in the counters", 60)

            waiting = [str(next(load.numbers)) for _ in range(7)]
            clients.map(load.ask, ["/wait"] * 7, waiting)
            eventually(lambda: set(waiting) <= notes(server, "begun"), "requests that do not end")
            if end == "graceful timeout":
                server.process.send_signal(signal.SIGTERM)
            else:
                causes[load.ask(f"/die/{end.replace(' ', '%20')}")] = end
            server.process.wait(60)
            load.join()
        if end == "graceful timeout":
            causes |= dict.fromkeys(waiting, end)

    named = told(server)
    started, ended = notes(server, "begun"), notes(server, "ended")
    assert started - ended <= set(named)
    assert set(named) <= load.sent - load.answered | {
        n for n, (_, state) in named.items() if state != "running"
    }
    assert {number: named[number][0] for number in causes} == causes
    totals = samples(WorkerDirectory(server.directory))
    count = sum(value for name, value in totals.items() if ANSWERED.match(name))
    lost_requests = sum(state == "running" for _, state in named.values())
    never_read = load.sent - started - set(named)
    deaths = Counter(re.findall(r"worker \d+ died: (.*?)(?:, perhaps.*)?;", server.text()))
    print(
        f"{end}: {dict(deaths)}, {len(load.sent)} sent, {count:.0f} answered, {lost_requests} lost, "
        f"{len(never_read)} never read; {len(named)} named, {len(started - ended)} begun and not ended"
    )
    assert count + lost_requests + len(never_read) == len(load.sent)
    return deaths.total()


ANSWERED = re.compile(
    r"flask_http_request_duration_seconds_count{.*/(work|die/<kind>|held|wait)/<int:number>"
)


def told(server: Server) -> dict[str, tuple[str, str]]:
    """The cause and the state of each request that the log names as a dead worker's."""
    named: dict[str, tuple[str, str]] = {}
    for cause, requests in re.findall(
        r"worker \d+ died: (.*?)(?:, perhaps.*)?; it was answering (.*)", server.text()
    ):
        assert " more" not in requests
        for number, state in re.findall(r'/(\d+)" \([0-9a-f]{24}, [\d.]+ s, (\w+)\)', requests):
            assert number not in named
            named[number] = cause, state
    return named


def news(server: Server) -> tuple[float, float]:
    """How many deaths, and how many requests that were lost with them, are in the log."""
    return server.text().count(" died: "), sum(state == "running" for _, state in told(server).values())


def counts(server: Server) -> tuple[float, float]:
    """The same in the counters."""
    with suppress(OSError, http.client.HTTPException, AssertionError):
        values = server.samples()
        deaths, losses = (
            sum(value for name, value in values.items() if name.startswith(family))
            for family in ("flask_worker_deaths_total", "flask_http_requests_lost_total")
        )
        return deaths, losses
    return -1.0, -1.0


def notes(server: Server, word: str) -> set[str]:
    lines = (server.directory.parent / "ledger").read_text().splitlines()
    return {line.split()[1] for line in lines if line.startswith(f"{word} ")}


def test_violent_deaths_under_load(tmp_path: Path) -> None:
    violence(tmp_path, "exit 3", each=1, timeouts=0)


@pytest.mark.soak
def test_five_hundred_violent_deaths_under_load(tmp_path: Path) -> None:
    """In six ways; a server that dies is started again."""
    deaths = 0
    for life, end in enumerate(itertools.cycle(("exit 3", "graceful timeout", "exit 4", "graceful timeout"))):
        (tmp_path / str(life)).mkdir()
        deaths += violence(tmp_path / str(life), end, each=4, timeouts=3)
        if deaths >= int(os.environ.get("DEATHS", "500")):
            break
