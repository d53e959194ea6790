"""Half an hour of two services with two instances each, as a real Prometheus scrapes them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import yaml

from prometheus.run.preparation import INTERVAL
from tests.incidents.shop import BROKEN, GOOD
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.program import Program
from tests.rig.stack import Run, running, settings

SECONDS = 1800
DEPLOY, ERRORS, SLOW, DEATHS, DOWN, BACK, ROLLBACK, PROBE = 660, 780, 840, 960, 1080, 1320, 1380, 1620
"""When each incident begins, in seconds. Ten minutes before the first: only then is a version a new one."""
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Flow:
    """Requests to an instance from second `begin` to `end`, `rate` a second, from each of `clients`."""

    instance: str
    paths: tuple[str, ...]
    rate: float
    begin: float = 0
    end: float = SECONDS
    clients: int = 1


EVERYDAY = {
    "orders": {("/", "/orders", "/test/normal"): 8.0, ("/nowhere", "/orders/999999"): 1.0},
    "shop": {("/", "/items"): 4.0, ("/checkout",): 2.0, ("/favicon.ico",): 0.5},
}
FLOWS = (
    *(
        Flow(f"{service}-{number}", paths, rate)
        for service, flows in EVERYDAY.items()
        for paths, rate in flows.items()
        for number in (1, 2)
    ),
    Flow("orders-1", ("/test/error", "/test/error", "/test/server-error"), 4.5, ERRORS, ERRORS + 270),
    Flow("orders-1", ("/test/slow?seconds=2",), 5, SLOW, SLOW + 240, clients=12),
    Flow("shop-2", ("/crash",), 0.1, DEATHS, DEATHS + 15),
    Flow("shop-1", ("/leak",), 0.1, DEATHS, DEATHS + 5),
)


@dataclass(slots=True)
class Services:
    """The instances but the first of orders, which is that of the run."""

    run: Run
    directory: Path
    ports: dict[str, int]
    _programs: dict[str, Program] = field(default_factory=dict)

    def start(self, instance: str, version: str) -> None:
        """Start an instance of this version, in the place of the one that is there."""
        self.stop(instance)
        directory = self.directory / instance
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "workers").mkdir(parents=True)
        package = "app" if instance.startswith("orders") else "tests.incidents.shop"
        environ = {
            **os.environ,
            "APP_BIND": f"127.0.0.1:{self.ports[instance]}",
            "APP_DATABASE": str(directory / "orders.db"),
            "APP_VERSION": version,
            "SHOP_VERSION": version,
            "PROMETHEUS_MULTIPROC_DIR": str(directory / "workers"),
            "EXPORTER_REQUEST_LOG": "off",
            "EXPORTER_DRAIN": "0",
        }
        server = ("-m", "gunicorn", "--config", "app/gunicorn.conf.py", f"{package}:create_app()")
        command = (sys.executable, *server)
        self._programs[instance] = Program(command, directory / "log", environ, ROOT)
        eventually(lambda: self.answers(instance, "/health/live"), f"{instance} {version}", PATIENCE)

    def stop(self, instance: str) -> None:
        """Stop an instance, if it is there."""
        program = self._programs.pop(instance, None)
        if program:
            with program:
                program.end()

    def close(self) -> None:
        """Stop all instances."""
        for instance in [*self._programs]:
            self.stop(instance)

    def kill_a_worker(self) -> None:
        """Kill one of the first instance of orders, as the kernel does when memory is short."""
        servers = [pid for pid, command in self.run.processes().items() if "gunicorn" in command]
        children = [Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in servers]
        os.kill(int(max(children)[0]), signal.SIGKILL)

    def answers(self, instance: str, path: str) -> bool:
        """Ask; false where nobody answers."""
        connection = HTTPConnection("127.0.0.1", self.ports[instance], timeout=30)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
        return True


def events(services: Services) -> Iterator[tuple[float, Callable[[], None]]]:
    """What happens to the instances, and when."""

    def deploy(version: str) -> None:
        for instance in ("shop-1", "shop-2"):
            services.start(instance, version)

    yield DEPLOY, lambda: deploy(BROKEN)
    yield DEATHS, services.kill_a_worker
    yield DOWN, lambda: services.stop("orders-2")
    yield BACK, lambda: services.start("orders-2", "1.1.0")
    yield ROLLBACK, lambda: deploy(GOOD)
    yield PROBE, lambda: services.stop("shop-2")


@contextmanager
def started(directory: Path) -> Iterator[Services]:
    """`make run` with these services as its targets."""
    ports = dict(zip(("orders-1", "orders-2", "shop-1", "shop-2"), free_ports(4), strict=True))
    targets = directory / "targets"
    targets.mkdir()
    addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    groups = {
        "app": [
            {"targets": ["app:8000", addresses["orders-2"]], "labels": {"service": "orders"}},
            {"targets": [addresses["shop-1"], addresses["shop-2"]], "labels": {"service": "shop"}},
        ],
        "urls": [
            {"targets": [f"http://{addresses[name]}/"], "labels": {"service": name.partition("-")[0]}}
            for name in ("orders-2", "shop-2")
        ],
        **{
            name: [{"targets": [target]}]
            for name, target in {
                "prometheus": "prometheus:9090",
                "alertmanager": "alertmanager:9093",
                "node": "node-exporter:9100",
                "blackbox": "blackbox:9115",
            }.items()
        },
    }
    for name, content in groups.items():
        (targets / f"{name}.yml").write_text(yaml.safe_dump(content))
    environ = settings(directory, TARGETS_DIR=str(targets), TRAFFIC_USERS="0")
    environ["APP_PORT"] = str(ports["orders-1"])
    with running(environ) as run, ExitStack() as stack:
        services = Services(run, directory, ports)
        stack.callback(services.close)
        services.start("orders-2", "1.0.0")
        for instance in ("shop-1", "shop-2"):
            services.start(instance, GOOD)
        run.wait_until_up()
        yield services


def play(directory: Path) -> dict[str, Any]:
    """Play the half hour, leave Prometheus' data in `directory`, and return when and where it was."""
    with started(directory) as services:
        begin = time.time() + INTERVAL
        end = threading.Event()
        threads = [
            threading.Thread(target=_send, args=(services, flow, begin, end), daemon=True)
            for flow in FLOWS
            for _ in range(flow.clients)
        ]
        for thread in threads:
            thread.start()
        try:
            for moment, event in sorted(events(services), key=lambda pair: pair[0]):
                end.wait(begin + moment - time.time())
                event()
            end.wait(begin + SECONDS - time.time())
        finally:
            end.set()
            for thread in threads:
                thread.join(PATIENCE)
    addresses = {instance: f"127.0.0.1:{port}" for instance, port in services.ports.items()}
    return {"begin": begin, "addresses": addresses}


def _send(services: Services, flow: Flow, begin: float, end: threading.Event) -> None:
    """Send the requests of one client; those that find nobody are lost."""
    count = 0
    while not end.wait(begin + flow.begin + count / flow.rate - time.time()):
        if time.time() > begin + flow.end:
            return
        services.answers(flow.instance, flow.paths[count % len(flow.paths)])
        count = max(count + 1, int((time.time() - begin - flow.begin) * flow.rate))
