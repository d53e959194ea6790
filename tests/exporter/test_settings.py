"""EXPORTER_* variables and keyword arguments become one validated object; bad values say what to do."""

from __future__ import annotations

import dataclasses
import inspect
import ipaddress
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Histogram

from exporter import FlaskExporter, Settings, SettingsError
from exporter.settings import (
    _ARGUMENTS,
    DEFAULT_MASK,
    DIRECTORY,
    SettingsArguments,
    forget_empty_directory,
    meanings,
    worker_directory,
)
from tests.rig.places import ROOT
from tests.rig.program import module

NETWORK = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))


def test_the_defaults() -> None:
    assert dataclasses.asdict(Settings.load({})) == {
        "path": "/metrics",
        "monitoring_path": "/monitoring",
        "health_path": "/health",
        "group_by": "url_rule",
        "buckets": Histogram.DEFAULT_BUCKETS,
        "prefix": "flask",
        "extended": True,
        "app_version": "unknown",
        "native_histograms": True,
        "max_series": 1000,
        "recent": 1000,
        "slow": 0.5,
        "allow": None,
        "token_file": None,
        "trusted_proxies": (),
        "health_warning": 0.05,
        "health_degraded": 0.10,
        "health_min_requests": 20,
        "request_log": "off",
        "instance": None,
        "log_level": "INFO",
        "log_query": False,
        "log_mask": DEFAULT_MASK,
        "log_max_bytes": 10 * 1024 * 1024,
        "log_backups": 5,
        "listen": None,
        "grafana_url": None,
        "prometheus_url": None,
        "alertmanager_url": None,
        "drain": 5.0,
        "auto": True,
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("path", "/internal", "/internal"),
        ("path", "off", None),
        ("monitoring_path", "off", None),
        ("health_path", "/healthz", "/healthz"),
        ("group_by", "endpoint", "endpoint"),
        ("buckets", "0.1,0.5,2", (0.1, 0.5, 2.0, math.inf)),
        ("buckets", " 1 , inf", (1.0, math.inf)),
        ("extended", "off", False),
        ("extended", "TRUE", True),
        ("app_version", "1.4", "1.4"),
        ("max_series", "10", 10),
        ("recent", "0", 0),
        ("allow", "10.0.0.0/8, ::1", NETWORK),
        ("token_file", "/run/secrets/token", "/run/secrets/token"),
        ("trusted_proxies", "10.0.0.0/8 ::1", NETWORK),
        ("health_warning", "0.02", 0.02),
        ("health_degraded", "1", 1.0),
        ("health_min_requests", "1", 1),
        ("request_log", "stdout", "stdout"),
        ("request_log", "/var/log/requests.log", "/var/log/requests.log"),
        ("request_log", "syslog://10.0.0.9:514", "syslog://10.0.0.9:514"),
        ("instance", "web-1", "web-1"),
        ("log_level", "warning", "WARNING"),
        ("log_query", "yes", True),
        ("log_mask", "Pin, card", ("pin", "card")),
        ("log_max_bytes", "10000", 10_000),
        ("log_backups", "1", 1),
        ("listen", "127.0.0.1:9101", ("127.0.0.1", 9101)),
        ("listen", "[::1]:0", ("::1", 0)),
        ("listen", "[::1]:65535", ("::1", 65535)),
        ("grafana_url", "off", None),
        ("prometheus_url", "http://127.0.0.1:9090/", "http://127.0.0.1:9090"),
        ("drain", "0", 0.0),
    ],
)
def test_each_variable_has_a_keyword_argument(name: str, text: str, value: Any) -> None:
    assert getattr(Settings.load({f"EXPORTER_{name.upper()}": text}), name) == value
    assert getattr(Settings.load({}, **{name: text}), name) == value


def test_each_variable_has_its_meaning() -> None:
    assert [name for name, _ in meanings()] == [f"EXPORTER_{name.upper()}" for name in Settings.__slots__]
    assert dict(meanings())["EXPORTER_MAX_SERIES"] == "label sets that a family may have"


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
@pytest.mark.parametrize("name", Settings.__slots__)
def test_an_empty_variable_is_not_set(name: str, text: str) -> None:
    """Compose files make one of `${VARIABLE:-}`."""
    assert Settings.load({f"EXPORTER_{name.upper()}": text}) == Settings.load({})


