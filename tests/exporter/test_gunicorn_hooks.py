"""gunicorn's hooks, called as a master calls them that has prepared nothing."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from exporter import gunicorn
from tests.rig.users import as_child


@pytest.mark.parametrize(("workers", "errors"), [(1, 0), (2, 1), (3, 1)])
def test_several_workers_without_a_directory_are_an_error(workers: int, errors: int) -> None:
    """As after a signal to have one more."""
    said: list[tuple[Any, ...]] = []
    server = SimpleNamespace(log=SimpleNamespace(error=lambda *words: said.append(words)))
    gunicorn.nworkers_changed(server, workers, 1)

    assert (
        said
        == [("%s workers each count for themselves: set %s", workers, "PROMETHEUS_MULTIPROC_DIR")] * errors
    )


def test_an_end_without_a_listener_ends_nobody() -> None:
    def end() -> None:
        killed: list[int] = []
        os.kill = lambda pid, _: killed.append(pid)
        gunicorn.on_exit(SimpleNamespace(WORKERS={}))
        assert killed == []

    as_child(end)
