"""Flask / SLO: how much budget is left, how fast does it burn?"""

from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, MatcherConfig

from grafana import board, links, variables
from grafana.board import Fold
from grafana.graphs import Axis, lines
from grafana.panels import Panel
from grafana.promql import ERROR, SERVICE
from grafana.queries import query
from grafana.tables import Column, Key, rows
from grafana.thresholds import (
    BAD,
    BUDGET_DAYS,
    BUDGET_STEPS,
    BURN_ALERTS,
    BURN_STEPS,
    LATENCY_HIGH,
    TAIL_HIGH,
    TIME_LEFT_STEPS,
)

PAIRS = [window for alert in BURN_ALERTS[:2] for window in (alert.long, alert.short)]
"""The windows of the critical alerts."""
COUNT = "flask_http_request_duration_seconds_count"
RECORDED = "instance_url_rule:flask_http_request_duration_seconds_bucket:promised_rate_5m"
WITHIN = {"latency": LATENCY_HIGH, "tail": TAIL_HIGH}
"""Seconds that an objective promises."""
NO_SLO = "No objective is recorded yet"
TOO_EARLY = "too early"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    slos = variables.label(
        "slo", "Objective", f"label_values(slo:flask_http_requests:objective{{{SERVICE}}}, slo)"
    )
    return board.board(
        "flask-slo",
        "SLO",
        "How much budget is left, how fast does it burn, and which endpoint spends it?",
        variables=[
            variables.jobs(),
            variables.services(),
            variables.every_instance(),
            slos,
        ],
        contents=[_objectives(), _burn(), _spenders(), Fold("Budget left, over time", [_budget()])],
        since="now-6h",
    )


def _of(metric: str, before: str = "") -> str:
    """Select a recorded series of the chosen objectives, for whole services and for single endpoints."""
    return f'max by (service, slo, url_rule) ({metric}{{{SERVICE},slo=~"$slo"}}{before})'


def _budget_left() -> str:
    """The rest of the budget, at least 0, from the third day on, which is a tenth of its 30 days."""
    budget = "slo:flask_http_requests:budget_left_30d"
    return f"clamp_min({_of(budget)} and {_of(budget, ' offset 3d')}, 0)"


def _burn_rate(window: str) -> str:
    """The burn rate over a window, as soon as there is data for half of it."""
    pace = _of(f"slo:flask_http_requests:burn_rate_{window}")
    if window in {alert.long for alert in BURN_ALERTS}:
        pace = f"({pace} and {_of(f'slo:flask_http_requests:covered_{window}')} >= 0.5)"
    return pace


def _time_left() -> str:
    """Seconds until the budget is gone at the pace of the last hour: 0 if it is gone, none if it lasts."""
    return f"{_budget_left()} * {BUDGET_DAYS * 86_400} / ({_burn_rate('1h')} > 1) or {_budget_left()} == 0"


def _objectives() -> Panel:
    requests, good = _of("slo:flask_http_requests:total_30d"), _of("slo:flask_http_requests:good_30d")
    rates = f'slo:flask_http_requests:total_rate_5m{{{SERVICE},slo=~"$slo"}}'
    coverage = f"max by (service, slo, url_rule) (count_over_time({rates}[{BUDGET_DAYS}d])) * 60"
    return rows(
        "Objectives, over 30 days",
        "Seen is how much of the 30 days has been measured; the budget is told from a tenth on, and a burn "
        "rate from half of its window on. A burn rate of 1 spends exactly the budget. Exhausted in: at the "
        "pace of the last hour, if that is above 1. Objectives are set in prometheus/slo.yml.",
        keys=[
            Key("service", "Service", links.service_of_row()),
            Key("slo", "Objective", width=100),
            Key("url_rule", "Endpoint", width=100),
        ],
        columns=[
            Column(
                "Budget left",
                _budget_left(),
                "percentunit",
                decimals=1,
                steps=BUDGET_STEPS,
                width=100,
                no_value=TOO_EARLY,
            ),
            *(
                Column(
                    f"Burn {window}",
                    _burn_rate(window),
                    "none",
                    decimals=1,
                    steps=BURN_STEPS,
                    no_value="-" if window == "5m" else TOO_EARLY,
                )
                for window in ("5m", "1h", "6h")
            ),
            Column(
                "Exhausted in",
                _time_left(),
                "s",
                decimals=1,
                steps=TIME_LEFT_STEPS,
                width=100,
            ),
            Column("Target", _of("slo:flask_http_requests:objective"), "percentunit"),
            Column("Attained", f"{good} / ({requests} > 0)", "percentunit", decimals=3),
            Column("Requests", f"round({requests})", "locale", decimals=0),
            Column("Bad", f"round({requests} - {good})", "locale", decimals=0),
            Column("Seen", f"{coverage} / {BUDGET_DAYS * 86_400}", "percentunit", decimals=2),
        ],
        sort="Burn 5m",
        height=8,
        no_data=NO_SLO,
    )