def test_an_empty_argument_is_what_it_says() -> None:
    settings = Settings.load({}, path="", grafana_url="", allow=(), log_mask=[])

    assert (settings.path, settings.grafana_url, settings.allow, settings.log_mask) == (None, None, (), ())
    for nothing in ("", None):
        settings = Settings.load({}, instance=nothing, listen=nothing, token_file=nothing)
        assert (settings.instance, settings.listen, settings.token_file) == (None, None, None)
    with pytest.raises(SettingsError, match=r"^buckets=\(\): give at least one upper bound in seconds"):
        Settings.load({}, buckets=())
    with pytest.raises(SettingsError, match=r"^allow='': give at least one address or network"):
        Settings.load({}, allow="")


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("path", "/internal"),
        ("grafana_url", "http://127.0.0.1:3000"),
        ("token_file", "/run/secrets/token"),
        ("instance", "web-1"),
        ("listen", "127.0.0.1:9101"),
    ],
)
def test_an_argument_turns_off_what_a_variable_gives(name: str, text: str, value: str | None) -> None:
    environ = {f"EXPORTER_{name.upper()}": text}

    assert getattr(Settings.load(environ), name) is not None
    assert getattr(Settings.load(environ, **{name: value}), name) is None


def test_a_listener_may_be_given_as_host_and_port() -> None:
    assert Settings.load({}, listen=("::1", 9101)).listen == ("::1", 9101)


@pytest.mark.parametrize(
    ("environ", "arguments", "shown"),
    [
        ({"EXPORTER_BUCKETS": "5,10,25,50,100,250,500"}, {}, "EXPORTER_BUCKETS=5,10,25,50,100,250,500"),
        ({"EXPORTER_BUCKETS": "100,500"}, {}, "EXPORTER_BUCKETS=100,500"),
        ({"EXPORTER_BUCKETS": "1,5"}, {}, "EXPORTER_BUCKETS=1,5"),
        ({"EXPORTER_BUCKETS": "0.5,601"}, {}, "EXPORTER_BUCKETS=0.5,601"),
        ({"EXPORTER_BUCKETS": "0.5,1,1000,inf"}, {}, "EXPORTER_BUCKETS=0.5,1,1000"),
        ({}, {"buckets": [50, 250, 1000]}, "buckets=50,250,1000"),
    ],
)
def test_buckets_that_look_like_milliseconds_are_a_warning(
    environ: dict[str, str], arguments: dict[str, Any], shown: str
) -> None:
    with pytest.warns(
        UserWarning, match=f"^{shown}: bounds are in seconds; are these milliseconds"
    ) as warnings:
        Settings.load(environ, **arguments)
    assert [warning.filename for warning in warnings] == [__file__]


@pytest.mark.parametrize("text", ["0.005,0.01", "0.5,1,30,600", "1", "0.1,inf"])
def test_buckets_of_seconds_are_none(text: str) -> None:
    Settings.load({"EXPORTER_BUCKETS": text})


def test_an_address_to_listen_on_may_be_a_pair() -> None:
    assert Settings.load({}, listen=("127.0.0.1", 9101)).listen == ("127.0.0.1", 9101)


def test_keyword_arguments_win_and_none_is_none_given() -> None:
    environ = {"EXPORTER_MAX_SERIES": "50", "EXPORTER_PATH": "/m"}

    assert Settings.load(environ, max_series=70).max_series == 70
    assert Settings.load(environ, max_series=None).max_series == 50
    assert Settings.load(environ, path=None).path is None


@pytest.mark.parametrize(
    ("name", "text", "remedy"),
    [
        ("path", "metrics", "a path begins with '/', or is 'off'"),
        ("group_by", "full path", "invalid label name 'full path'"),
        ("buckets", "a,b", "give upper bounds in seconds, for example"),
        ("buckets", "1,1", "upper bounds must ascend"),
        ("buckets", "2,1", "upper bounds must ascend"),
        ("buckets", "nan", "give at least one upper bound"),
        ("extended", "maybe", "give on or off"),
        ("max_series", "9", "give a whole number of label sets from 10 to 1000000"),
        ("max_series", "1e3", "give a whole number of label sets"),
        ("recent", "-1", "give a whole number of requests from 0 to 1000000"),
        ("allow", "10.0.0.1/8", "give addresses or networks such as 10.0.0.0/8"),
        ("allow", ",", "give at least one address or network"),
        ("trusted_proxies", "proxy", "give addresses or networks"),
        ("health_warning", "5", "give a ratio from 0 to 1"),
        ("health_warning", "1.01", "give a ratio from 0 to 1"),
        ("health_warning", "nan", "give a ratio from 0 to 1"),
        ("health_min_requests", "0", "give a whole number of requests from 1"),
        ("request_log", "requests.log", "a file's path with a '/'"),
        ("log_level", "LOUD", "give one of DEBUG, INFO"),
        ("log_query", "2", "give on or off"),
        ("log_mask", ", ,", "give at least one name"),
        ("log_max_bytes", "1", "give a whole number of bytes from 10000"),
        ("log_backups", "0", "give a whole number of files from 1 to 1000"),
        ("listen", "9101", "give host:port"),
        ("listen", "127.0.0.1:65536", "give host:port"),
        ("listen", "127.0.0.1:99999", "give host:port"),
        ("drain", "-1", "give seconds from 0 to 3600"),
        ("drain", "soon", "give seconds from 0 to 3600"),
    ],
)
def test_a_bad_value_is_an_error_that_names_setting_value_and_remedy(
    name: str, text: str, remedy: str
) -> None:
    variable = f"EXPORTER_{name.upper()}"

    with pytest.raises(SettingsError) as raised:
        Settings.load({variable: text})
    assert str(raised.value).startswith(f"{variable}={text!r}: ")
    assert remedy in str(raised.value)
    error = raised.value
    assert (error.setting, error.value, remedy in error.remedy) == (variable, text, True)

    with pytest.raises(SettingsError, match=f"^{name}="):
        Settings.load({}, **{name: text})


