"""The order of the folders; and what this interpreter cannot test is said at the end of the run."""

import os
import re
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest

# The generator of the dashboards needs Python 3.11. Where all has to be tested its absence is an error.
_WITHOUT_GENERATOR = find_spec("grafana_foundation_sdk") is None and "CI" not in os.environ
_untested: list[Path] = []


_SLOW = frozenset(["product", "prometheus", "docs"])
"""Folders of tests that wait for programs: first, so that nothing waits for them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the folders; the order within them stays."""
    items.sort(key=lambda item: _SLOW.isdisjoint(item.path.relative_to(Path(__file__).parent).parts))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what imports the generator."""
    if not _WITHOUT_GENERATOR or collection_path.suffix != ".py":
        return None
    if not re.search(r"^from grafana", collection_path.read_text(), re.MULTILINE):
        return None
    _untested.append(collection_path)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out."""
    for path in _untested:
        terminalreporter.line(f"NOT TESTED: {path} (grafana-foundation-sdk is missing, it needs Python 3.11)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged reaches the other process of pytest-xdist also where it is no text."""
    report = yield
    report.sections = [(name, text.encode(errors="replace").decode()) for name, text in report.sections]
    return report
