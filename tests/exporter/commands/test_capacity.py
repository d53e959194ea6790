"""`python -m exporter capacity`: the series that it counts are those that there are."""

import re
from pathlib import Path

import pytest
import yaml

from exporter import Settings
from exporter.__main__ import main, parser
from exporter.commands.capacity import HISTOGRAM, SIZES, TARGET, Fleet
from tests.rig import sized
from tests.rig.deadline import eventually
from tests.rig.places import ROOT
from tests.rig.scraper import scraper
from tests.rig.server import threaded

PAGE = (ROOT / "deploy/capacity.md").read_text()
WHOLE_HOURS = "slo:.*_[13]d"
"""Series that begin with the next full hour: 24 of a service."""
LATER = 24 + 4
"""Series of a service that are recorded from a full hour on, after half an hour or a day, or with a proxy."""


def fleet(endpoints: int, methods: int, statuses: int, instances: int = 1, deploys: int = 0) -> Fleet:
    return Fleet(endpoints, methods, statuses, instances, 1, deploys, 15.0, 35.0)


@pytest.mark.parametrize(("endpoints", "methods", "statuses"), [(1, 1, 2), (5, 1, 3), (5, 2, 2), (12, 3, 4)])
def test_an_instance_exposes_as_many(tmp_path: Path, endpoints: int, methods: int, statuses: int) -> None:
    """Those of the text, and the native histograms of protobuf beside them."""
    with threaded(tmp_path, sized.source(endpoints, methods), workers=2) as server:
        sized.use(server.port, endpoints, methods, statuses)
        names = [name for name in server.samples() if "_created" not in name]
    natives = sum(name.startswith("flask_http_request_duration_seconds_count") for name in names)

    assert len(names) + natives == fleet(endpoints, methods, statuses).exposed


def test_prometheus_has_as_many(tmp_path: Path) -> None:
    """Scraped and recorded, with the shipped rules."""
    expected = fleet(5, 2, 3)
    with threaded(tmp_path, sized.source(5, 2), workers=2) as server:
        group = {"targets": [f"127.0.0.1:{server.port}"], "labels": {"service": "sized"}}
        with scraper(tmp_path, [group], 1.0, minute=1.0) as prometheus:

            def counts() -> tuple[int, int, int]:
                sized.use(server.port, 5, 2, 3)
                return (
                    prometheus.count("flask_.*") + prometheus.count("up|scrape_.*"),
                    prometheus.count("instance.*:.*"),
                    prometheus.count("(job|url_rule|slo|url_rule_.*):.*") - prometheus.count(WHOLE_HOURS),
                )

            wanted = (expected.exposed + TARGET, expected.recorded, expected.of_service - LATER)
            eventually(lambda: counts() == wanted, f"{wanted} series")


def test_what_a_fleet_needs() -> None:
    """A hundred instances of one service; a deploy doubles what is in memory, and the samples stay."""
    hundred, deployed = fleet(50, 1, 3, 100), fleet(50, 1, 3, 100, deploys=1)

    assert (hundred.exposed, hundred.recorded, hundred.of_service) == (4034, 375, 1597)
    assert hundred.series == 100 * (4034 + 5 + 375) + 1597
    assert deployed.series - hundred.series == 100 * (4034 + 5 + 375)
    assert deployed.samples == hundred.samples
    assert hundred.samples == pytest.approx(100 * ((4034 + 5 + 18) / 15 + 357 / 60) + 1501 / 15 + 96 / 60)
    assert hundred.memory_limit * 2**20 > hundred.memory * 1.25
    assert hundred.memory == 3000 * hundred.series
    assert hundred.disk == pytest.approx(2.5 * hundred.samples * 35 * 24 * 3600, rel=1e-9)


@pytest.mark.parametrize(("endpoints", "exposed", "limit"), [(51, 3142, 4000), (52, 3201, 5000)])
def test_a_sample_limit_is_a_quarter_above_what_is_exposed(endpoints: int, exposed: int, limit: int) -> None:
    size = fleet(endpoints, 1, 2)

    assert (size.exposed, size.sample_limit) == (exposed, limit)


def test_the_page_has_these_figures() -> None:
    """Its table is what the command says, and so is what fits into compose's Prometheus."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]
    limit = int(compose["mem_limit"].removesuffix("g")) * 1024
    lines = re.findall(r"^\| (\d+) · (\d+) · (\d+) \| (.*) \|$", PAGE, re.MULTILINE)
    for endpoints, methods, statuses, cells in lines:
        size = fleet(int(endpoints), int(methods), int(statuses), 100)
        assert cells.split(" | ") == [
            *(f"{number:,}" for number in (size.exposed, size.recorded, size.of_service, size.series)),
            f"{size.samples:,.0f}",
            f"{size.memory / 1e9:.2f} GB",
            f"{size.processors:.2f}",
            f"{size.disk / 1e9:,.0f} GB",
        ]
    sentence = re.search(r"gives Prometheus 2 GB: (\d+) instances of 50 endpoints with 3 statuses", PAGE)
    assert sentence is not None
    most = int(sentence[1])

    assert len(lines) == 5
    assert fleet(50, 1, 3, most).memory_limit <= limit < fleet(50, 1, 3, most + 1).memory_limit


def test_no_service_within_its_cap_meets_the_sample_limit() -> None:
    """Nor the alert before it, though every family had as many label sets as it may have."""
    (job,) = (
        job
        for job in yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())["scrape_configs"]
        if job["job_name"] == "app"
    )
    cap = Settings().max_series
    most = (HISTOGRAM + SIZES + 5) * cap + 100  # errors, minimum, maximum, slow places and disconnects too

    assert most < 0.8 * job["sample_limit"]


def test_the_table_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--endpoints", "50", "--statuses", "3", "--instances", "100"]) == 0
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())

    assert rows["series of an instance"] == "4,034   sample_limit: 6000 or more"
    assert rows["series in memory"] == "442,997"
    assert rows["memory of Prometheus"] == "1.33 GB   mem_limit: 1792m or more"


def test_the_smallest_sizes_and_what_is_not_said() -> None:
    """One service that is never deployed anew, scraped as by compose."""
    needed = ["--endpoints", "1", "--statuses", "2", "--instances", "1"]
    said = ["--methods", "1", "--services", "1", "--deploys", "0", "--interval", "0.5", "--days", "1"]
    whole, least = (parser().parse_args(["capacity", *needed, *words]) for words in ([], said))

    assert (whole.methods, whole.services, whole.deploys, whole.interval, whole.days) == (1, 1, 0, 15.0, 35.0)
    assert (least.methods, least.services, least.deploys, least.interval, least.days) == (1, 1, 0, 0.5, 1.0)
    assert main(["capacity", *needed]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--endpoints", "0"], "argument --endpoints: '0': give a whole number from 1 on"),
        (["--statuses", "1"], "argument --statuses: '1': give a whole number from 2 on"),
        (["--interval", "x"], "argument --interval: 'x': give a number above 0"),
        (["--services", "200"], "--instances 100 for --services 200: each service has one at least"),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    sizes = ["--endpoints", "50", "--statuses", "3", "--instances", "100", *arguments]
    with pytest.raises(SystemExit) as end:
        raise SystemExit(main(["capacity", *sizes]))

    assert end.value.code == 2
    assert complaint in capsys.readouterr().err
