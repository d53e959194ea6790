"""The worker directory of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.store.directory import WorkerDirectory


@pytest.fixture
def directory(tmp_path: Path) -> WorkerDirectory:
    return WorkerDirectory(tmp_path)
