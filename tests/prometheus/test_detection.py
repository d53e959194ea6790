"""The page of what is detected has every incident of `make backtest`, told within its limit."""

import re

import pytest

from tests.backtest.__main__ import SHARES, TIMES, main
from tests.backtest.play import Timeline, rules, told
from tests.backtest.scenes import INCIDENTS, incidents
from tests.rig.alerts import ALERTS
from tests.rig.places import ROOT

PAGE = (ROOT / "prometheus/detection.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", PAGE, re.M)]


def test_page_has_every_incident_at_both_rates() -> None:
    """In the order in which they are played."""
    assert [(row[0], row[1]) for row in ROWS[2:]] == [
        (incident.what, rate) for incident in INCIDENTS for rate in ("6", "0.3")
    ]


def test_page_shows_that_the_goals_are_met() -> None:
    """Every incident is told within its limit by alerts that exist, and none more than twice."""
    limits = [limit for incident in INCIDENTS for limit in (incident.high, incident.low)]
    minutes = [int(row[2].removesuffix(" min")) for row in ROWS[2:]]
    names = {name for row in ROWS[2:] for cell in row[3:5] for name in re.findall(r"[A-Z]\w+", cell)}

    assert [minute for minute, limit in zip(minutes, limits, strict=True) if minute > limit] == []
    assert [row for row in ROWS[2:] if int(row[5]) > TIMES] == []
    assert names <= {rule["alert"] for rule in ALERTS}
    assert set(re.findall(r"^False alarms above info in .*: (\d+)\.", PAGE, re.M)) == {"0"}


def test_unknown_service_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt service is an error, and no goal is met by it."""
    monkeypatch.setattr("sys.argv", ["backtest", "--only", "nosuch"])

    with pytest.raises(SystemExit, match="2"):
        main()
    assert "no service has nosuch in its name" in capsys.readouterr().err


def test_each_alert_is_played_once() -> None:
    """Those of services and objectives, but for the few that nothing in the history can raise."""
    known = {labels.partition("{")[0] for labels, _ in incidents()[0].series(1)}
    groups = [group for share in SHARES for group in rules(known, share)]
    played = [rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule]

    assert len(played) == len(set(played))
    assert {
        rule["alert"] for rule in ALERTS if rule["alert"].startswith("Flask") and rule["expr"] not in played
    } == {
        "FlaskServiceNotReady",
        "FlaskThreadsSaturated",
        "FlaskRequestStuck",
        "FlaskQueueSlow",
        "FlaskMemoryGrowth",
        "FlaskSeriesCapReached",
        "FlaskExporterFailures",
    }


def alert(name: str, severity: str) -> dict[str, str]:
    """An alert of the service that the tests are about."""
    return {"alertname": name, "severity": severity, "service": "orders"}


BURST, CRITICAL = alert("FlaskErrorBurst", "warning"), alert("FlaskErrorRatioCritical", "critical")
SLOW, INFO = alert("FlaskLatencyUnusual", "warning"), alert("FlaskNewErrorType", "info")


@pytest.mark.parametrize(
    ("timeline", "messages"),
    [
        ({0: [INFO]}, []),
        # The burst is held back by the ratio, but was told before.
        (
            {0: [BURST], 1: [BURST, CRITICAL], 6: [BURST]},
            [(0, "FlaskErrorBurst"), (1, "FlaskErrorRatioCritical")],
        ),
        # The same group is looked at every 5 minutes, with what is there then.
        (
            {0: [BURST], 2: [BURST, SLOW], 5: [BURST, SLOW]},
            [(0, "FlaskErrorBurst"), (5, "FlaskLatencyUnusual")],
        ),
        ({0: [BURST], 2: [BURST, SLOW], 5: [BURST]}, [(0, "FlaskErrorBurst")]),
        # What ended and comes back is told again.
        ({0: [BURST], 5: [], 7: [BURST]}, [(0, "FlaskErrorBurst"), (7, "FlaskErrorBurst")]),
    ],
)
def test_messages_are_counted_as_alertmanager_sends_them(
    timeline: Timeline, messages: list[tuple[int, str]]
) -> None:
    """Each minute without an entry is as the one before."""
    whole: Timeline = {}
    for minute in range(12):
        whole[minute] = timeline.get(minute, whole.get(minute - 1, []))

    assert told(whole).get("orders", []) == messages
