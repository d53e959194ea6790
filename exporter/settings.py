"""EXPORTER_* variables and keyword arguments → one validated, frozen object."""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from traceback import walk_stack
from typing import Any, TypedDict

from click import ClickException

from exporter import parsers as parse
from exporter.addresses import Network

PREFIX = "EXPORTER_"

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the worker directory; prometheus_client reads it too."""

_OLD_DIRECTORY = "prometheus_multiproc_dir"

# prometheus_client's default, which has the 0.5 s that the latency objective needs.
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, math.inf)

# The names of secrets contain one of these.
DEFAULT_MASK = ("pass", "pwd", "secret", "token", "key", "auth", "sess", "sig", "code", "jwt", "cred", "otp")


class SettingsError(ClickException, ValueError):
    """A setting that cannot be used; the message names it, its value and the remedy.

    The `flask` command prints a ClickException as one line, without a traceback.
    """

    def __init__(self, setting: str, value: object, remedy: str) -> None:
        """`setting` is the variable or argument as the user wrote it."""
        super().__init__(f"{setting}={value!r}: {remedy}")
        self.setting = setting
        self.value = value
        self.remedy = remedy


def worker_directory() -> str | None:
    """The absolute path of the worker directory; prometheus_client accepts the name in lower case too."""
    path = os.environ.get(DIRECTORY) or os.environ.get(_OLD_DIRECTORY)
    return os.path.abspath(path) if path else None


def forget_empty_directory() -> bool:
    """Unset the variable if it is empty, as after `${VARIABLE:-}`; True if no directory is left.

    prometheus_client would write into the current directory otherwise.
    """
    empty = [name for name in (DIRECTORY, _OLD_DIRECTORY) if os.environ.get(name) == ""]
    for name in empty:
        del os.environ[name]
    return bool(empty) and worker_directory() is None


def setting(default: Any, parser: Callable[[Any], Any], meaning: str) -> Any:
    """A field of `Settings`; `parser` makes its value of a text or an argument, or raises ValueError."""
    return field(default=default, metadata={"parser": parser, "meaning": meaning})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, each a keyword argument and a variable `EXPORTER_<NAME>`.

    Times are seconds, sizes bytes, ratios between 0 and 1. `None` turns a path off.
    """

    path: str | None = setting("/metrics", parse.path, "where the metrics are; `off` for nowhere")
    monitoring_path: str | None = setting(
        "/monitoring", parse.path, "where the figures are; `off` for nowhere"
    )
    health_path: str | None = setting("/health", parse.path, "where the health is; `off` for nowhere")
    group_by: str | Callable[..., Any] = setting(
        "url_rule",
        parse.group,
        "what requests are grouped by: an attribute of the request; as an argument also a function",
    )
    buckets: tuple[float, ...] = setting(
        DEFAULT_BUCKETS, parse.buckets, "upper bounds of the duration's buckets, in seconds"
    )
    prefix: str = setting(
        "flask", parse.prefix, "the first word of all metric names; rules and dashboards are for `flask`"
    )
    extended: bool = setting(True, parse.flag, "`off`: only the metrics that prometheus_flask_exporter has")
    app_version: str = setting("unknown", parse.text, "the application's own version")
    native_histograms: bool = setting(
        True, parse.flag, "`off`: durations and queue times have classic buckets only"
    )
    max_series: int = setting(
        1000, parse.whole(10, 1_000_000, "label sets"), "label sets that a family may have"
    )
    recent: int = setting(
        1000,
        parse.whole(0, 1_000_000, "requests"),
        "requests that each worker keeps for `/monitoring`; 0 for none",
    )
    slow: float = setting(
        0.5,
        parse.number(0, 3600, "seconds"),
        "seconds from which on a request is slow and it is told where it waited; 0 for never",
    )
    allow: tuple[Network, ...] | None = setting(
        None,
        parse.optional_networks,
        "networks that may read, such as `10.0.0.0/8, ::1`; without it and without a token, private ones",
    )
    token_file: str | None = setting(
        None, parse.file, "file with the token that readers have to send; read again when it changes"
    )
    trusted_proxies: tuple[Network, ...] = setting(
        (), parse.networks, "proxies whose forwarding headers and `X-Request-Start` are believed"
    )
    health_warning: float = setting(
        0.05, parse.number(0, 1, "a ratio"), "error rate above which `/health` says warning"
    )
    health_degraded: float = setting(
        0.10, parse.number(0, 1, "a ratio"), "error rate above which it says degraded"
    )
    health_min_requests: int = setting(
        20, parse.whole(1, 1_000_000, "requests"), "requests in the last minute below which it says neither"
    )
    request_log: str = setting(
        "off",
        parse.request_log,
        "`off`, `stdout`, a file's path with a `/`, `syslog://host:port` or `syslog:///dev/log`",
    )
    instance: str | None = setting(
        None, parse.instance, "the name of this instance in the request log; without it, the host's"
    )
    log_level: str = setting(
        "INFO", parse.level, "lowest level in the request log; 4xx are WARNING, 5xx ERROR"
    )
    log_query: bool = setting(False, parse.flag, "`on`: with the query string")
    log_mask: tuple[str, ...] = setting(
        DEFAULT_MASK, parse.names, "the values of parameters with these words in their names are masked"
    )
    log_max_bytes: int = setting(
        10 * 1024 * 1024, parse.whole(10_000, 1 << 40, "bytes"), "size at which the file is rotated"
    )
    log_backups: int = setting(5, parse.whole(1, 1000, "files"), "rotated files that are kept")
    listen: tuple[str, int] | None = setting(
        None,
        parse.listen,
        "`host:port` on which a process of gunicorn's master serves the metrics, so that no worker pays for "
        "a scrape; what only a worker knows (health checks, the minute's minimum and maximum) is not there",
    )
    grafana_url: str | None = setting(
        None, parse.url, "where a browser finds Grafana: `/monitoring` links to it"
    )
    prometheus_url: str | None = setting(None, parse.url, "the same for Prometheus")
    alertmanager_url: str | None = setting(None, parse.url, "the same for Alertmanager")
    drain: float = setting(
        5.0,
        parse.number(0, 3600, "seconds"),
        "seconds between SIGTERM and the end in which gunicorn still answers and is not ready",
    )
    auto: bool = setting(
        True,
        parse.flag,
        "`off`: gunicorn, uWSGI and `python -m exporter run` leave an application without an exporter alone",
    )

    @property
    def names(self) -> str:
        """The beginning of all metric names."""
        return f"{self.prefix}_"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **arguments: Any) -> Settings:
        """Settings from `environ` (the process environment by default); keyword arguments win.

        An empty variable counts as unset.

        Raises:
            SettingsError: a value is malformed or out of range.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, text in sorted(environ.items()):
            if not name.startswith(PREFIX):
                continue
            key = name.removeprefix(PREFIX).lower()
            if key in _PARSERS:
                if text.strip():  # `${VARIABLE:-}` in a compose file
                    values[key] = _parse(name, key, text)
            elif not _is_from_kubernetes(name):
                variables = [PREFIX + key.upper() for key in _PARSERS]
                nearest = difflib.get_close_matches(name, variables, cutoff=0.0)[0]
                warn(f"{name} is no setting of the exporter; did you mean {nearest}?")
        for key, value in arguments.items():
            if key not in _PARSERS:
                nearest = difflib.get_close_matches(key, [*_PARSERS, *_ARGUMENTS], cutoff=0.0)[0]
                raise SettingsError(key, value, f"there is no such setting; did you mean {nearest}?")
            if value is not None or key in _OPTIONAL:
                values[key] = _parse(key, key, value)
        settings = cls(**values)
        settings._warn_of_milliseconds("buckets" if arguments.get("buckets") else f"{PREFIX}BUCKETS")
        if settings.health_warning > settings.health_degraded:
            raise SettingsError(
                "EXPORTER_HEALTH_WARNING",
                settings.health_warning,
                f"it must be at most EXPORTER_HEALTH_DEGRADED={settings.health_degraded:g}",
            )
        return settings

    def _warn_of_milliseconds(self, name: str) -> None:
        if parse.milliseconds(self.buckets):
            bounds = ",".join(f"{bound:g}" for bound in self.buckets[:-1])
            warn(f"{name}={bounds}: bounds are in seconds; are these milliseconds? Then divide them by 1000")


def warn(message: str) -> None:
    """Warn at the line outside this package that led to it, however the application was set up."""
    level = next(
        level
        for level, (frame, _) in enumerate(walk_stack(sys._getframe()), 1)
        if not frame.f_globals.get("__name__", "").startswith("exporter.")
    )
    warnings.warn(message, stacklevel=level)


class SettingsArguments(TypedDict, total=False):
    """The keyword arguments that are settings, as a caller may write them."""

    monitoring_path: str | None
    health_path: str | None
    prefix: str
    extended: bool
    app_version: str
    native_histograms: bool
    max_series: int
    recent: int
    slow: float
    allow: str | Iterable[str | Network] | None
    token_file: str | None
    trusted_proxies: str | Iterable[str | Network]
    health_warning: float
    health_degraded: float
    health_min_requests: int
    request_log: str
    instance: str | None
    log_level: str
    log_query: bool
    log_mask: str | Iterable[str]
    log_max_bytes: int
    log_backups: int
    grafana_url: str | None
    prometheus_url: str | None
    alertmanager_url: str | None


def meanings() -> Iterator[tuple[str, str]]:
    """The variable and the meaning of each setting, in order."""
    for member in fields(Settings):
        yield PREFIX + member.name.upper(), member.metadata["meaning"]


def _parse(name: str, key: str, value: Any) -> Any:
    try:
        return _PARSERS[key](value)
    except (ValueError, TypeError) as error:
        raise SettingsError(name, value, str(error)) from None


def _is_from_kubernetes(name: str) -> bool:
    """Whether a Service called "exporter" puts this variable into every container."""
    return re.fullmatch(r"EXPORTER_(SERVICE_.*|PORT(_\d+_(TCP|UDP|SCTP).*)?)", name) is not None


_PARSERS: dict[str, Callable[[Any], Any]] = {
    member.name: member.metadata["parser"] for member in fields(Settings)
}
# The other arguments of `FlaskExporter`: the message about a misspelling suggests them.
_ARGUMENTS = (
    *("export_defaults", "defaults_prefix", "default_latency_as_histogram", "default_labels"),
    *("response_converter", "excluded_paths", "exclude_user_defaults", "metrics_decorator", "registry"),
)
_OPTIONAL = {member.name for member in fields(Settings) if "None" in str(member.type)}
