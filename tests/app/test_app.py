"""The app factory, and how gunicorn is told to serve the app."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from app import __version__, create_app
from tests.rig.places import ROOT


def build(tmp_path: Path, registry: CollectorRegistry, **config: object) -> Flask:
    return create_app({"DATABASE": tmp_path / "orders.db", **config}, registry)


def test_version_is_told(tmp_path: Path) -> None:
    """flask_app_info carries the service's own version, or the one given at deployment."""
    shipped, deployed = CollectorRegistry(), CollectorRegistry()

    apps = build(tmp_path, shipped), build(tmp_path, deployed, VERSION="2026-11-20.1")

    assert shipped.get_sample_value("flask_app_info", {"version": __version__}) == 1
    assert deployed.get_sample_value("flask_app_info", {"version": "2026-11-20.1"}) == 1
    del apps  # which held the measurements


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """APP_<NAME> sets NAME, unless create_app() is given another value for it."""
    monkeypatch.setenv("APP_DATABASE", str(tmp_path / "shop" / "orders.db"))
    monkeypatch.setenv("APP_VERSION", "1.10")
    monkeypatch.setenv("APP_GRAFANA_URL", "http://grafana.example")

    app = create_app({"GRAFANA_URL": ""}, CollectorRegistry())

    assert (tmp_path / "shop" / "orders.db").exists()
    assert app.config["VERSION"] == "1.10"
    assert app.config["GRAFANA_URL"] == ""


def test_requests_are_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is a JSON line on stdout, with its answer's id, unless the environment says otherwise."""
    monkeypatch.delenv("EXPORTER_REQUEST_LOG", raising=False)
    app = create_app({"DATABASE": tmp_path / "orders.db"}, CollectorRegistry())

    answer = app.test_client().get("/test/notfound")

    (line,) = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert (line["url_rule"], line["status"]) == ("/test/notfound", 404)
    assert line["request_id"] == answer.headers["X-Request-ID"] == answer.get_json()["request_id"]


@pytest.mark.parametrize("address", ["grafana:3000", "javascript:alert(1)", "http://", "http://a b"])
def test_address_must_be_http(tmp_path: Path, address: str) -> None:
    """A link that no browser could follow is refused at the start, by its setting's name."""
    with pytest.raises(ValueError, match=r"^GRAFANA_URL is '.*': give an address"):
        build(tmp_path, CollectorRegistry(), GRAFANA_URL=address)


@pytest.mark.parametrize(
    ("api_only", "link"), [("0", "http://p.example/sub"), ("1", "http://p.example/sub/api/v1/alerts")]
)
def test_monitoring_links_to_what_is_running(tmp_path: Path, api_only: str, link: str) -> None:
    """The page of the exporter links to the same parts as the start page, and to pages that exist there."""
    settings = {"PROMETHEUS_URL": "http://p.example/sub/", "GRAFANA_URL": "", "API_ONLY": api_only}
    page = build(tmp_path, CollectorRegistry(), **settings).test_client().get("/monitoring").text

    assert f'<a href="{link}">Prometheus</a>' in page
    assert "not linked: set <code>EXPORTER_GRAFANA_URL=" in page


def test_flag_must_be_clear(tmp_path: Path) -> None:
    """A flag is 0 or 1, and nothing that has to be guessed."""
    with pytest.raises(ValueError, match=r"^API_ONLY is 'maybe': give 0 or 1$"):
        build(tmp_path, CollectorRegistry(), API_ONLY="maybe")


def test_database_must_be_writable(tmp_path: Path) -> None:
    """A database whose directory cannot be made is refused at the start, by its path."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OSError, match=r"cannot keep orders in '.*file/orders\.db'.*writable directory"):
        create_app({"DATABASE": str(tmp_path / "file" / "orders.db")}, CollectorRegistry())


def test_database_must_be_one(tmp_path: Path) -> None:
    """A file that is no SQLite database is refused at the start, and left as it is."""
    file = tmp_path / "orders.db"
    file.write_text("my novel\n" * 1000)

    with pytest.raises(OSError, match=r"cannot keep orders in .*file is not a database"):
        create_app({"DATABASE": str(file)}, CollectorRegistry())
    assert file.read_text() == "my novel\n" * 1000


@pytest.mark.parametrize(
    ("name", "value"), [("APP_THREADS", "many"), ("APP_THREADS", "0"), ("WEB_CONCURRENCY", "0")]
)
def test_gunicorn_needs_numbers(tmp_path: Path, name: str, value: str) -> None:
    """A number of threads or workers that cannot be used ends gunicorn with one line that names it."""
    gunicorn = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--config=app/gunicorn.conf.py"],
        cwd=ROOT,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), name: value},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert gunicorn.returncode == 1
    assert gunicorn.stderr == f"{name} is {value!r}: give a whole number from 1 on\n"
