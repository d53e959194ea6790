"""prometheus_client's internals: what is used is there, or its absence is said at the import."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.rig.places import ROOT


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        (
            "from prometheus_client import Metric as m; del m._restricted_metric",
            "_restricted_metric in Metric",
        ),
        (
            "from prometheus_client.mmap_dict import MmapedDict as m\n"
            "def write_value(self, key, value): ...\n"
            "m.write_value = write_value",
            "timestamp in write_value",
        ),
        (
            "from prometheus_client import values as m\n"
            "m.MutexValue = type('MutexValue', (), {'_multiprocess': False})",
            "_exemplar, _value in MutexValue",
        ),
        (
            "from prometheus_client import metrics as m; del m._use_created",
            "_use_created in prometheus_client.metrics",
        ),
    ],
)
def test_a_release_without_an_internal_is_refused(damage: str, missing: str) -> None:
    """The message names the release, what it lacks, and which releases have it."""
    code = f"{damage}\nfrom exporter import FlaskExporter"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.stderr.splitlines()[-1] == (
        f"ImportError: prometheus-client {version('prometheus-client')} has no {missing}, which the exporter "
        "uses: install a version from 0.18 to 0.26"
    )


@pytest.mark.parametrize(
    "damage", ["vars(m).pop('escape_label_name', None)", "m.escape_label_name = lambda name: 'other'"]
)
def test_a_release_that_escapes_no_names_has_them_as_they_are(damage: str) -> None:
    code = (
        f"from prometheus_client.openmetrics import exposition as m; {damage}\n"
        "from exporter.client import escape_label_name\n"
        "print(escape_label_name('a.b', 'underscores'))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.stdout, ended.stderr) == ("a.b\n", "")


@pytest.mark.parametrize("name", ["prometheus-client", "prometheus-flask-exporter"])
def test_the_message_says_what_the_package_declares(name: str) -> None:
    """The oldest release is that of pyproject.toml, and so is the newest where there is a bound."""
    declared = re.search(rf'^    "({name}[<>=].*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    allowed = Requirement(declared[1]).specifier
    source = "\n".join((ROOT / "exporter" / file).read_text() for file in ("client.py", "parent.py"))
    said = re.search(rf'"{name}",\s+"([\d.]+) to ([\d.]+)"', source)
    assert said is not None

    assert Version(said[1]) in allowed
    assert Version(said[2]) in allowed
    assert f">={said[1]}" in str(allowed)
