"""Every number at which a panel changes its colour, draws a line or says that an alert fires.

`tests/grafana/test_thresholds.py` compares those that alerts use with prometheus/rules, prometheus/slo.yml
and the settings of `/health`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Steps: TypeAlias = Sequence[tuple[float | None, str]]
"""Lower limit and colour; the first has no limit, the others ascend."""

FINE, NOTICE, WARNING, BAD, IDLE = "blue", "yellow", "dark-orange", "red", "text"
"""The colours that judge: they differ for the colour-blind too, which red and green do not."""
DIM, PALE = "#808080", "super-light-yellow"
"""Two more that differ from those, for lines that judge nothing."""

TIMES = "suffix: \N{MULTIPLICATION SIGN}"
"""The unit of multiples."""

ERROR_RATIO_HIGH = 0.05
"""FlaskErrorRatioHigh fires, and `/health` warns."""
ERROR_RATIO_CRITICAL = 0.1
"""FlaskErrorRatioCritical fires, and `/health` reports the service as degraded."""
LATENCY_HIGH = 0.5
"""Seconds at which FlaskLatencyHigh fires; the latency objective promises them, and Apdex is satisfied."""
TAIL_HIGH = 5.0
"""Seconds that the objective for the slowest requests promises."""
THREADS_SATURATED = 0.8
"""Share of busy worker threads at which FlaskThreadsSaturated fires."""
REQUEST_STUCK = 60
"""Seconds at which FlaskRequestStuck fires."""
QUEUE_SLOW = 0.25
"""Seconds at which FlaskQueueSlow fires."""
MEMORY_LOW = 0.9
"""Share of used memory at which HostMemoryLow fires."""
SCRAPE_SLOW = 5
"""Seconds at which MonitoringScrapeSlow fires."""
REMOTE_WRITE_BEHIND = 300
"""Seconds at which MonitoringRemoteWriteBehind fires."""
SCRAPE_TIMEOUT = 10
"""Seconds after which Prometheus gives a scrape up."""
SAMPLE_LIMIT = 60_000
"""Samples above which Prometheus refuses a scrape of a Flask service."""
PROBE_SLOW = 1
"""Seconds at which ProbeSlow fires."""
NEARLY_FULL = 0.7
FULL = 0.9
"""Shares of a resource in use that no alert has: there is still time, or hardly any."""
APDEX_TOLERABLE = 2.5
"""Seconds: the bucket next to four times LATENCY_HIGH."""

CERTIFICATE_DAYS = 14
"""Days before a certificate runs out at which ProbeCertificateExpiring fires."""

BUDGET_DAYS = 30
"""The error budget is what the objectives leave for failure over this time."""


@dataclass(frozen=True, slots=True)
class BurnAlert:
    """An alert of prometheus/slo.yml: it fires while the burn rates over both windows exceed `rate`."""

    long: str
    short: str
    rate: float
    severity: str


BURN_ALERTS = (
    BurnAlert("1h", "5m", 14.4, "critical"),
    BurnAlert("6h", "30m", 6, "critical"),
    BurnAlert("1d", "2h", 3, "warning"),
    BurnAlert("3d", "6h", 1, "warning"),
)

ANY_IS_BAD: Steps = ((None, IDLE), (1, BAD))
ERROR_MARKS: Steps = ((ERROR_RATIO_HIGH, WARNING), (ERROR_RATIO_CRITICAL, BAD))
LATENCY_STEPS: Steps = ((None, IDLE), (LATENCY_HIGH, WARNING), (1.0, BAD))
SATURATION_STEPS: Steps = ((None, FINE), (NEARLY_FULL, WARNING), (FULL, BAD))
APDEX_MARKS: Steps = ((0.7, BAD), (0.94, FINE))
BUDGET_STEPS: Steps = ((None, IDLE), (0, BAD), (0.001, WARNING), (0.25, FINE))
_FAST, _STEADY, _, _LASTING = (alert.rate for alert in BURN_ALERTS)
BURN_STEPS: Steps = ((None, IDLE), (_LASTING, NOTICE), (_STEADY, WARNING), (_FAST, BAD))
"""How bad a ratio of errors is, in multiples of what the service's own objective allows."""
CERTIFICATE_STEPS: Steps = ((None, BAD), (86_400, WARNING), (CERTIFICATE_DAYS * 86_400, IDLE))
TIME_LEFT_STEPS: Steps = ((None, IDLE), (0, BAD), (86_400, WARNING), (4 * 86_400, IDLE))
"""Seconds until something is used up: red within a day."""


def percent(share: float) -> str:
    """Write a share as descriptions do: `5 %` for 0.05."""
    return f"{share * 100:g} %"
