"""Replicas of the app behind nginx, as replicas.yml has them.

    python -m tests.rig.replicas counted|changed DIRECTORY

Runs in a network of its own, where it may have the addresses and the name server of Docker, so that nginx and
Prometheus read the configuration that is shipped. Durations of rules are divided by SCALE. Prints what it has
found.
"""

import http.client
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from prometheus.run import dialect, scale
from prometheus.tools.toolbox import executable
from tests.rig.deadline import eventually
from tests.rig.dns import NameServer
from tests.rig.network import get_json
from tests.rig.places import ROOT
from tests.rig.program import Program

SCALE = 10
SCRAPED, PROXIED = "10.0.0.1{}", "192.0.2.1{}"
"""The addresses of a replica by its number: in the network of all services, and in that of the proxy."""
PROXY, PROMETHEUS = "http://proxy:8000", "http://127.0.0.1:9090"
SHIPPED = ("app", "prometheus", "blackbox")
COUNT = "flask_http_request_duration_seconds_count"
RATE = "job:flask_http_request_duration_seconds:rate_5m"
CLOSED = ("/metrics", "//metrics", "/%6Detrics", "/monitoring", "/monitoring/stats")
CLIENTS = 4
REQUESTS = 150
PAUSE = 0.2  # seconds between the requests of a client
QUIET = 15  # seconds after a change; FlaskTargetDown would come after 2 minutes / SCALE


class Replicas:
    """The replicas that run, and the names under which they are found."""

    def __init__(self, directory: Path, names: NameServer, stack: ExitStack) -> None:
        self._directory, self._names, self._stack = directory, names, stack
        self._running: dict[int, Program] = {}

    def start(self, *numbers: int) -> None:
        """Start some, and name them once they are ready."""
        for number in numbers:
            self._start(number)
        for number in numbers:
            eventually(lambda: answers(SCRAPED.format(number), "/health/ready") == 200, f"replica {number}")  # noqa: B023
        self._name()

    def _start(self, number: int) -> None:
        addresses = [pattern.format(number) for pattern in (SCRAPED, PROXIED)]
        binds = [argument for address in addresses for argument in ("--bind", f"{address}:8000")]
        environ = {
            **os.environ,
            "EXPORTER_INSTANCE": f"{addresses[0]}:8000",
            "EXPORTER_TRUSTED_PROXIES": "192.0.2.0/24",
            "EXPORTER_DRAIN": "1",
            "EXPORTER_REQUEST_LOG": str(self._directory / "requests.jsonl"),
            "APP_DATABASE": str(self._directory / "orders.db"),
            "PROMETHEUS_MULTIPROC_DIR": str(self._directory / f"workers{number}"),
        }
        gunicorn = [sys.executable, "-m", "gunicorn", "--config", "app/gunicorn.conf.py", *binds]
        program = self._stack.enter_context(Program(gunicorn, self._directory / f"app{number}.log", environ))
        self._running[number] = program

    def kill(self, number: int) -> None:
        """Kill one with all its processes; its name goes afterwards, as Docker has it."""
        program = self._running.pop(number)
        os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait(10)
        self._name()

    def stop(self, number: int) -> None:
        """End one as `docker compose up --scale` does; its name goes with its last process."""
        self._running.pop(number).end(seconds=30)
        self._name()

    def _name(self) -> None:
        for name, pattern in (("app", SCRAPED), ("replicas", PROXIED)):
            self._names.addresses[name] = [pattern.format(number) for number in self._running]


def answers(host: str, path: str) -> int:
    """The status of an answer; 0 for none."""
    connection = http.client.HTTPConnection(host, 8000, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@contextmanager
def clients(*methods: str) -> Iterator[Counter[str]]:
    """Clients that use these methods in turn until the end of the with statement; counts what they get."""
    counts: Counter[str] = Counter()
    stop = threading.Event()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=15)
        for method in itertools.cycle(methods):
            if stop.wait(PAUSE):
                break
            counts[f"{method} {send(connection, method, '/orders')}"] += 1
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def send(connection: http.client.HTTPConnection, method: str, path: str) -> str:
    """The status of an answer, or the error in its place."""
    body = json.dumps({"item": "tea", "quantity": 1}) if method == "POST" else None
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return repr(error)
    return str(answer.status)


def burst() -> Counter[str]:
    """How often each method, status and rule was answered to a known number of requests."""
    counts: Counter[str] = Counter()
    kinds = (("GET", "/orders"), ("POST", "/orders"), ("GET", "/test/normal"), ("GET", "/test/notfound"))

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=15)
        for number in range(REQUESTS):
            method, path = kinds[number % len(kinds)]
            counts[f"{method} {send(connection, method, path)} {path}"] += 1
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def ask(expression: str) -> dict[str, float]:
    """The values of an instant query, by the values of their labels."""
    path = f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    return {
        " ".join(series["metric"].values()): float(series["value"][1])
        for series in get_json(f"{PROMETHEUS}{path}")["data"]["result"]
    }


