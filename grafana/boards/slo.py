"""Flask / SLO: how much budget is left, and how fast does it burn?"""

from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.models import dashboard as model

from grafana import board
from grafana.fields import Steps, linked
from grafana.panels import Panel, lines, number, query
from grafana.promql import ERROR, SERVICE, URL_RULE, increase, of, rate, total
from grafana.tables import Column, Key, rows

# The windows of prometheus/slo.yml, and the pace at which each pair of them alerts.
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
BURN_STEPS: Steps = ((None, "green"), (1, "yellow"), (6, "orange"), (14.4, "red"))
BUDGET_STEPS: Steps = ((None, "red"), (0, "orange"), (0.25, "green"))
PERIOD = 30 * 86_400
COUNT = "flask_http_request_duration_seconds_count"
BUCKETS = "instance_url_rule:flask_http_request_duration_seconds_bucket:rate_5m"
EVERY = 'le="+Inf"'
WITHIN = 'le="0.5"'
NO_SLO = "No objective is recorded yet"


def dashboard() -> model.Dashboard:
    """The dashboard."""
    slos = board.label(
        "slo", "Objective", f"label_values(slo:flask_http_requests:objective{{{SERVICE}}}, slo)"
    )
    return board.board(
        "flask-slo",
        "SLO",
        "How much budget is left, how fast does it burn, and which endpoint spends it?",
        [board.jobs(), board.services(), board.instances(), board.url_rules(), slos],
        [
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
    """A recorded series of the chosen promises, with a label that names the promise.

    A promise is that of a service, or of one of its endpoints.
    """
    series = f'{metric}{{{SERVICE},slo=~"$slo"}}'
    return f'max by (promise) (label_join({series}, "promise", " ", "service", "slo", "url_rule"))'


def _lasts() -> str:
    """Seconds until the budget is gone at the pace of the last hour; nothing where it lasts for ever."""
    left, pace = _of("slo:flask_http_requests:budget_left_30d"), _of("slo:flask_http_requests:burn_rate_1h")
    return f"clamp_min({left}, 0) * {PERIOD} / ({pace} > 1)"


def _summary() -> list[Panel]:
    return [
        number(
            "Budget left",
            "Of the bad requests that the objective allows in 30 days: what is left. Below 0 the "
            "promise is broken.",
            "percentunit",
            query(_of("slo:flask_http_requests:budget_left_30d"), "{{promise}}"),
            steps=BUDGET_STEPS,
            decimals=1,
            width=12,
            height=5,
            named=True,
            no_data=NO_SLO,
        ),
        number(
            "Burn rate of the last hour",
            "1 spends exactly the budget in 30 days; 14.4 spends 2 % of it in an hour and raises a "
            "critical alert.",
            "none",
            query(_of("slo:flask_http_requests:burn_rate_1h"), "{{promise}}"),
            steps=BURN_STEPS,
            decimals=1,
            width=12,
            height=5,
            named=True,
            no_data=NO_SLO,
        ),
    ]


def _promises() -> Panel:
    burn = [
        Column(
            f"Burn {window}",
            _of(f"slo:flask_http_requests:burn_rate_{window}"),
            "none",
            1,
            BURN_STEPS,
            "colour",
        )
        for window in ("5m", "1h", "6h", "1d", "3d")
    ]
    total, good = _of("slo:flask_http_requests:total_30d"), _of("slo:flask_http_requests:good_30d")
    return rows(
        "Promises",
        "What is promised, what was kept of it over 30 days, and how long the budget lasts at the pace "
        "of the last hour. Objectives are set in prometheus/slo.yml.",
        [Key("promise", "Promise")],
        [
            Column("Objective", _of("slo:flask_http_requests:objective"), "percentunit", 2),
            Column("Kept", f"{good} / ({total} > 0)", "percentunit", 3),
            Column("Requests", total, "short", 1),
            Column("Bad", f"{total} - {good}", "short", 1),
            Column(
                "Left",
                _of("slo:flask_http_requests:budget_left_30d"),
                "percentunit",
                1,
                BUDGET_STEPS,
                "colour",
            ),
            *burn,
            Column(
                "Gone in",
                _lasts(),
                "s",
                1,
                ((None, "green"), (0, "red"), (86_400, "orange")),
                "colour",
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
    burning = lines(
        "Burn rate: $slo",
        "The budget is spent when it stays at 1 for 30 days. Critical alerts fire where 1h and 5m are "
        "both above 14.4, or 6h and 30m above 6; warnings where 1d and 2h are above 3, or 3d and 6h "
        "above 1.",
        "none",
        windows,
        objective=((None, "transparent"), (1, "yellow"), (6, "orange"), (14.4, "red")),
        calcs=["lastNotNull", "max"],
        decimals=2,
        width=24,
        height=11,
        no_data=NO_SLO,
    )
    left = lines(
        "Budget left",
        "Over the last 30 days of each moment. Choose 30 days above to see it whole.",
        "percentunit",
        [query(_of("slo:flask_http_requests:budget_left_30d"), "{{promise}}")],
        objective=((None, "transparent"), (0, "red")),
        calcs=["lastNotNull", "min"],
        lowest=None,
        highest=1,
        width=24,
        height=8,
        no_data=NO_SLO,
    )
    return [left, burning.repeat("slo").repeat_direction("h").max_per_row(2)]


def _spenders() -> Panel:
    by = "job, service, url_rule"
    failed = increase(COUNT, URL_RULE, ERROR, by=by)
    every = total(f"sum_over_time({of(BUCKETS, URL_RULE, EVERY)}[$__range])", by)
    within = total(f"sum_over_time({of(BUCKETS, URL_RULE, WITHIN)}[$__range])", by)
    slow = f"(({every} - {within}) * 60)"  # one sample a minute
    return rows(
        "Spent in this time range, by endpoint",
        "Requests that failed (500 and more), and those that took longer than 0.5 s, and how much of "
        "the service's budget of 30 days each is. Fix the top one first.",
        [Key("url_rule", "Endpoint", board.endpoint_of_row()), Key("service", "Service")],
        [
            Column("Failed", f"{failed} > 0", "locale", 0, width=120),
            Column(
                "Error budget", f"({failed} > 0) {_share('errors')}", "percentunit", 2, cell="bar", width=200
            ),
            Column("Slow", f"{slow} > 0", "locale", 0, width=120),
            Column(
                "Latency budget", f"({slow} > 0) {_share('latency')}", "percentunit", 2, cell="bar", width=200
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
    failed = rate(COUNT, URL_RULE, ERROR, by=by)
    slow = f"{total(of(BUCKETS, URL_RULE, EVERY), by)} - {total(of(BUCKETS, URL_RULE, WITHIN), by)}"
    return [
        linked(_bad("Failed requests", "Answered with 500 or more.", failed), board.endpoint_of_line()),
        linked(_bad("Slow requests", "Longer than 0.5 s.", slow), board.endpoint_of_line()),
    ]


def _bad(title: str, description: str, expression: str) -> graphs.Panel:
    return lines(
        title,
        f"{description} A second, by endpoint.",
        "reqps",
        [query(f"{expression} > 0", "{{url_rule}}")],
        stacked=True,
        no_data="None",
    )
