"""The second stack: shipped rules and configurations, time-scaled, on free ports, with services to break."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from prometheus.drill.host import Host
from prometheus.drill.players import Player
from prometheus.drill.receiver import Receiver
from prometheus.drill.sites import Certificates, Shipper, Site
from prometheus.run import preparation
from prometheus.run.children import Children, Part, ask
from prometheus.run.parts import processes
from prometheus.run.plan import PORTS, TOP, Plan
from prometheus.tools.toolbox import executable

SCALE = 60.0
DAY = 86_400 / SCALE

PATIENCE = 90.0  # seconds until everything answers


CLIENT = "127.0.0.2"
"""The address of the drill as a declared proxy; Prometheus has another, because a proxy may not read."""


class _Client(urllib.request.HTTPHandler):
    """Sends requests from the drill's own address."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPConnection, request, source_address=(CLIENT, 0))


@dataclass(frozen=True, slots=True)
class Service:
    """A Flask service under gunicorn; `environ` are settings of its own."""

    name: str
    workers: int = 1
    environ: dict[str, str] = field(default_factory=dict)


SERVICES = (
    Service("errors", workers=2),
    Service("flaky", environ={"EXPORTER_MAX_SERIES": "40"}),
    Service("slow", environ={"EXPORTER_TRUSTED_PROXIES": CLIENT}),
    Service("down"),
    Service("pair"),
    Service("calm"),
    Service("stuck"),
    Service("sick"),
    # Forked from a loaded application, so that new workers are there at once also on a busy machine.
    Service("loop", workers=4, environ={"GUNICORN_CMD_ARGS": "--preload"}),
)


# Played services; the second instance of `checks` is well.
PLAYERS = (
    *("hour", "six-hours", "day", "three-days"),
    *("unusual", "fewer", "restless", "killed", "token", "checks", "checks-2", "versioned"),
)