def configuration(directory: Path) -> Path:
    """Prometheus' configuration as replicas.yml has it, with scaled durations."""
    source, copy = directory / "source", directory / "prometheus"
    shutil.copytree(ROOT / "prometheus", source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "deploy/replicas/probe.yml", source / "targets")
    for file in (source / "targets").glob("*.yml"):
        if file.stem not in (*SHIPPED, "probe"):
            file.write_text("[]")
    environment = yaml.safe_load((ROOT / "replicas.yml").read_text().replace("!reset", ""))
    replicas = environment["services"]["prometheus"]["environment"]["APP_REPLICAS"]
    start = ["sh", str(source / "start.sh"), "true", f"--config.file={copy}/prometheus.yml"]
    subprocess.run(start, env={**os.environ, "APP_REPLICAS": replicas}, check=True)
    document = dialect.translate(yaml.safe_load((copy / "prometheus.yml").read_text()))
    (copy / "prometheus.yml").write_text(yaml.safe_dump(document))
    scale.directory(copy, SCALE)
    return copy


def programs(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and command of each program beside the replicas."""
    nginx = (ROOT / "deploy/replicas/nginx.conf").read_text()
    # Docker gives each container an address and a /tmp of its own.
    nginx = nginx.replace("listen 8000", "listen 127.0.0.1:8000").replace("/tmp/", f"{directory}/")
    (directory / "nginx.conf").write_text(nginx)
    yield (
        "nginx",
        [str(executable("nginx")), "-e", "stderr", "-g", "user root;", "-c", f"{directory}/nginx.conf"],
    )
    yield (
        "blackbox",
        [str(executable("blackbox_exporter")), f"--config.file={ROOT}/prometheus/blackbox.yml"],
    )
    yield (
        "prometheus",
        [
            str(executable("prometheus")),
            f"--config.file={configuration(directory)}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--enable-feature={dialect.features()}",
            *scale.flags(SCALE),
        ],
    )


def run(scenario: str, directory: Path) -> dict[str, Any]:
    """Start everything with three replicas, and return what the scenario finds."""
    with ExitStack() as stack:
        names = stack.enter_context(NameServer("127.0.0.11"))
        names.addresses |= {name: ["127.0.0.1"] for name in ("proxy", "prometheus", "blackbox")}
        replicas = Replicas(directory, names, stack)
        replicas.start(1, 2, 3)
        for name, command in programs(directory):
            program = stack.enter_context(Program(command, directory / f"{name}.log", os.environ))
            if name == "prometheus":
                program.await_text("Server is ready to receive web requests")
        eventually(lambda: answers("127.0.0.1", "/health/ready") == 200, "nginx has a replica")
        found = {SCRAPED.format(number) + ":8000" for number in (1, 2, 3)}
        eventually(lambda: instances('up{job="app"} == 1') == found, "every replica is scraped")
        return counted(directory) if scenario == "counted" else changed(replicas)


def counted(directory: Path) -> dict[str, Any]:
    """What clients, Prometheus and the log say of the same requests."""
    sent = burst()
    own = f"{COUNT}{{url_rule!='/'}}"  # the prober asks for / all the while
    by_rule = f"sum by (method, status, url_rule) ({own}) > 0"
    eventually(lambda: ask(by_rule) == sent, f"{sent} are counted")
    services = eventually(lambda: ask(f"{RATE} > 0"), "the rate is recorded, with the next evaluation")
    lines = [json.loads(line) for line in (directory / "requests.jsonl").read_text().splitlines()]
    return {
        "sent": sent,
        "counted": ask(by_rule),
        "instances": ask(f"sum by (instance) ({own})"),
        "logged": Counter(line["instance"] for line in lines if line.get("url_rule") != "/"),
        "not in the queue": ask(f"sum({COUNT}) - sum(flask_http_request_queue_seconds_count)"),
        "services": services,
        "closed": {path: answers("127.0.0.1", path) for path in CLOSED},
        "health": [get_json(f"http://127.0.0.1:8000/health{path}") for path in ("", "/ready")],
    }


def changed(replicas: Replicas) -> dict[str, Any]:
    """What clients and Prometheus see while one replica is killed, one comes, and one is told to end."""
    # Nobody knows whether a POST to the one that is killed has had its effect, so the proxy sends none twice.
    with clients("GET") as before:
        eventually(lambda: sum(ask(RATE).values()) > 1, "the load is recorded")
        replicas.kill(1)
        replicas.start(4)
    with clients("GET", "POST") as after:
        replicas.stop(2)
        left = {SCRAPED.format(number) + ":8000" for number in (3, 4)}
        eventually(lambda: instances('up{job="app"} == 1') == left, "the two that are left are scraped")
        end = time.monotonic() + QUIET
        eventually(lambda: time.monotonic() > end, "an alert would have come")
    return {
        "statuses": before + after,
        "rates": {name: ask(f"{name}_over_time({RATE}[{QUIET}s])") for name in ("min", "max")},
        "alerts": sorted(ask("count_over_time(ALERTS{alertstate='firing'}[1h])")),
        "probes": ask("min_over_time(probe_success[1h])"),
    }


def instances(expression: str) -> set[str]:
    """The instances of a query's series."""
    return set(ask(f"group by (instance) ({expression})"))


def main() -> None:
    """Make the network, and run the scenario in it."""
    scenario, directory = sys.argv[1], Path(sys.argv[2])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for network in ("10.0.0.0/24", "192.0.2.0/24"):
        subprocess.run(["ip", "route", "add", "local", network, "dev", "lo"], check=True)
    (directory / "resolv.conf").write_text("nameserver 127.0.0.11\n")
    subprocess.run(["mount", "--bind", directory / "resolv.conf", "/etc/resolv.conf"], check=True)
    print(json.dumps(run(scenario, directory)))


if __name__ == "__main__":
    main()
