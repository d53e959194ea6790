"""The clock of a test."""

from __future__ import annotations

import pytest

from tests.rig.wsgi import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)
