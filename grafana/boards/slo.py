"""Flask / SLO: how much budget is left, and how fast does it burn?"""

from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.fields import with_links
from grafana.graphs import Axis, lines
from grafana.panels import Panel, number
from grafana.promql import ERROR, SERVICE, URL_RULE, increase, of, rate, total
from grafana.queries import query
from grafana.tables import Column, Key, rows
from grafana.thresholds import (
    BUDGET_DAYS,
    BUDGET_GONE_STEPS,
    BUDGET_STEPS,
    BURN_ALERTS,
    BURN_STEPS,
    LATENCY_HIGH,
)

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", f"{BUDGET_DAYS}d")
COUNT = "flask_http_request_duration_seconds_count"
BUCKETS = "instance_url_rule:flask_http_request_duration_seconds_bucket:rate_5m"
EVERY = 'le="+Inf"'
WITHIN = f'le="{LATENCY_HIGH}"'
NO_SLO = "No objective is recorded yet"


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
            variables.instances(),
            variables.url_rules(),
            slos,
        ],
        contents=[
            *_summary(),
            _promises(),
            Row("How fast"),
            *_over_time(),
            Row("Which endpoint"),
            _spenders(),
            *_spending(),
        ],
        since="now-6h",
    )


def _of(metric: str) -> str:
    """Select a recorded series of the chosen objectives, with a label that names the promise.

    A service makes a promise for all of its requests, or for those of one endpoint.
    """
    series = f'{metric}{{{SERVICE},slo=~"$slo"}}'
    return f'max by (promise) (label_join({series}, "promise", " ", "service", "slo", "url_rule"))'


def _lasts() -> str:
    """Seconds until the budget is gone at the pace of the last hour; nothing if it lasts."""
    left, pace = _of("slo:flask_http_requests:budget_left_30d"), _of("slo:flask_http_requests:burn_rate_1h")
    return f"clamp_min({left}, 0) * {BUDGET_DAYS * 86_400} / ({pace} > 1)"


def _summary() -> list[Panel]:
    return [
        number(
            "Budget left",
            "Of the bad requests that the objective allows in 30 days: what is left. Below 0 the "
            "promise is broken.",
            query(_of("slo:flask_http_requests:budget_left_30d"), "{{promise}}"),
            unit="percentunit",
            steps=BUDGET_STEPS,
            decimals=1,
            width=12,
            height=5,
            show_names=True,
            no_data=NO_SLO,
        ),
        number(
            "Burn rate of the last hour",
            f"1 spends exactly the budget in {BUDGET_DAYS} days; {BURN_ALERTS[0].rate} spends 2 % of it "
            "in an hour and raises a critical alert.",
            query(_of("slo:flask_http_requests:burn_rate_1h"), "{{promise}}"),
            unit="none",
            steps=BURN_STEPS,
            decimals=1,
            width=12,
            height=5,
            show_names=True,
            no_data=NO_SLO,
        ),
    ]


def _promises() -> Panel:
    burn = [
        Column(
            f"Burn {window}",
            _of(f"slo:flask_http_requests:burn_rate_{window}"),
            "none",
            decimals=1,
            steps=BURN_STEPS,
            cell="colour",
        )
        for window in ("5m", "1h", "6h", "1d", "3d")
    ]
    requests, good = _of("slo:flask_http_requests:total_30d"), _of("slo:flask_http_requests:good_30d")
    return rows(
        "Promises",
        "What is promised, what was kept of it over 30 days, and how long the budget lasts at the pace "
        "of the last hour. Objectives are set in prometheus/slo.yml.",
        keys=[Key("promise", "Promise")],
        columns=[
            Column("Objective", _of("slo:flask_http_requests:objective"), "percentunit", decimals=2),
            Column("Kept", f"{good} / ({requests} > 0)", "percentunit", decimals=3),
            Column("Requests", requests, "short", decimals=1),
            Column("Bad", f"{requests} - {good}", "short", decimals=1),
            Column(
                "Left",
                _of("slo:flask_http_requests:budget_left_30d"),
                "percentunit",
                decimals=1,
                steps=BUDGET_STEPS,
                cell="colour",
            ),
            *burn,
            Column(
                "Gone in",
                _lasts(),
                "s",
                decimals=1,
                steps=BUDGET_GONE_STEPS,
                cell="colour",
                no_value="not at this pace",
                width=140,
            ),
        ],
        sort="Burn 1h",
        height=6,
        no_data=NO_SLO,
    )


