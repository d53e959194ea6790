"""reference/settings.md: every setting with its default, its meaning and the message about a value of no use."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import app as service
from docs.writers.markdown import code, items, page, section, table
from exporter.settings import DIRECTORY, PREFIX, Settings, SettingsError, meanings
from prometheus.run.plan import PORTS, Plan

TOP = Path(__file__).resolve().parents[2]
HEAD = ["setting", "default", "meaning"]

# One of these is of no use to any setting that refuses something.
USELESS = ("lots", "7 of", "\x07")

SERVICE = {
    "APP_BIND": "address to listen on",
    "WEB_CONCURRENCY": "workers",
    "APP_THREADS": "threads of each worker",
    "APP_DATABASE": "SQLite file",
    "APP_VERSION": "version, for `flask_app_info`",
    "APP_PROMETHEUS_URL": "where the start page and `/monitoring` link to; empty: not running",
    "APP_ALERTMANAGER_URL": "the same",
    "APP_GRAFANA_URL": "the same",
    "APP_API_ONLY": "`1`: Prometheus and Alertmanager have no pages, so link to their APIs",
    "TARGET": "where `python -m app.traffic` sends its requests",
    "TRAFFIC_USERS": "simulated customers, three requests a second each; 0 for none",
    "TRAFFIC_ERROR_RATIO": "share of requests that ask for a 5xx; 0.05 makes the error alerts fire",
    "TRAFFIC_HEARTBEAT": "a file that is touched every five seconds",
}
COMPOSE = {
    "TRAFFIC_USERS": "simulated customers",
    "BIND_ADDRESS": "address of the ports; only Grafana has a login",
    "PUBLIC_HOST": "host in the links of alerts and pages",
    "GRAFANA_ADMIN_PASSWORD": "makes Grafana's user `admin`; without it nobody can log in",
    "ALERT_RECEIVER": "`none`, `discord`, `slack`, `email`, `webhook`",
    "ALERT_SECRET_FILE": "file with the receiver's secret",
    "ALERT_HEARTBEAT_FILE": "file with the URL that gets the dead-man's switch",
    "SHARDED": "with `cluster.yml`: the two Prometheus share the targets",
}
RUN = {
    "APP_PORT": "port of the service",
    "PROMETHEUS_PORT": "port of Prometheus",
    "ALERTMANAGER_PORT": "port of Alertmanager",
    "BLACKBOX_PORT": "port of the blackbox exporter",
    "NODE_PORT": "port of the node exporter",
    "GRAFANA_PORT": "port of Grafana",
    "PORT_OFFSET": "is added to the defaults of all ports",
    "RUN_DIR": "data, logs and the configuration that is in use",
    "TARGETS_DIR": "what is scraped",
    "TRAFFIC_USERS": "simulated customers",
    "TIME_SCALE": "divides every duration of the rules; a wait of five minutes or longer is 15 seconds at the least",
    "STACK_ARCHIVES": "base address of a mirror of the release archives",
    "STACK_ARCHIVES_TIMEOUT": "seconds to wait for an answer of it",
}

INTRODUCTION = """\
Environment variables; each is also a keyword argument of `FlaskExporter` (`EXPORTER_MAX_SERIES` is `max_series`), which
wins. A value that cannot be used is an error at the start that names it; an unknown `EXPORTER_*` is a warning, and an empty
one counts as not set. A server's master runs before your application: `EXPORTER_DRAIN`, `EXPORTER_LISTEN` and who may read
there follow the variables alone, and so does `EXPORTER_MAX_SERIES` for what is kept of workers that have ended."""

DIRECTORY_TEXT = """\
The directory of small files that several workers share; without it they cannot be added up. It has to be set before the
server starts, and belongs to the workers' user alone. Default: none. prometheus_client reads it too."""


def exporter_rows() -> list[tuple[str, str, str]]:
    """Each setting of the exporter with its default as the variable would have it, and its meaning."""
    defaults = Settings()
    return [
        (name, _variable(getattr(defaults, name.removeprefix(PREFIX).lower())), meaning)
        for name, meaning in meanings()
    ]


