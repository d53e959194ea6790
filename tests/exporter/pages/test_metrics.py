"""`/metrics`: what a scrape of an idle worker says is of now."""

from __future__ import annotations

import pytest

from tests.rig.wsgi import Clock, application, call


def test_a_scrape_says_what_an_idle_worker_has_used_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    app, exporter = application()
    monkeypatch.setattr("time.process_time", lambda: 5.0)
    call(app, "/orders/7")
    clock.advance(1)
    monkeypatch.setattr("time.process_time", lambda: 6.5)

    assert b"flask_worker_cpu_seconds_total 6.5\n" in call(app, "/metrics").body
    exporter.core.worker.note("request_log", OSError("full"))
    assert b'flask_exporter_failures_total{stage="request_log"} 1.0\n' in call(app, "/metrics").body
