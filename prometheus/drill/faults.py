"""What is broken for real, how it is mended, and which alerts must tell of it."""

import datetime
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus.drill.host import MEMORY, fill
from prometheus.drill.stack import Stack

BURN_WINDOWS = (("1h", "critical"), ("6h", "critical"), ("1d", "warning"), ("3d", "warning"))

# One of the rules' own making: several series on both sides of a match.
BROKEN_RULE = """\
groups:
  - name: broken
    rules:
      - record: broken
        expr: up + on () up
"""


@dataclass(frozen=True, slots=True)
class Expected:
    """An alert, and labels that it must carry."""

    alert: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: `cause` begins it, `mend` ends it.

    `before` is what has to be so beforehand. It waits for the fault called `after`.
    """

    what: str
    expected: tuple[Expected, ...]
    cause: Callable[[Stack], None]
    mend: Callable[[Stack], None]
    after: str = ""
    before: Callable[[Stack], None] | None = None


class Load:
    """Requests to a service, `rate` a second, over `paths` in turn, in `threads` threads until stopped."""

    def __init__(
        self, service: str, paths: Sequence[str], rate: float = 30, threads: int = 1, queued: float = 0
    ) -> None:
        self._service, self._paths, self._rate, self._threads = service, paths, rate, threads
        self._queued = queued  # seconds for which a proxy says that it kept each request
        self._stop = threading.Event()
        self._running: list[threading.Thread] = []

    def start(self, stack: Stack) -> None:
        """Begin."""
        self._stop.clear()
        self._running = [
            threading.Thread(target=self._run, args=(stack,), daemon=True) for _ in range(self._threads)
        ]
        for thread in self._running:
            thread.start()

    def stop(self, _: Stack) -> None:
        """End, after the requests that are under way."""
        self._stop.set()
        for thread in self._running:
            thread.join()

    def _run(self, stack: Stack) -> None:
        count = 0
        while not self._stop.wait(self._threads / self._rate):
            headers = {"X-Request-Start": f"t={time.time() - self._queued:.3f}"} if self._queued else {}
            stack.get(stack.url(self._service) + self._paths[count % len(self._paths)], headers=headers)
            count += 1


@dataclass(slots=True)
class Killer:
    """Kills the oldest worker of a service again and again; the others go on answering scrapes."""

    service: str
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, stack: Stack) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, args=(stack,), daemon=True)
        self._thread.start()

    def stop(self, _: Stack) -> None:
        """Let them live."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _run(self, stack: Stack) -> None:
        while not self._stop.wait(0.8):
            for worker in stack.workers_of(self.service)[:1]:
                os.kill(worker, signal.SIGKILL)


def _service(alert: str, service: str, severity: str, **labels: str) -> Expected:
    return Expected(alert, {"job": "app", "service": service, "severity": severity, **labels})


def _burns(alert: str, service: str, slo: str) -> tuple[Expected, ...]:
    return tuple(
        _service(alert, service, severity, slo=slo, window=window) for window, severity in BURN_WINDOWS
    )