def test_a_bad_value_stops_the_application_at_its_start() -> None:
    with pytest.raises(SettingsError, match="max_series='many': give a whole number of label sets"):
        FlaskExporter.for_app_factory(max_series="many")  # type: ignore[arg-type]


def test_an_unknown_argument_names_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match="max_serie=5: there is no such setting; did you mean max_series"):
        FlaskExporter.for_app_factory(max_serie=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [("exclude_paths", "excluded_paths"), ("registy", "registry"), ("bucket", "buckets"), ("alow", "allow")],
)
def test_that_may_be_one_of_the_parent_s(unknown: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match=f"there is no such setting; did you mean {nearest}\\?"):
        FlaskExporter.for_app_factory(**{unknown: 1})  # type: ignore[arg-type]


def test_every_argument_of_the_constructor_can_be_the_nearest() -> None:
    arguments = set(inspect.signature(FlaskExporter.__init__).parameters) - {"self", "app", "arguments"}

    assert arguments <= {*Settings.__slots__, *_ARGUMENTS}


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("EXPORTER_MAX_SERIES", "many", "EXPORTER_MAX_SERIES='many': give a whole number of label sets"),
        ("EXPORTER_TOKEN_FILE", "/no/file", "EXPORTER_TOKEN_FILE='/no/file': No such file or directory"),
        (
            "PROMETHEUS_MULTIPROC_DIR",
            "/dev/null",
            "PROMETHEUS_MULTIPROC_DIR='/dev/null': this is no directory",
        ),
        (
            "PROMETHEUS_MULTIPROC_DIR",
            "/dev/null/x",
            "PROMETHEUS_MULTIPROC_DIR='/dev/null/x': Not a directory",
        ),
        ("prometheus_multiproc_dir", "/proc/x", "PROMETHEUS_MULTIPROC_DIR='/proc/x': "),
    ],
)
def test_the_flask_command_says_it_in_one_line(tmp_path: Path, name: str, value: str, line: str) -> None:
    (tmp_path / "shop.py").write_text("import flask, exporter\nexporter.FlaskExporter(flask.Flask('app'))")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", name: value}
    done = subprocess.run(
        module("flask", "--app", "shop", "routes"), cwd=tmp_path, env=environ, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {line}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("max_series", 10, 1_000_000),
        ("recent", 0, 1_000_000),
        ("slow", 0, 3600),
        ("health_degraded", 0.05, 1),
        ("health_min_requests", 1, 1_000_000),
        ("log_max_bytes", 10_000, 1 << 40),
        ("log_backups", 1, 1000),
        ("drain", 0, 3600),
    ],
)
def test_a_range_holds_its_bounds_and_nothing_beyond_them(name: str, low: float, high: float) -> None:
    for value in (low, high):
        assert getattr(Settings.load({}, **{name: value}), name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(SettingsError, match="give "):
            Settings.load({}, **{name: value})


def test_thresholds_in_the_wrong_order_are_an_error() -> None:
    """They may be equal."""
    assert Settings.load({"EXPORTER_HEALTH_WARNING": "0.1"}).health_warning == 0.1
    with pytest.raises(
        SettingsError,
        match=r"EXPORTER_HEALTH_WARNING=0\.2: it must be at most EXPORTER_HEALTH_DEGRADED=0\.1",
    ) as raised:
        Settings.load({"EXPORTER_HEALTH_WARNING": "0.2"})
    assert (raised.value.setting, raised.value.value) == ("EXPORTER_HEALTH_WARNING", 0.2)
    assert raised.value.remedy == "it must be at most EXPORTER_HEALTH_DEGRADED=0.1"


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("EXPORTER_MAX_SERIE", "EXPORTER_MAX_SERIES"),
        ("EXPORTER_TRUSTED_PROXY", "EXPORTER_TRUSTED_PROXIES"),
        ("EXPORTER_REQUESTLOG", "EXPORTER_REQUEST_LOG"),
    ],
)
def test_an_unknown_variable_is_a_warning_that_names_the_nearest(unknown: str, nearest: str) -> None:
    with pytest.warns(
        UserWarning, match=f"{unknown} is no setting of the exporter; did you mean {nearest}\\?"
    ) as warnings:
        assert Settings.load({unknown: "1"}) == Settings.load({})
    assert [warning.filename for warning in warnings] == [__file__]