def _over_time() -> list[Panel]:
    windows = [
        query(_of(f"slo:flask_http_requests:burn_rate_{window}"), f"{{{{promise}}}} {window}")
        for window in WINDOWS
    ]
    fast, steady, slow, lasting = BURN_ALERTS
    burn = lines(
        "Burn rate: $slo",
        f"The budget is spent when it stays at 1 for {BUDGET_DAYS} days. Critical alerts fire where "
        f"{fast.long} and {fast.short} are both above {fast.rate}, or {steady.long} and {steady.short} above "
        f"{steady.rate}; warnings where {slow.long} and {slow.short} are above {slow.rate}, or "
        f"{lasting.long} and {lasting.short} above {lasting.rate}.",
        windows,
        unit="none",
        marks=BURN_STEPS[1:],
        calcs=["lastNotNull", "max"],
        decimals=2,
        width=24,
        height=11,
        no_data=NO_SLO,
    )
    left = lines(
        "Budget left",
        "Over the last 30 days of each moment. Choose 30 days above to see it whole.",
        [query(_of("slo:flask_http_requests:budget_left_30d"), "{{promise}}")],
        unit="percentunit",
        marks=[(0, "red")],
        calcs=["lastNotNull", "min"],
        axis=Axis(lowest=None, highest=1),
        width=24,
        height=8,
        no_data=NO_SLO,
    )
    return [left, burn.repeat("slo").repeat_direction("h").max_per_row(2)]


def _spenders() -> Panel:
    by = "job, service, url_rule"
    failures = increase(COUNT, URL_RULE, ERROR, by=by)
    every = total(f"sum_over_time({of(BUCKETS, URL_RULE, EVERY)}[$__range])", by)
    within = total(f"sum_over_time({of(BUCKETS, URL_RULE, WITHIN)}[$__range])", by)
    slow = f"(({every} - {within}) * 60)"  # the recorded rates have one sample a minute
    return rows(
        "Spent in this time range, by endpoint",
        f"Requests that failed (500 and more), and those that took longer than {LATENCY_HIGH} s, and how "
        "much of the service's budget of 30 days each is. Fix the top one first.",
        keys=[Key("url_rule", "Endpoint", links.endpoint_of_row()), Key("service", "Service")],
        columns=[
            Column("Failed", f"{failures} > 0", "locale", decimals=0, width=120),
            Column(
                "Error budget",
                f"({failures} > 0) {_share('errors')}",
                "percentunit",
                decimals=2,
                cell="bar",
                width=200,
            ),
            Column("Slow", f"{slow} > 0", "locale", decimals=0, width=120),
            Column(
                "Latency budget",
                f"({slow} > 0) {_share('latency')}",
                "percentunit",
                decimals=2,
                cell="bar",
                width=200,
            ),
        ],
        hidden=["job"],
        sort="Error budget",
        height=9,
        no_data="No endpoint spent any budget",
    )


def _share(slo: str) -> str:
    promise = f'{{{SERVICE},slo="{slo}",url_rule=""}}'
    allowed = f"(1 - slo:flask_http_requests:objective{promise}) * slo:flask_http_requests:total_30d{promise}"
    return f"/ on (job, service) group_left () ({allowed})"


def _spending() -> list[Panel]:
    by = "url_rule"
    failures = rate(COUNT, URL_RULE, ERROR, by=by)
    slow = f"{total(of(BUCKETS, URL_RULE, EVERY), by)} - {total(of(BUCKETS, URL_RULE, WITHIN), by)}"
    return [
        with_links(_bad("Failed requests", "Answered with 500 or more.", failures), links.endpoint_of_line()),
        with_links(_bad("Slow requests", f"Longer than {LATENCY_HIGH} s.", slow), links.endpoint_of_line()),
    ]


def _bad(title: str, description: str, expression: str) -> graphs.Panel:
    return lines(
        title,
        f"{description} A second, by endpoint.",
        [query(f"{expression} > 0", "{{url_rule}}")],
        unit="reqps",
        stacked=True,
        no_data="None",
    )