def faults() -> list[Fault]:
    """All faults of the drill; those without `after` happen at once, each to a service of its own."""
    errors = Load("errors", ["/test/error", "/orders"], rate=20)
    flaky = Load("flaky", [*["/test/normal"] * 13, "/test/server-error"])
    slow = Load("slow", ["/test/slow?seconds=0.7"], rate=1000, threads=7, queued=0.5)
    calm = Load("calm", ["/test/normal"], rate=10)
    loop = Killer("loop")
    return [
        Fault(
            "nothing: it always fires",
            (Expected("MonitoringDeadMansSwitch", {"severity": "info"}),),
            _no,
            _no,
        ),
        Fault(
            "the traffic ends that was there yesterday",
            (_service("FlaskTrafficGone", "gone", "warning"),),
            calm.stop,
            calm.start,
            before=calm.start,
        ),
        Fault(
            "every second request raises an exception",
            (
                _service("FlaskErrorRatioCritical", "errors", "critical"),
                _service("FlaskNewErrorType", "errors", "info", error_type="ValueError"),
                _service("FlaskLogErrorBurst", "errors", "warning"),
                *_burns("FlaskErrorBudgetBurn", "errors", "errors"),
            ),
            errors.start,
            errors.stop,
        ),
        Fault(
            "one request in 14 fails",
            (_service("FlaskErrorRatioHigh", "flaky", "warning"),),
            flaky.start,
            flaky.stop,
        ),
        Fault(
            "seven of eight threads answer slowly, and a proxy kept the requests",
            (
                _service("FlaskLatencyHigh", "slow", "warning"),
                _service("FlaskThreadsSaturated", "slow", "warning"),
                _service("FlaskQueueSlow", "slow", "warning"),
                *_burns("FlaskLatencyBudgetBurn", "slow", "latency"),
            ),
            slow.start,
            slow.stop,
        ),
        Fault(
            "the only instance is stopped",
            (_service("FlaskTargetDown", "down", "critical", scope="service"),),
            lambda stack: stack.children.end("down"),
            lambda stack: stack.start("down"),
        ),
        Fault(
            "one instance of two is stopped",
            (_service("FlaskTargetDown", "pair", "warning", scope="instance"),),
            lambda stack: stack.children.end("pair-2"),
            lambda stack: stack.start("pair", "pair-2"),
        ),
        Fault(
            "a service is taken out of the target file",
            (_service("FlaskTargetVanished", "vanished", "warning"),),
            lambda stack: stack.write_targets(without=["vanished"]),
            lambda stack: stack.write_targets(),
        ),
        Fault(
            "the database becomes unreadable",
            (
                _service("FlaskServiceNotReady", "sick", "critical", check="database"),
                Expected("ProbeFailed", {"job": "probe", "service": "sick", "severity": "critical"}),
            ),
            _spoil_database,
            _restore_database,
        ),
        Fault(
            "workers are killed soon after they started",
            (_service("FlaskWorkerRestartLoop", "loop", "critical"),),
            loop.start,
            loop.stop,
        ),
        Fault(
            "8 megabytes leak a second",
            (_service("FlaskMemoryGrowth", "sick", "warning"),),
            lambda stack: _leak(stack, 8),
            lambda stack: _leak(stack, 0),
            before=Load("sick", ["/test/normal"], rate=5).start,  # workers tell their memory while they serve
        ),
        Fault(
            "requests of more kinds than the cap allows",
            (_service("FlaskSeriesCapReached", "flaky", "warning"),),
            _many_kinds,
            _no,
        ),
        Fault(
            "the disk is full",
            (
                Expected("HostDiskFullSoon", {"job": "node", "severity": "warning"}),
                _service("FlaskExporterFailures", "flaky", "warning", stage="request_log"),
            ),
            lambda stack: fill(_disk(stack)),
            lambda stack: _disk(stack).unlink(),
        ),
        Fault(
            "the processors are never idle (in the drill's /proc)",
            (Expected("HostCpuSaturated", {"job": "node", "severity": "warning"}),),
            lambda stack: setattr(stack.host, "busy", True),
            lambda stack: setattr(stack.host, "busy", False),
        ),
        Fault(
            "a twentieth of the memory is left (in the drill's /proc)",
            (Expected("HostMemoryLow", {"job": "node", "severity": "warning"}),),
            lambda stack: setattr(stack.host, "available", MEMORY // 20),
            lambda stack: setattr(stack.host, "available", MEMORY // 4),
        ),
        Fault(
            "a page takes 1.3 seconds",
            (Expected("ProbeSlow", {"job": "probe", "service": "page", "severity": "warning"}),),
            lambda stack: setattr(stack.page, "delay", 1.3),
            lambda stack: setattr(stack.page, "delay", 0.0),
        ),
        Fault(
            "a page answers 500",
            (Expected("ProbeFailed", {"job": "probe", "service": "site", "severity": "critical"}),),
            lambda stack: setattr(stack.site, "status", 500),
            lambda stack: setattr(stack.site, "status", 200),
        ),
        Fault(
            "a certificate ends in an hour (14 days are 5.6 hours here)",
            (
                Expected(
                    "ProbeCertificateExpiring", {"job": "probe", "service": "secure", "severity": "warning"}
                ),
            ),
            lambda stack: stack.certificates.renew(datetime.timedelta(hours=1)),
            lambda stack: stack.certificates.renew(datetime.timedelta(days=365)),
        ),
        Fault(
            "a log store answers 500",
            (Expected("MonitoringTargetDown", {"job": "loki", "severity": "warning"}),),
            lambda stack: setattr(stack.store, "status", 500),
            lambda stack: setattr(stack.store, "status", 200),
        ),
        Fault(
            "a log shipper loses lines",
            (
                Expected(
                    "MonitoringLogLinesDropped",
                    {"job": "alloy", "severity": "warning", "reason": "ingester_error"},
                ),
            ),
            lambda stack: setattr(stack.shipper, "drops", True),
            lambda stack: setattr(stack.shipper, "drops", False),
        ),
        Fault(
            "a log shipper sends nothing, while requests are answered",
            (Expected("MonitoringLogShippingStopped", {"job": "alloy", "severity": "warning"}),),
            lambda stack: setattr(stack.shipper, "sends", False),
            lambda stack: setattr(stack.shipper, "sends", True),
            before=Load("pair", ["/test/normal"], rate=10).start,  # each request has a line to be sent
        ),
        Fault(
            "an exporter takes half of the scrape timeout",
            (_service("MonitoringScrapeSlow", "sluggish", "warning"),),
            lambda stack: setattr(stack.sluggish, "delay", 0.5),
            lambda stack: setattr(stack.sluggish, "delay", 0.0),
        ),
        Fault(
            "an exporter has 50,000 samples",
            (_service("MonitoringSampleLimitNear", "large", "warning"),),
            lambda stack: setattr(stack.large, "samples", 50_000),
            lambda stack: setattr(stack.large, "samples", 1),
        ),
        Fault(
            "a receiver answers 503",
            (
                Expected(
                    "MonitoringNotificationsFailing",
                    {"severity": "critical", "integration": "webhook", "reason": "serverError"},
                ),
            ),
            lambda stack: stack.receiver.refused.add("/heartbeat"),
            lambda stack: stack.receiver.refused.clear(),
        ),
        Fault(
            "a block without an index in Prometheus' data",
            (Expected("MonitoringStorageTrouble", {"job": "prometheus", "severity": "critical"}),),
            _spoil_block,
            lambda stack: shutil.rmtree(_spoilt_block(stack)),
        ),
        Fault(
            "a rule that cannot be evaluated",
            (Expected("MonitoringRuleFailures", {"job": "prometheus", "severity": "critical"}),),
            _break_rules,
            _mend_rules,
        ),
        Fault(
            "a configuration that is refused",
            (Expected("MonitoringConfigReloadFailed", {"job": "prometheus", "severity": "warning"}),),
            _break_configuration,
            _mend_configuration,
            after="a rule that cannot be evaluated",
        ),
    ]


def _no(_: Stack) -> None:
    """Nothing to do."""


def _disk(stack: Stack) -> Path:
    return stack.host.disk(stack.children.process("node-exporter")) / "filler"


def _leak(stack: Stack, rate: int) -> None:
    stack.get(f"{stack.url('sick')}/drill/leak?rate={rate}", method="POST")


def _many_kinds(stack: Stack) -> None:
    for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "POST", "BREW"):
        for path in ("/", "/orders", "/orders/1", "/orders/0", "/test/normal", "/test/notfound", "/nowhere"):
            stack.get(stack.url("flaky") + path, method=method)


def _spoil_database(stack: Stack) -> None:
    file = stack.database("sick")
    file.rename(file.with_suffix(".good"))
    file.write_bytes(b"no database" * 1000)


def _restore_database(stack: Stack) -> None:
    file = stack.database("sick")
    file.with_suffix(".good").replace(file)


def _spoilt_block(stack: Stack) -> Path:
    return stack.plan.data("prometheus") / "01DRDRDRDRDRDRDRDRDRDRDRDR"


def _spoil_block(stack: Stack) -> None:
    whole = next(stack.plan.data("prometheus").glob("01*/meta.json"))
    spoilt = _spoilt_block(stack)
    meta = json.loads(whole.read_text()) | {"ulid": spoilt.name}
    (spoilt / "chunks").mkdir(parents=True)
    (spoilt / "meta.json").write_text(json.dumps(meta))


def _break_rules(stack: Stack) -> None:
    (stack.plan.configuration / "rules/broken.yml").write_text(BROKEN_RULE)
    stack.reload()


def _mend_rules(stack: Stack) -> None:
    (stack.plan.configuration / "rules/broken.yml").unlink()
    stack.reload()


def _break_configuration(stack: Stack) -> None:
    file = stack.plan.configuration / "prometheus.yml"
    shutil.copy(file, file.with_suffix(".good"))
    file.write_text(file.read_text() + "\nnonsense: true\n")
    stack.reload()


def _mend_configuration(stack: Stack) -> None:
    file = stack.plan.configuration / "prometheus.yml"
    file.with_suffix(".good").replace(file)
    stack.reload()