def test_what_kubernetes_injects_for_a_service_of_that_name_is_no_warning() -> None:
    injected = {
        "EXPORTER_PORT": "tcp://10.0.0.1:80",
        "EXPORTER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "EXPORTER_PORT_80_TCP_ADDR": "10.0.0.1",
        "EXPORTER_SERVICE_HOST": "10.0.0.1",
        "EXPORTER_SERVICE_PORT_HTTP": "80",
    }

    assert Settings.load(injected) == Settings.load({})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.load({}).recent = 5  # type: ignore[misc]


def test_a_caller_may_write_every_setting_but_those_of_the_servers_hooks() -> None:
    """The typed arguments are the fields; three stand in the constructor, as in the parent class."""
    of_hooks, of_the_parent = {"listen", "drain", "auto"}, {"path", "group_by", "buckets"}

    assert SettingsArguments.__annotations__.keys() == set(Settings.__slots__) - of_hooks - of_the_parent
    assert SettingsArguments.__required_keys__ == frozenset()


def test_each_variable_has_a_meaning() -> None:
    assert [name for name, _ in meanings()] == [f"EXPORTER_{name.upper()}" for name in Settings.__slots__]
    assert all(meaning for _, meaning in meanings())


@pytest.mark.parametrize(
    ("environ", "directory", "is_lost"),
    [
        ({}, None, False),
        ({"PROMETHEUS_MULTIPROC_DIR": ""}, None, True),
        ({"prometheus_multiproc_dir": ""}, None, True),
        ({"PROMETHEUS_MULTIPROC_DIR": "", "prometheus_multiproc_dir": "/old"}, "/old", False),
        ({"PROMETHEUS_MULTIPROC_DIR": "/new", "prometheus_multiproc_dir": "/old"}, "/new", False),
        ({"PROMETHEUS_MULTIPROC_DIR": "workers"}, f"{os.getcwd()}/workers", False),
    ],
)
def test_the_worker_directory_is_absolute_and_an_empty_one_is_none(
    environ: dict[str, str], directory: str | None, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (DIRECTORY, DIRECTORY.lower()):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert forget_empty_directory() is is_lost
    assert worker_directory() == directory
    assert "" not in [os.environ.get(name) for name in (DIRECTORY, DIRECTORY.lower())]


@pytest.mark.parametrize("setting", ["app_version", "path", "monitoring_path", "health_path"])
@pytest.mark.parametrize("text", ["/1.0\udcff", "/\ud800", "/a\nb", "/\x1b[2J"])
def test_a_text_that_cannot_be_written_is_refused_at_the_start(setting: str, text: str) -> None:
    """Bytes of the environment that are no UTF-8, halves of surrogate pairs, what a terminal would obey."""
    with pytest.raises(SettingsError, match=f"EXPORTER_{setting.upper()}.*printable text in UTF-8"):
        Settings.load({f"EXPORTER_{setting.upper()}": text})


@pytest.mark.parametrize(
    ("variables", "is_forgotten", "directory"),
    [
        ({}, False, None),
        ({"PROMETHEUS_MULTIPROC_DIR": ""}, True, None),
        ({"prometheus_multiproc_dir": ""}, True, None),
        ({"PROMETHEUS_MULTIPROC_DIR": "", "prometheus_multiproc_dir": "/workers"}, False, "/workers"),
        ({"PROMETHEUS_MULTIPROC_DIR": "/new", "prometheus_multiproc_dir": "/old"}, False, "/new"),
        ({"PROMETHEUS_MULTIPROC_DIR": "workers"}, False, str(Path.cwd() / "workers")),
    ],
)
def test_an_empty_worker_directory_is_none(
    variables: dict[str, str], is_forgotten: bool, directory: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert forget_empty_directory() is is_forgotten
    assert worker_directory() == directory
    assert "" not in map(os.environ.get, variables)
