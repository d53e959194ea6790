"""The table of faults: how the drill breaks and mends things for real, and which alerts must follow."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from prometheus.drill import damage
from prometheus.drill.host import MEMORY
from prometheus.drill.load import Load
from prometheus.drill.players import Figures
from prometheus.drill.stack import Stack

# A player that spends its budgets, how many times too fast, and the window and severity of its alert.
PACES = (
    ("hour", 20, "1h", "critical"),
    ("six-hours", 8, "6h", "critical"),
    ("day", 4.5, "1d", "warning"),
    ("three-days", 2, "3d", "warning"),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that a fault raises, the labels that it must carry, and a text that it must say."""

    name: str
    labels: dict[str, str]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that `cause` begins and `mend` ends.

    `before` prepares the fault when the drill starts. The fault waits until the one named `after` is over,
    and until there were series of `old` an hour ago: an alert about what is new asks for that.
    """

    name: str
    alerts: tuple[Alert, ...]
    cause: Callable[[Stack], None]
    mend: Callable[[Stack], None]
    after: str = ""
    before: Callable[[Stack], None] | None = None
    old: str = ""


def _service(name: str, service: str, severity: str, text: str = "", **labels: str) -> Alert:
    return Alert(name, {"job": "app", "service": service, "severity": severity, **labels}, text)


def _steps(*steps: Callable[[Stack], None]) -> Callable[[Stack], None]:
    """Return all of these steps as one."""

    def step(stack: Stack) -> None:
        for part in steps:
            part(stack)

    return step


def _budget_fault(player: str, pace: float, window: str, severity: str) -> Fault:
    """Return the fault of a service that spends the budget of every objective at this pace."""
    labels = {"severity": severity, "window": window}
    alerts: tuple[Alert, ...] = (
        _service("FlaskErrorBudgetBurn", player, slo="errors", **labels),
        _service("FlaskLatencyBudgetBurn", player, slo="latency", **labels),
        _service("FlaskLatencyBudgetBurn", player, slo="tail", **labels),
    )
    if window == "1h":
        alerts += (
            _service("FlaskErrorBurst", player, "warning", slo="errors"),
            _service("FlaskLatencyBurst", player, "warning", slo="latency"),
            _service("FlaskLatencyBurst", player, "warning", slo="tail"),
        )
    return Fault(
        f"the budgets are spent {pace:g} times too fast",
        alerts,
        lambda stack: stack.players[player].figures.spend(pace),
        lambda stack: stack.players[player].figures.spend(0),
    )


def _player_fault(name: str, alert: Alert, player: str, **figures: float | str | bool) -> Fault:
    """Return the fault of a played service whose figures change to these, and back."""
    usual = Figures()

    def change(stack: Stack, values: dict[str, float | str | bool]) -> None:
        for figure, value in values.items():
            setattr(stack.players[player].figures, figure, value)

    return Fault(
        name,
        (alert,),
        lambda stack: change(stack, figures),
        lambda stack: change(stack, {figure: getattr(usual, figure) for figure in figures}),
    )


def faults() -> list[Fault]:
    """All faults of the drill. Those without `after` begin together."""
    errors = Load("errors", ["/test/error", "/orders"], rate=20)
    flaky = Load("flaky", [*["/test/normal"] * 13, "/test/server-error"])
    slow = Load("slow", ["/test/slow?seconds=0.7"], rate=1000, threads=7, queue=0.5)
    # One request in eight is slow, and enough come: chance does not raise FlaskLatencyHigh.
    fast = Load("slow", ["/test/normal"], rate=70, threads=2)
    stuck = Load("stuck", ["/test/stuck?seconds=8"], rate=1)
    calm = Load("calm", ["/test/normal"], rate=10)
    loop = damage.Killer("loop")
    return [
        Fault(
            "nothing: it always fires",
            (Alert("MonitoringDeadMansSwitch", {"severity": "info"}),),
            damage.do_nothing,
            damage.do_nothing,
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
                _service(
                    "FlaskNewErrorType",
                    "errors",
                    "info",
                    "The traceback: http://",
                    error_type="ValueError",
                    where="app.faults:error",
                ),
                _service("FlaskLogErrorBurst", "errors", "warning"),
            ),
            errors.start,
            errors.stop,
            old='job:flask_http_request_duration_seconds:rate_5m{service="errors"}',
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
                _service("FlaskLatencyHigh", "slow", "warning", "Slow requests wait in app.faults:"),
                _service("FlaskThreadsSaturated", "slow", "warning"),
                _service("FlaskQueueSlow", "slow", "warning"),
            ),
            _steps(slow.start, fast.start),
            _steps(slow.stop, fast.stop),
        ),
        Fault(
            "a request has no answer for 8 seconds (a minute is one here)",
            (_service("FlaskRequestStuck", "stuck", "warning", "It is one to /test/stuck, in worker "),),
            stuck.start,
            stuck.stop,
        ),
        *(_budget_fault(*pace) for pace in PACES),
        _player_fault(
            "a tenth of the requests is slower than yesterday",
            _service("FlaskLatencyUnusual", "unusual", "warning"),
            "unusual",
            unusual=0.1,
        ),
        _player_fault(
            "two thirds of the requests are missing",
            _service("FlaskTrafficLow", "fewer", "warning"),
            "fewer",
            requests=300,
        ),
        _player_fault(
            "every second scrape fails",
            _service("FlaskTargetFlapping", "restless", "warning"),
            "restless",
            flaps=True,
        ),
        _player_fault(
            "the container is killed again and again",
            _service("FlaskWorkerRestartLoop", "killed", "critical", scope="container"),
            "killed",
            dies=True,
        ),
        _player_fault(
            "a service refuses Prometheus and answers its users",
            _service("FlaskTargetDown", "token", "warning", scope="scrape"),
            "token",
            refuses=True,
        ),
        _player_fault(
            "the check of one instance of two fails",
            _service("FlaskServiceNotReady", "checks", "warning", scope="instance", check="disk"),
            "checks",
            healthy=0,
        ),
        Fault(
            "a new version is deployed",
            (_service("FlaskNewVersion", "versioned", "info"),),
            lambda stack: setattr(stack.players["versioned"].figures, "version", "2"),
            lambda stack: setattr(stack.players["versioned"].figures, "version", "1"),
            old='flask_app_info{service="versioned"}',
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
                _service("FlaskServiceNotReady", "sick", "critical", scope="service", check="database"),
                Alert("ProbeFailed", {"job": "probe", "service": "sick", "severity": "critical"}),
            ),
            damage.spoil_database,
            damage.restore_database,
        ),
        Fault(
            "workers are killed soon after they started",
            (_service("FlaskWorkerRestartLoop", "loop", "critical", "died of SIGKILL", scope="workers"),),
            loop.start,
            loop.stop,
        ),
        Fault(
            "8 megabytes leak a second",
            (_service("FlaskMemoryGrowth", "sick", "warning"),),
            lambda stack: damage.leak(stack, 8),
            lambda stack: damage.leak(stack, 0),
            before=Load("sick", ["/test/normal"], rate=5).start,  # a worker reports its memory when it serves
        ),
        Fault(
            "requests of more kinds than the cap allows",
            (_service("FlaskSeriesCapReached", "flaky", "warning"),),
            damage.exceed_cap,
            damage.do_nothing,
        ),
        Fault(
            "the disk is full",
            (
                Alert("HostDiskFullSoon", {"job": "node", "severity": "warning"}),
                _service("FlaskExporterFailures", "flaky", "warning", stage="request_log"),
            ),
            damage.fill_disk,
            damage.clear_disk,
        ),
        Fault(
            "the processors are never idle (in the drill's /proc)",
            (Alert("HostCpuSaturated", {"job": "node", "severity": "warning"}),),
            lambda stack: setattr(stack.host, "busy", True),
            lambda stack: setattr(stack.host, "busy", False),
        ),
        Fault(
            "a twentieth of the memory is left (in the drill's /proc)",
            (Alert("HostMemoryLow", {"job": "node", "severity": "warning"}),),
            lambda stack: setattr(stack.host, "available", MEMORY // 20),
            lambda stack: setattr(stack.host, "available", MEMORY // 4),
        ),
        Fault(
            "a page takes 1.3 seconds",
            (Alert("ProbeSlow", {"job": "probe", "service": "page", "severity": "warning"}),),
            lambda stack: setattr(stack.page, "delay", 1.3),
            lambda stack: setattr(stack.page, "delay", 0.0),
        ),
        Fault(
            "a page answers 500",
            (Alert("ProbeFailed", {"job": "probe", "service": "site", "severity": "critical"}),),
            lambda stack: setattr(stack.site, "status", 500),
            lambda stack: setattr(stack.site, "status", 200),
        ),
        Fault(
            "a certificate ends in an hour (14 days are 5.6 hours here)",
            (
                Alert(
                    "ProbeCertificateExpiring", {"job": "probe", "service": "secure", "severity": "warning"}
                ),
            ),
            lambda stack: stack.certificates.renew(datetime.timedelta(hours=1)),
            lambda stack: stack.certificates.renew(datetime.timedelta(days=365)),
        ),
        Fault(
            "a log store answers 500",
            (Alert("MonitoringTargetDown", {"job": "loki", "severity": "warning"}),),
            lambda stack: setattr(stack.store, "status", 500),
            lambda stack: setattr(stack.store, "status", 200),
        ),
        Fault(
            "a log shipper loses lines",
            (
                Alert(
                    "MonitoringLogLinesDropped",
                    {"job": "alloy", "severity": "warning", "reason": "ingester_error"},
                ),
            ),
            lambda stack: setattr(stack.shipper, "drops", True),
            lambda stack: setattr(stack.shipper, "drops", False),
        ),
        Fault(
            "a log shipper sends nothing, while requests are answered",
            (Alert("MonitoringLogShippingStopped", {"job": "alloy", "severity": "warning"}),),
            lambda stack: setattr(stack.shipper, "sends", False),
            lambda stack: setattr(stack.shipper, "sends", True),
            before=Load("pair", ["/test/normal"], rate=10).start,  # each request writes a line to ship
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
                Alert(
                    "MonitoringNotificationsFailing",
                    {"severity": "critical", "integration": "webhook", "reason": "serverError"},
                ),
            ),
            lambda stack: stack.receiver.refusals.add("/heartbeat"),
            lambda stack: stack.receiver.refusals.clear(),
        ),
        Fault(
            "a block without an index in Prometheus' data",
            (Alert("MonitoringStorageTrouble", {"job": "prometheus", "severity": "critical"}),),
            damage.add_bad_block,
            damage.remove_bad_block,
        ),
        Fault(
            "a receiver of samples answers 503",
            (Alert("MonitoringRemoteWriteBehind", {"job": "prometheus", "severity": "warning"}),),
            lambda stack: setattr(stack.samples, "status", 503),
            lambda stack: setattr(stack.samples, "status", 200),
        ),
        Fault(
            "a receiver of samples refuses them",
            (Alert("MonitoringRemoteWriteRefused", {"job": "prometheus", "severity": "warning"}),),
            lambda stack: setattr(stack.samples, "status", 400),
            lambda stack: setattr(stack.samples, "status", 200),
            after="a receiver of samples answers 503",
        ),
        Fault(
            "a rule that cannot be evaluated",
            (Alert("MonitoringRuleFailures", {"job": "prometheus", "severity": "critical"}),),
            damage.break_rules,
            damage.mend_rules,
        ),
        Fault(
            "a configuration that is refused",
            (Alert("MonitoringConfigReloadFailed", {"job": "prometheus", "severity": "warning"}),),
            damage.break_configuration,
            damage.mend_configuration,
            after="a rule that cannot be evaluated",
        ),
    ]
