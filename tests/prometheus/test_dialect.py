"""The shipped prometheus.yml is for compose's Prometheus, and what is in .tools/ gets what it takes."""

import re

import pytest
import yaml

from prometheus.run import dialect
from tests.rig.places import ROOT

SHIPPED = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["prometheus"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("prometheus, version 3.5.3+ds1 (branch: debian/sid, revision: 3.5.3+ds1-6)", (3, 5)),
        ("prometheus, version 3.13.2 (branch: HEAD, revision: 4a1b)", (3, 13)),
        ("prometheus, version 4.0.0-rc.1 (branch: HEAD, revision: 4a1b)", (4, 0)),
    ],
)
def test_version(text: str, version: tuple[int, int]) -> None:
    """Debian's, a release and a candidate."""
    assert dialect.parse(text) == version


def test_what_tells_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="'segfault'"):
        dialect.parse("segfault")


@pytest.mark.parametrize("version", [(3, 8), (3, 13), (4, 0)])
def test_a_new_prometheus_takes_what_is_shipped(version: tuple[int, int]) -> None:
    """Only the flags of compose, and the configuration as it is."""
    assert dialect.translate(SHIPPED, version) == SHIPPED
    assert f"--enable-feature={dialect.features(version)}" in COMPOSE["command"]


@pytest.mark.parametrize("version", [(3, 5), (3, 7)])
def test_an_old_prometheus_gets_native_histograms_by_its_flag(version: tuple[int, int]) -> None:
    """It refuses the key of the job, and takes everything else; who has no such key is asked for texts."""
    assert dialect.features(version).split(",")[-1] == "native-histograms"
    translation = dialect.translate(SHIPPED, version)
    app = next(job for job in translation["scrape_configs"] if job["job_name"] == "app")
    shipped = next(job for job in SHIPPED["scrape_configs"] if job["job_name"] == "app")

    assert app == {key: value for key, value in shipped.items() if key != "scrape_native_histograms"}
    assert app != shipped
    others = [job for job in translation["scrape_configs"] if job is not app]
    assert {tuple(job["scrape_protocols"]) for job in others} == {tuple(dialect.TEXTS)}
    assert translation["global"] == SHIPPED["global"]


def test_compose_has_a_prometheus_for_which_the_configuration_is_written() -> None:
    image = re.fullmatch(r"prom/prometheus:v(\d+)\.(\d+)\.\d+", COMPOSE["image"])

    assert image is not None
    assert (int(image[1]), int(image[2])) >= dialect.STABLE


def test_the_promtool_in_hand_takes_the_configuration() -> None:
    """Scrape jobs, target files and every rule file are valid."""
    answer = dialect.check(ROOT / "prometheus")

    assert answer.returncode == 0, answer.stdout + answer.stderr