def _bad() -> str:
    """Bad requests of each endpoint in the time range, for each objective that its service has.

    Slow ones are all requests but the quick ones, from a sample a minute, as those of the objectives are.
    """

    def requests(by: str, bounds: str) -> str:
        return f"sum by ({by}) (60 * sum_over_time({RECORDED}{{{SERVICE},le=~'{bounds}'}}[$__range]))"

    errors = f"sum by (service, url_rule) (increase({COUNT}{{{SERVICE},{ERROR}}}[$__range]))"
    every = requests("service, url_rule", "[+]Inf")
    quick = requests("service, url_rule, le", "|".join(map(str, WITHIN.values())))
    slow = f"{every} - on (service, url_rule) group_right () {quick}"
    for slo, bound in WITHIN.items():
        slow = f'label_replace({slow}, "slo", "{slo}", "le", "{bound}")'
    objectives = f'slo:flask_http_requests:objective{{{SERVICE},slo=~"$slo",url_rule=""}}'
    return (
        f'((label_replace({errors}, "slo", "errors", "", "") or sum by (service, url_rule, slo) ({slow}))'
        f" and on (service, slo) {objectives})"
    )


def _spenders() -> Panel:
    bad = _bad()
    return rows(
        "Who spent it in this time range",
        "Bad requests of each endpoint, and their share of all that the objective's budget lost in this "
        "time range: the shares of an objective add up to 100 %. Fix the top one first. "
        "Slow ones count within five minutes.",
        keys=[
            Key("service", "Service", links.service_of_row()),
            Key("slo", "Objective", width=110),
            Key("url_rule", "Endpoint", links.endpoint_of_row()),
        ],
        columns=[
            Column("Bad requests", f"round({bad}) > 0", "locale", decimals=0, width=120),
            Column(
                "Share",
                f"({bad} > 0) / on (service, slo) group_left () sum by (service, slo) ({bad} > 0)",
                "percentunit",
                decimals=1,
                bar=True,
                highest=1,
                width=200,
            ),
        ],
        sort="Bad requests",
        height=6,
        no_data="No endpoint spent any budget",
    )


def _budget() -> Panel:
    panel = lines(
        "Budget left, the last 30 days",
        "Of the bad requests that the objective allows in 30 days: what was left at each moment. At 0 the "
        "promise is broken. It begins when a tenth of the 30 days has been seen.",
        [query(_budget_left(), "{{service}} {{slo}} {{url_rule}}")],
        unit="percentunit",
        marks=[(0, BAD)],
        calc="min",
        axis=Axis(highest=1),
        width=24,
        height=7,
        no_data="Told from the third day on",
    )
    return panel.time_from("30d")


def _burn() -> Panel:
    fast, steady = BURN_ALERTS[:2]
    return (
        lines(
            "Burn rate of $slo",
            f"The budget is spent when it stays at 1 for {BUDGET_DAYS} days. Critical alerts fire where "
            f"{fast.long} and {fast.short} are both above {fast.rate}, or {steady.long} and {steady.short} "
            f"above {steady.rate}; the long windows have bold lines. On a logarithmic scale.",
            [
                query(f"{_burn_rate(window)} > 0", f"{{{{service}}}} {{{{url_rule}}}} {window}")
                for window in PAIRS
            ],
            unit="none",
            marks=BURN_STEPS[1:],
            axis=Axis(lowest=None, logarithmic=True),
            decimals=2,
            width=24,
            height=7,
            no_data="No budget is being spent",
        )
        .with_override(
            MatcherConfig(id_val="byRegexp", options=f"/ ({fast.long}|{steady.long})$/"),
            [DynamicConfigValue("custom.lineWidth", 2)],
        )
        .repeat("slo")
        .repeat_direction("h")
        .max_per_row(3)
    )
