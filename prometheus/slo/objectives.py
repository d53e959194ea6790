"""The objectives in `slo.yml`: the promises, and the limits at which an alert says that one is in danger."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from exporter.settings import Settings

HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


class SloError(ValueError):
    """`slo.yml` cannot be used; the message names the value and what it should be."""


@dataclass(frozen=True, slots=True)
class Burn:
    """A limit: `budget` percent of the period's budget is spent within `long`, by enough bad requests."""

    long: str
    short: str
    budget: float
    bad_at_least: int
    severity: str


@dataclass(frozen=True, slots=True)
class Burst:
    """A warning within minutes: at `pace` times the sustainable pace, from `bad_at_least` bad requests on."""

    pace: float
    bad_at_least: int


@dataclass(frozen=True, slots=True)
class Objective:
    """`percent` of the requests are good: without an error, or answered `within` seconds.

    Without a `service` it holds for every service but the `exceptions`, which have objectives of their own.
    """

    slo: str
    percent: float
    within: float | None = None
    service: str | None = None
    url_rule: str | None = None
    burst_at_least: int | None = None
    exceptions: tuple[str, ...] = ()

    @property
    def budget(self) -> float:
        """Share of the requests that may be bad, above 0 and below 1."""
        return round(1 - self.percent / 100, 9)

    @property
    def alert(self) -> str:
        """Name of the alerts that guard the objective."""
        return "FlaskErrorBudgetBurn" if self.within is None else "FlaskLatencyBudgetBurn"

    @property
    def burst(self) -> str:
        """Name of the alert that warns within minutes."""
        return self.alert.replace("BudgetBurn", "Burst")

    @property
    def bad(self) -> str:
        """The verb for bad requests."""
        return "fail" if self.within is None else "are slow"

    @property
    def past(self) -> str:
        """The verb for requests that were bad."""
        return "failed" if self.within is None else "were slow"

    @property
    def subject(self) -> str:
        """The service, and the endpoint if there is one, as a template."""
        return "{{ $labels.service }} {{ $labels.url_rule }}" if self.url_rule else "{{ $labels.service }}"

    def promise(self, period: str) -> str:
        """The objective in words, with the service as a template."""
        subject = (
            "{{ $labels.url_rule }} of {{ $labels.service }}" if self.url_rule else "{{ $labels.service }}"
        )
        good = "end without an error" if self.within is None else f"take at most {self.within:g} seconds"
        return f"Promised for {subject}: {self.percent:g}% of requests {good}, over {period}."

    @property
    def services(self) -> str:
        """PromQL matchers of the series of requests that the objective is about."""
        if self.service is None:
            return f"service!~{text('|'.join(map(re.escape, self.exceptions)))}" if self.exceptions else ""
        rule = f", url_rule={text(self.url_rule)}" if self.url_rule else ""
        return f"service={text(self.service)}{rule}"


@dataclass(frozen=True, slots=True)
class Slo:
    """The content of `slo.yml`; `windows` are those of `burns`, shortest first, without the base of 5m."""

    period: str
    burst: Burst
    burns: tuple[Burn, ...]
    objectives: tuple[Objective, ...]
    windows: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        windows = {window for burn in self.burns for window in (burn.long, burn.short)} | {self.period}
        object.__setattr__(self, "windows", tuple(sorted(windows - {"5m"}, key=hours)))

    def alerts(self) -> Iterator[tuple[Objective, Burn]]:
        """Pair each objective with the burns that it can reach at all."""
        return (
            (objective, burn)
            for objective in self.objectives
            for burn in self.burns
            if self.pace(burn) * objective.budget < 1
        )

    def bursts(self) -> Iterator[Objective]:
        """Yield the objectives whose budget can be spent that fast at all."""
        return (objective for objective in self.objectives if self.burst.pace * objective.budget < 1)

    def pace(self, burn: Burn) -> float:
        """The pace at which `burn` is reached, as a multiple of the sustainable pace."""
        return round(burn.budget / 100 * hours(self.period) / hours(burn.long), 6)


def text(value: str) -> str:
    """Quote a label's value for PromQL and YAML alike, with every letter as it is."""
    return json.dumps(value, ensure_ascii=False)


def hours(duration: str) -> float:
    """Return the hours in a duration of one number and one unit (m, h, d); raise SloError for any other."""
    match = re.fullmatch(r"([1-9]\d*)([mhd])", str(duration))
    if match is None:
        raise SloError(f"{duration!r} is no duration: give a number and m, h or d, such as 30d")
    return int(match[1]) * HOURS[match[2]]


def load(file: Path) -> Slo:
    """Read and check the file; raise SloError for a value that cannot be used."""
    try:
        document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        burns = tuple(_burn(**entry) for entry in document.pop("burn"))
        entries = [_objective(**entry) for entry in document.pop("objectives")]
        pairs = {(o.slo, o.service) for o in entries if o.service and not o.url_rule}
        objectives = tuple(
            _with_exceptions(objective, tuple(sorted(s for slo, s in pairs if s and slo == objective.slo)))
            for objective in entries
        )
        burst = _burst(**document.pop("burst"))
        slo = Slo(burns=burns, burst=burst, objectives=objectives, **document)
    except (TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise SloError(f"{file}: {error}") from error
    except SloError as error:
        raise SloError(f"{file}: {error}") from None
    keys = [(o.slo, o.service, o.url_rule) for o in objectives]
    duplicates = {key for key in keys if keys.count(key) > 1}
    if duplicates:
        raise SloError(f"{file}: two objectives for {duplicates.pop()}: keep one")
    return slo


def _burn(long: str, short: str, budget: float, bad_at_least: int, severity: str) -> Burn:
    if hours(short) >= hours(long):
        raise SloError(f"short: {short} is not shorter than long: {long}")
    if not 0 < budget < 100:
        raise SloError(f"budget: {budget} is no percentage above 0 and below 100")
    if severity not in {"critical", "warning", "info"}:
        raise SloError(f"severity: {severity!r} is none of critical, warning, info")
    return Burn(long, short, budget, bad_at_least, severity)


def _burst(pace: float, bad_at_least: int) -> Burst:
    if not pace > 1:
        raise SloError(f"pace: {pace} is not above 1, the pace that just keeps the promise")
    return Burst(pace, bad_at_least)


def _objective(
    slo: str,
    percent: float,
    within: float | None = None,
    service: str | None = None,
    url_rule: str | None = None,
    burst_at_least: int | None = None,
) -> Objective:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", slo):
        raise SloError(f"slo: {slo!r} is no name: use small letters, digits and -")
    if not 0 < percent < 100:
        raise SloError(f"percent: {percent} of {slo} is not above 0 and below 100")
    # The exporter of the services has these buckets if EXPORTER_BUCKETS is the same here and there.
    bounds = Settings.load().buckets[:-1]
    if within is not None and within not in bounds:
        choices = ", ".join(f"{bound:g}" for bound in bounds)
        raise SloError(f"within: {within} of {slo} is no bucket of the exporter: use one of {choices}")
    if url_rule and not service:
        raise SloError(f"url_rule: {url_rule} of {slo} needs the service that it belongs to")
    return Objective(slo, percent, within, service, url_rule, burst_at_least)


def _with_exceptions(objective: Objective, services: tuple[str, ...]) -> Objective:
    if objective.service is not None:
        return objective
    return replace(objective, exceptions=services)
