"""EXPORTER_* variables and keyword arguments → one validated, frozen object."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# prometheus_client's default, which has the 0.5 s that the latency objective needs.
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, math.inf)


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, its value and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be configured, each as a keyword argument or as `EXPORTER_<NAME>`.

    Times are seconds, sizes bytes, ratios between 0 and 1. `None` turns a path off.
    """

    path: str | None = "/metrics"
    monitoring_path: str | None = "/monitoring"
    health_path: str | None = "/health"
    group_by: str | Callable[..., Any] = "url_rule"
    buckets: tuple[float, ...] = DEFAULT_BUCKETS
    extended: bool = True
    app_version: str = "unknown"
    max_series: int = 1000
    recent: int = 1000
    allow: tuple[Network, ...] | None = None
    token_file: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    health_warning: float = 0.05
    health_degraded: float = 0.10
    health_min_requests: int = 20
    request_log: str = "off"
    log_level: str = "INFO"
    log_query: bool = False
    log_mask: tuple[str, ...] = ("password", "passwd", "secret", "token", "access_token", "api_key", "key")
    log_max_bytes: int = 10 * 1024 * 1024
    log_backups: int = 5
    listen: tuple[str, int] | None = None
    drain: float = 5.0

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from `environ` (the process environment by default); keyword arguments win.

        Raises:
            SettingsError: a value is malformed or out of range.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, text in sorted(environ.items()):
            if not name.startswith("EXPORTER_"):
                continue
            field = name.removeprefix("EXPORTER_").lower()
            if field in _PARSERS:
                values[field] = _checked(name, field, text)
            elif not _injected_by_kubernetes(name):
                nearest = difflib.get_close_matches(name, _VARIABLES, n=1, cutoff=0.0)[0]
                warnings.warn(f"{name} is no setting of the exporter; did you mean {nearest}?", stacklevel=2)
        for field, value in overrides.items():
            if field not in _PARSERS:
                raise SettingsError(f"{field!r} is no setting; settings are {', '.join(_PARSERS)}")
            if value is not None or field in _OPTIONAL:
                values[field] = _checked(field, field, value)
        settings = cls(**values)
        if settings.health_warning > settings.health_degraded:
            raise SettingsError(
                f"EXPORTER_HEALTH_WARNING={settings.health_warning:g} is above "
                f"EXPORTER_HEALTH_DEGRADED={settings.health_degraded:g}; it must be at most that"
            )
        return settings


def _injected_by_kubernetes(name: str) -> bool:
    """Whether a Service called "exporter" puts this variable into every container."""
    return re.fullmatch(r"EXPORTER_(SERVICE_.*|PORT(_\d+_(TCP|UDP|SCTP).*)?)", name) is not None


def _checked(shown: str, field: str, value: Any) -> Any:
    try:
        return _PARSERS[field](value)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{shown}={value!r}: {error}") from None


def _path(value: str | None) -> str | None:
    if value is None or value in ("", "off"):
        return None
    if not value.startswith("/"):
        raise ValueError("a path begins with '/', or is 'off'")
    return value


def _group(value: str | Callable[..., Any]) -> str | Callable[..., Any]:
    name = value.__name__ if callable(value) else value
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
        raise ValueError(
            f"invalid label name {name!r}: give an attribute of flask.request such as url_rule, endpoint or "
            "path, or a named function"
        )
    return value


def _buckets(value: str | Iterable[float]) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        bounds = [float(part) for part in parts]
    except ValueError:
        raise ValueError("give upper bounds in seconds, for example 0.1,0.5,2") from None
    if not bounds or any(math.isnan(bound) for bound in bounds):
        raise ValueError("give at least one upper bound in seconds")
    if bounds[-1] != math.inf:
        bounds.append(math.inf)
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError("upper bounds must ascend")
    return tuple(bounds)


def _flag(value: str | bool) -> bool:
    if isinstance(value, bool):
        return value
    known = {
        "1": True,
        "true": True,
        "on": True,
        "yes": True,
        "0": False,
        "false": False,
        "off": False,
        "no": False,
    }
    if value.lower() not in known:
        raise ValueError("give on or off")
    return known[value.lower()]


def _whole(low: int, high: int, unit: str) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        try:
            number = int(value)
        except (ValueError, TypeError):
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"give a whole number of {unit} from {low} to {high}")
        return number

    return parse


def _number(low: float, high: float, what: str) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        try:
            number = float(value)
        except (ValueError, TypeError):
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"give {what} from {low:g} to {high:g}")
        return number

    return parse


def _networks(value: str | Iterable[str | Network]) -> tuple[Network, ...]:
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    try:
        return tuple(ipaddress.ip_network(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"{error}; give addresses or networks such as 10.0.0.0/8, ::1") from None


def _level(value: str) -> str:
    levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    if value.upper() not in levels:
        raise ValueError(f"give one of {', '.join(levels)}")
    return value.upper()


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    return tuple(part.lower() for part in parts)


def _request_log(value: str) -> str:
    if value in ("off", "stdout") or value.startswith("syslog:") or "/" in value:
        return value
    raise ValueError("give off, stdout, a file's path with a '/', or syslog://host:port or syslog:///dev/log")


def _listen(value: str | tuple[str, int] | None) -> tuple[str, int] | None:
    if value is None or value == "":
        return None
    host, _, port = value.rpartition(":") if isinstance(value, str) else (value[0], "", str(value[1]))
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("give host:port, for example 127.0.0.1:9101")
    return host.strip("[]"), int(port)


def _file(value: str | None) -> str | None:
    return None if value is None or value == "" else os.fspath(value)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "path": _path,
    "monitoring_path": _path,
    "health_path": _path,
    "group_by": _group,
    "buckets": _buckets,
    "extended": _flag,
    "app_version": str,
    "max_series": _whole(10, 1_000_000, "label sets"),
    "recent": _whole(0, 1_000_000, "requests"),
    "allow": lambda value: None if value is None else _networks(value),
    "token_file": _file,
    "trusted_proxies": _networks,
    "health_warning": _number(0, 1, "a ratio"),
    "health_degraded": _number(0, 1, "a ratio"),
    "health_min_requests": _whole(1, 1_000_000, "requests"),
    "request_log": _request_log,
    "log_level": _level,
    "log_query": _flag,
    "log_mask": _names,
    "log_max_bytes": _whole(10_000, 1 << 40, "bytes"),
    "log_backups": _whole(1, 1000, "files"),
    "listen": _listen,
    "drain": _number(0, 3600, "seconds"),
}
_VARIABLES = [f"EXPORTER_{field.upper()}" for field in _PARSERS]
_OPTIONAL = {field.name for field in dataclasses.fields(Settings) if "None" in str(field.type)}
