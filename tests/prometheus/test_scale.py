"""Scaled configurations: each duration is divided, and nothing else changes."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from prometheus.run import dialect
from prometheus.run.scale import directory, divide, expression, flags, milliseconds, shortest_range
from prometheus.tools.toolbox import executable
from tests.rig.places import ROOT

SHIPPED = ROOT / "prometheus"


@pytest.mark.parametrize(
    ("duration", "scaled"),
    [
        ("5m", "5s"),
        ("30d", "12h"),
        ("1h30m", "1m30s"),
        ("15s", "250ms"),
        ("90s", "1s500ms"),
        ("1w", "2h48m"),
        ("1y", "6d2h"),
        ("100ms", "2ms"),
        ("1ms", "1ms"),
        ("0s", "0s"),
        ("0", "0s"),
    ],
)
def test_divide(duration: str, scaled: str) -> None:
    """A duration keeps its length to the millisecond, and never becomes nothing."""
    assert divide(duration, 60) == scaled


@pytest.mark.parametrize("text", ["5", "5 m", "m", "", "5min", "1.5h", "-5m"])
def test_no_duration(text: str) -> None:
    """What Prometheus does not take as a duration is refused with the value."""
    with pytest.raises(ValueError, match=f"'{text}' is no duration"):
        milliseconds(text)


@pytest.mark.parametrize(
    ("promql", "scaled"),
    [
        ("rate(x[5m])", "rate(x[5s])"),
        ("rate(x[1h30m] offset 1w)", "rate(x[1m30s] offset 2h48m)"),
        ("x offset -5m", "x offset -5s"),
        ("max_over_time(rate(x[5m])[30d:1m])", "max_over_time(rate(x[5s])[12h:1s])"),
        ("max_over_time(x[30d : ])", "max_over_time(x[12h : ])"),
        ("job:x:rate_5m * 5m >= 20", "job:x:rate_5m * 5s >= 20"),
        ("time() - x > 1h", "time() - x > 1m"),
        ("predict_linear(x[6h], 4h) < 0", "predict_linear(x[6m], 4m) < 0"),
        ("job:x:p95_5m > 0.5", "job:x:p95_5m > 0.5"),
        ("x > 14.4 * 0.001 and y < 1e3 or z == 0x5d", "x > 14.4 * 0.001 and y < 1e3 or z == 0x5d"),
        ("100 * x / 60000 > 1000 * 0.8", "100 * x / 60000 > 1000 * 0.8"),
        ("30d / 1h / (x > 14.4)", "12h / 1m / (x > 14.4)"),
        ("x{window=\"5m\", le='10s', a=`1h`}", "x{window=\"5m\", le='10s', a=`1h`}"),
        (r'x{path="\"[5m]"}[5m]', r'x{path="\"[5m]"}[5s]'),
        ('{"a metric 5m", b5m="x"}', '{"a metric 5m", b5m="x"}'),
        ("sum by (d5m) (x5m) # not [5m]\n+ y[5m]", "sum by (d5m) (x5m) # not [5m]\n+ y[5s]"),
    ],
)
def test_expression(promql: str, scaled: str) -> None:
    """Windows, offsets and durations that stand as numbers are divided; names, strings and limits are not."""
    assert expression(promql, 60) == scaled


@pytest.mark.parametrize(
    "promql", ["job:x:rate_5m * 300 >= 20", "300 * x", "predict_linear(x[1h], 4 * 3600)"]
)
def test_bare_seconds(promql: str) -> None:
    """Bare seconds cannot be told from a threshold: the remedy is in the message."""
    with pytest.raises(ValueError, match=r"write the seconds (300 as 5m|3600 as 1h) in: "):
        expression(promql, 60)


def test_shortest_range() -> None:
    """Only range selectors count, not what stands in a string, an offset or a comparison."""
    assert shortest_range('rate(x{a="[1s]"}[5m] offset 1m) > 2s or max_over_time(y[10m:1s])') == 300_000


def test_flags() -> None:
    """What is no part of the configuration is scaled on the command line."""
    assert flags(60) == ["--query.lookback-delta=5s", "--rules.alert.resend-delay=1s"]


def configuration(tmp_path: Path, window: str = "5m") -> Path:
    rule = {
        "alert": "A",
        "expr": f"rate(x[{window}]) > 1",
        "for": "2m",
        "annotations": {"for": {"text": "5m"}},
    }
    documents = {
        "rules/a.yml": {"groups": [{"name": "a", "interval": "1m", "rules": [rule]}]},
        "prometheus.yml": {
            "global": {"scrape_interval": "15s", "scrape_timeout": "10s", "evaluation_interval": "15s"},
            "scrape_configs": [{"job_name": "5m", "scrape_interval": "2m", "scrape_timeout": "30s"}],
        },
        "alertmanager/alertmanager.yml": {
            "route": {"group_wait": "30s", "routes": [{"group_interval": "5m", "repeat_interval": "12h"}]}
        },
    }
    for name, document in documents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump(document))
    return tmp_path


def test_directory(tmp_path: Path) -> None:
    """Every duration of the three files is divided, down to a second between two scrapes."""
    directory(configuration(tmp_path), 60)

    rules, prometheus, alertmanager = (
        yaml.safe_load((tmp_path / name).read_text())
        for name in ("rules/a.yml", "prometheus.yml", "alertmanager/alertmanager.yml")
    )
    assert rules["groups"] == [
        {
            "name": "a",
            "interval": "1s",
            "rules": [
                {"alert": "A", "expr": "rate(x[5s]) > 1", "for": "2s", "annotations": {"for": {"text": "5m"}}}
            ],
        }
    ]
    assert prometheus == {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "5m", "scrape_interval": "1s250ms"}],
    }
    assert alertmanager == {
        "route": {"group_wait": "500ms", "routes": [{"group_interval": "5s", "repeat_interval": "12m"}]}
    }


def test_four_scrapes_a_range(tmp_path: Path) -> None:
    """Where the shortest range needs it, scrapes come closer than a second apart."""
    directory(configuration(tmp_path, window="1m"), 60)

    prometheus = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert prometheus["global"]["scrape_interval"] == "250ms"


@pytest.mark.parametrize(("shipped", "scaled"), [("4m59s", "4s984ms"), ("5m", "15s"), ("20m", "20s")])
def test_an_alert_outlasts_a_start(tmp_path: Path, shipped: str, scaled: str) -> None:
    """Prometheus has no targets for five seconds after its start: what waits for minutes does not fire."""
    file = configuration(tmp_path) / "rules/a.yml"
    file.write_text(file.read_text().replace("for: 2m", f"for: {shipped}"))
    directory(tmp_path, 60)

    assert yaml.safe_load(file.read_text())["groups"][0]["rules"][0]["for"] == scaled


def test_shipped(tmp_path: Path) -> None:
    """What is shipped can be scaled, and Prometheus and Alertmanager accept the result."""
    for name in ("rules", "alertmanager", "targets"):
        shutil.copytree(SHIPPED / name, tmp_path / name)
    document = dialect.translate(yaml.safe_load((SHIPPED / "prometheus.yml").read_text(encoding="utf-8")))
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(document), encoding="utf-8")

    directory(tmp_path, 60)

    for tool, *arguments in (
        ("promtool", "check", "config", "prometheus.yml"),
        ("amtool", "check-config", "alertmanager/alertmanager.yml"),
    ):
        command = [str(executable(tool)), *arguments]
        checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