def _variable(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        numbers = [f"{part:g}" for part in value if isinstance(part, float) and part < math.inf]
        return ",".join(numbers) or " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def refusal(name: str) -> str:
    """What the exporter says of a value of no use; "" if it takes every text at the start."""
    for value in USELESS:
        try:
            Settings.load({name: value})
        except SettingsError as error:
            return error.message
    return ""


def messages() -> list[str]:
    """What the exporter says of settings that do not fit together, or that there are not."""
    said = []
    try:
        Settings.load({"EXPORTER_HEALTH_WARNING": "0.5"})
    except SettingsError as error:
        said.append(error.message)
    try:
        Settings.load({}, max_serie=10)
    except SettingsError as error:
        said.append(error.message)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Settings.load({"EXPORTER_BUCKET": "0.1,0.5"})
        Settings.load({"EXPORTER_BUCKETS": "5,50,500"})
    return said + [f"warning: {warning.message}" for warning in caught]


def service_rows() -> list[tuple[str, str, str]]:
    """Every variable that the demo, its server's configuration and its traffic read."""
    defaults = {}
    for file in ("app/gunicorn.conf.py", "app/traffic.py"):
        source = (TOP / file).read_text(encoding="utf-8")
        for name, default in re.findall(r'(?:get|_number)\("([A-Z_]+)"(?:, ([^,)]+))?', source):
            defaults[name] = default.strip('"')
    return _rows(SERVICE, defaults | {f"APP_{name}": default for name, default in service.SETTINGS.items()})


def compose_rows() -> list[tuple[str, str, str]]:
    """Every variable of .env.example with the default of the compose files."""
    compose = "".join(file.read_text(encoding="utf-8") for file in sorted(TOP.glob("*.yml")))
    example = re.findall(r"^#(\w+)=", (TOP / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    defaults = dict.fromkeys(example, "") | dict(re.findall(r"\$\{(\w+):-([^}]*)\}", compose))
    return _rows(COMPOSE, {name: defaults[name].replace("/dev/null", "") for name in example})


def run_rows() -> list[tuple[str, str, str]]:
    """Every variable that `make run` reads."""
    sources = "".join((TOP / f"prometheus/{name}.py").read_text() for name in ("run/plan", "tools/archives"))
    plan = Plan.load({})
    defaults = {setting: address.partition(":")[2] for address, setting in PORTS.items()}
    defaults |= dict(re.findall(r'environ(?:\.get\(|, )"([A-Z_]+)"(?:, "([^"]*)")?', sources))
    for name, path in (("RUN_DIR", plan.run), ("TARGETS_DIR", plan.targets)):
        defaults[name] = path.relative_to(TOP).as_posix()
    return _rows(RUN, defaults)


def _rows(meaning: dict[str, str], defaults: dict[str, str]) -> list[tuple[str, str, str]]:
    """The rows of a table; KeyError for a variable without a meaning, or a meaning without a variable."""
    for name in defaults:
        meaning[name]
    return [(name, defaults[name], text) for name, text in meaning.items()]


def text() -> str:
    """The page."""
    exporter = exporter_rows()
    return page(
        "Settings",
        "docs/writers/settings.py, exporter/settings.py and the variables that the parts read",
        section("The exporter", INTRODUCTION, _table(exporter, linked=True)),
        *(_section(*row) for row in exporter),
        section(code(DIRECTORY), DIRECTORY_TEXT, level=3),
        section("Messages about settings", items(map(code, messages())), level=3),
        section(
            "The service",
            "The demo writes its request log to standard output unless `EXPORTER_REQUEST_LOG` says otherwise; under\n"
            "`make run`, to `.run/logs/requests.jsonl`.",
            _table(service_rows()),
        ),
        section(
            "docker compose",
            "In the environment or in a file `.env` ([.env.example](../../.env.example)):",
            _table(compose_rows()),
        ),
        section(
            "make run",
            "In the environment. `ALERT_*`, `EXPORTER_*`, `WEB_CONCURRENCY`, `APP_THREADS`, `APP_VERSION` and\n"
            "`TRAFFIC_ERROR_RATIO` are passed on.",
            _table(run_rows()),
        ),
    )


def _table(rows: list[tuple[str, str, str]], *, linked: bool = False) -> str:
    return table(
        HEAD,
        [
            [f"[{code(name)}](#{name.lower()})" if linked else code(name), code(default), meaning]
            for name, default, meaning in rows
        ],
    )


def _section(name: str, default: str, meaning: str) -> str:
    said = refusal(name)
    facts = [
        f"default: {code(default) or 'none'}",
        f"argument: {code(name.removeprefix(PREFIX).lower())}",
        *([f"a wrong value: {code(said)}"] if said else []),
    ]
    return section(code(name), meaning[0].upper() + meaning[1:] + ".", items(facts), level=3)