class Stack:
    """Everything that the drill starts, in a directory of its own; use it in a with statement."""

    def __init__(self, directory: Path) -> None:
        self.services = {service.name: service for service in SERVICES}
        names = [part.partition(":")[0] for part in PORTS]
        ports = _free_ports(len(names) + len(SERVICES) + 1)
        self.plan = Plan(dict(zip(names, ports, strict=False)), directory, directory, SCALE, 0)
        self.ports = dict(zip(self.services, ports[len(names) :], strict=False))
        self.spare = f"127.0.0.1:{ports[-1]}"
        self.children = Children(self.plan.logs, TOP, lambda: False)
        self.receiver = Receiver()
        # Two pages, three exporters (a large one, a slow one, a log store's), and what takes samples.
        self.site, self.page, self.large, self.sluggish, self.store, self.samples = (Site() for _ in range(6))
        self.shipper = Shipper()
        self.players = {name: Player() for name in PLAYERS}
        self.certificates = Certificates(directory)
        self.secure = Site(self.certificates.context)
        self.host = Host(directory)
        trust = {"SSL_CERT_FILE": str(self.certificates.authority)}
        programs = processes(self.plan, {"prometheus", "alertmanager", "blackbox"}, directory)[1:]
        self.parts = {part.name: replace(part, environ={**part.environ, **trust}) for part in programs}
        self.parts["node-exporter"] = self.host.part(self.plan.local("node-exporter"))
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Client())

    def __enter__(self) -> "Stack":
        self.receiver.__enter__()
        self._configure()
        with preparation.claim(self.plan, {"prometheus", "alertmanager", *self.services}):
            pass
        _remember_yesterday(self.plan.data("prometheus"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.children.stop()
        self.host.close()
        sites = (self.site, self.page, self.large, self.sluggish, self.store, self.samples, self.shipper)
        for site in (*sites, self.secure, *self.players.values()):
            site.close()
        self.receiver.__exit__(None, None, None)
        for name in (*self.services, "pair-2"):
            shutil.rmtree(self._workers(name), ignore_errors=True)

    def url(self, service: str) -> str:
        """Address of a service."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def get(self, url: str, method: str = "GET", headers: dict[str, str] | None = None) -> int:
        """Send a request and return the status of its answer, or 0 if none comes."""
        request = urllib.request.Request(url, method=method, headers=headers or {})  # noqa: S310 -- our own
        try:
            with self._opener.open(request, timeout=10) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def api(self, path: str) -> Any:
        """Return `data` of what Prometheus' API answers."""
        return json.loads(ask(f"{self.plan.url('prometheus')}/api/v1/{path}"))["data"]

    def start(self, service: str, name: str = "") -> None:
        """Start a service, or with a `name` another instance of it on the spare address."""
        workers = self._workers(name or service)
        shutil.rmtree(workers, ignore_errors=True)
        workers.mkdir(parents=True)
        disk = self.host.disk(self.children.process("node-exporter"))
        environ = {
            "APP_BIND": self.spare if name else f"127.0.0.1:{self.ports[service]}",
            "APP_DATABASE": str(self.database(service)),
            "APP_THREADS": "8",
            "WEB_CONCURRENCY": str(self.services[service].workers),
            "PROMETHEUS_MULTIPROC_DIR": str(workers),
            "EXPORTER_DRAIN": "0",
            "EXPORTER_REQUEST_LOG": str(disk / "requests.jsonl") if service == "flaky" else "off",
            **self.services[service].environ,
        }
        command = (sys.executable, "-m", "gunicorn", "--config", "app/gunicorn.conf.py")
        health = f"http://{environ['APP_BIND']}/health/live"
        self.children.start(
            Part(name or service, (*command, "prometheus.drill.app:create_app()"), environ, health)
        )

    def database(self, service: str) -> Path:
        """Path of the file with the orders of a service."""
        return self.plan.data(service) / "orders.db"

    def workers_of(self, service: str) -> list[int]:
        """Process ids of a service's workers."""
        master = self.children.process(service)
        with contextlib.suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
        return []

    def write_targets(self, without: Iterable[str] = ()) -> None:
        """Write app.yml; `vanished` and `gone` are other names of the calm service."""
        addresses = {service: [f"127.0.0.1:{port}"] for service, port in self.ports.items()}
        addresses["pair"].append(self.spare)
        addresses |= {
            "vanished": addresses["calm"],
            "gone": addresses["calm"],
            "large": [self.large.address],
            "sluggish": [self.sluggish.address],
            **{name: [player.address] for name, player in self.players.items()},
        }
        addresses["checks"] += addresses.pop("checks-2")
        groups = [
            {"targets": targets, "labels": {"service": service, "logs": "loki"}}
            for service, targets in addresses.items()
            if service not in without
        ]
        self._write_target_file("app", groups)

    def reload(self) -> None:
        """Have Prometheus read its configuration again."""
        os.kill(self.children.process("prometheus"), signal.SIGHUP)

    def _configure(self) -> None:
        preparation.copy_configuration(self.plan)
        file = self.plan.configuration / "prometheus.yml"
        document = yaml.safe_load(file.read_text())
        for job in document["scrape_configs"]:
            if job["job_name"] == "probe":
                # A probe that waits for at most a second cannot see that a site takes longer.
                job |= {"scrape_interval": "2s", "scrape_timeout": "2s"}
        document["remote_write"] = [
            {
                "url": f"http://{self.samples.address}/api/v1/write",
                "queue_config": {"batch_send_deadline": "200ms", "max_backoff": "200ms"},
            }
        ]
        file.write_text(yaml.safe_dump(document))
        for setting, path in (("ALERT_SECRET_FILE", "people"), ("ALERT_HEARTBEAT_FILE", "heartbeat")):
            secret = self.plan.run / path
            secret.write_text(f"{self.receiver.url}/{path}\n")
            os.environ[setting] = str(secret)
        os.environ["ALERT_RECEIVER"] = "webhook"
        preparation.render_alertmanager(self.plan)
        # Each alert has to arrive, even if that of its cause would inhibit it.
        alertmanager = yaml.safe_load(self.plan.alertmanager.read_text())
        del alertmanager["inhibit_rules"]
        self.plan.alertmanager.write_text(yaml.safe_dump(alertmanager, allow_unicode=True))
        self.write_targets()
        for job in ("prometheus", "alertmanager"):
            self._write_target_file(job, [{"targets": [self.plan.local(job)]}])
        self._write_target_file("node", [{"targets": [self.plan.local("node-exporter")]}])
        self._write_target_file("blackbox", [{"targets": [self.plan.local("blackbox")]}])
        self._write_target_file("loki", [{"targets": [self.store.address]}])
        self._write_target_file("alloy", [{"targets": [self.shipper.address]}])
        probes = {
            "sick": [f"{self.url('sick')}/health/ready"],
            "site": [f"http://{self.site.address}/"],
            "page": [f"http://{self.page.address}/"],
            "secure": [f"https://{self.secure.address}/"],
            "token": [f"http://{self.page.address}/"],
        }
        self._write_target_file(
            "probe",
            [
                {"targets": urls, "labels": {"service": service, "__prober__": self.plan.local("blackbox")}}
                for service, urls in probes.items()
            ],
        )

    def _write_target_file(self, job: str, groups: list[dict[str, Any]]) -> None:
        file = self.plan.configuration / "targets" / f"{job}.yml"
        new = file.with_suffix(".new")
        new.write_text(yaml.safe_dump(groups))
        new.replace(file)

    def _start(self) -> None:
        for part in self.parts.values():
            self.children.start(part)
        self.children.wait(self.children.healthy(list(self.parts.values())), PATIENCE)
        for service in self.services:
            self.start(service)
        self.start("pair", "pair-2")
        self.children.wait(self._complaint, PATIENCE)

    def _complaint(self) -> str | None:
        """The targets that are not up; None if there are none."""
        try:
            targets = self.api("targets?state=active")["activeTargets"]
        except OSError as error:
            return f"prometheus does not list its targets ({error})"
        down = [target["scrapeUrl"] for target in targets if target["health"] != "up"]
        return f"not up: {', '.join(down)}" if down or not targets else None

    def _workers(self, name: str) -> Path:
        shm = preparation.SHM if preparation.SHM.is_dir() else self.plan.run
        return shm / f"{self.plan.run.name}-{name}"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for server in sockets:
            server.bind(("127.0.0.1", 0))
        return [server.getsockname()[1] for server in sockets]


def _remember_yesterday(data: Path) -> None:
    """Give Prometheus the past that alerts compare with, a second between two samples.

    Yesterday `gone` had ten requests a second, `fewer` a thousand, and `unusual` was fast. The services that
    spend their budgets have been there for more than half of their windows.
    """
    now = time.time()
    family = "job:flask_http_request_duration_seconds"
    yesterday = (now - DAY - 120, 900)
    past = [
        (f'{family}:rate_5m{{job="app",service="gone"}}', 10.0, yesterday),
        (f'{family}:rate_5m{{job="app",service="fewer"}}', 1000.0, yesterday),
        (f'{family}:rate_5m{{job="app",service="unusual"}}', 0.01, yesterday),
        (f'{family}:p95_15m{{job="app",service="unusual"}}', 0.04, yesterday),
    ]
    for player, long in (("hour", 1), ("six-hours", 6), ("day", 24), ("three-days", 72)):
        seconds = int(long * 3600 / SCALE * 0.6)
        for slo in ("errors", "latency", "tail"):
            labels = f'{{job="app",service="{player}",slo="{slo}"}}'
            # Hardly any requests, so that they count for nothing. The rules of days add up whole hours.
            recorded = {"total_rate_5m": 1e-6, "good_rate_5m": 1e-6}
            if long > 6:
                recorded |= {"total_1h": 1e-6, "good_1h": 1e-6, "covered_1h": 1.0}
            past += [
                (f"slo:flask_http_requests:{name}{labels}", value, (now - seconds - 10, seconds))
                for name, value in recorded.items()
            ]
    samples = [
        f"{series} {value:g} {begin + second:.3f}"
        for series, value, (begin, seconds) in sorted(past)
        for second in range(seconds)
    ]
    text = data / "yesterday.txt"
    text.write_text("\n".join([*samples, "# EOF", ""]))
    subprocess.run(
        [executable("promtool"), "tsdb", "create-blocks-from", "openmetrics", text, data],
        check=True,
        capture_output=True,
    )
    text.unlink()
