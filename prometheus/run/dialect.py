"""The dialect of the installed Prometheus: prometheus.yml is for that of compose, and Debian's is older.

`python -m prometheus.run.dialect` checks prometheus.yml in the dialect of the installed promtool.
"""

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from prometheus.run.plan import TOP
from prometheus.tools.toolbox import executable

Version = tuple[int, int]

# From this version on each job asks for native histograms with the key `scrape_native_histograms`. Older
# versions refuse the key, and have a feature flag for all jobs.
STABLE = (3, 8)

# Alerts of two objectives have one name, which promtool calls a failure and takes all the same.
LINT = "--lint=none"

# What the other jobs are asked for before `STABLE`. With protobuf they would get native histograms too, and
# Prometheus 3.5 ends itself over one whose start is the time of an earlier sample, as by chance its own is.
# Source: https://github.com/prometheus/prometheus/pull/16332
TEXTS = ["OpenMetricsText1.0.0", "OpenMetricsText0.0.1", "PrometheusText0.0.4"]


@functools.cache
def version() -> Version:
    """Return the major and minor version of the Prometheus in `.tools/`."""
    answer = subprocess.run(
        [executable("prometheus"), "--version"], capture_output=True, text=True, check=True
    )
    return parse(answer.stdout + answer.stderr)


def parse(text: str) -> Version:
    """Return the version in the output of `prometheus --version`; raise ValueError if there is none."""
    match = re.search(r"version (\d+)\.(\d+)", text)
    if match is None:
        raise ValueError(f"not what prometheus --version says: {text!r}")
    return int(match[1]), int(match[2])


def features(own: Version | None = None) -> str:
    """Return the value of `--enable-feature`: the flags of compose, and one more before `STABLE`."""
    names = ["exemplar-storage", "created-timestamp-zero-ingestion"]
    return ",".join(names if (own or version()) >= STABLE else [*names, "native-histograms"])


def translate(document: dict[str, Any], own: Version | None = None) -> dict[str, Any]:
    """Return prometheus.yml without the key that the version `own` refuses, and with the same effect."""
    if (own or version()) >= STABLE:
        return document

    def translated(job: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in job.items() if key != "scrape_native_histograms"}
        return rest if job.get("scrape_native_histograms") else {"scrape_protocols": TEXTS, **rest}

    return {**document, "scrape_configs": [*map(translated, document["scrape_configs"])]}


def check(directory: Path) -> subprocess.CompletedProcess[str]:
    """Let promtool check the configuration of a directory, in the dialect of its version."""
    with tempfile.TemporaryDirectory() as scratch:
        for entry in directory.resolve().iterdir():
            (Path(scratch) / entry.name).symlink_to(entry)
        file = Path(scratch) / "prometheus.yml"
        document = translate(yaml.safe_load(file.read_text(encoding="utf-8")))
        file.unlink()
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        command = [str(executable("promtool")), "check", "config", LINT, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    answer = check(TOP / "prometheus")
    print(answer.stdout + answer.stderr, end="")
    sys.exit(answer.returncode)
