"""Monitoring / Pipeline: can I trust what I see?"""

from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.board import Fold
from grafana.graphs import LOGARITHMIC, Axis, event_bars, lines
from grafana.panels import Panel, number, timeline
from grafana.promql import WINDOW
from grafana.queries import now, query
from grafana.tables import Column, Key, rows
from grafana.thresholds import (
    ANY_IS_BAD,
    BAD,
    CERTIFICATE_DAYS,
    CERTIFICATE_STEPS,
    FINE,
    PROBE_SLOW,
    REMOTE_WRITE_BEHIND,
    SAMPLE_LIMIT,
    SCRAPE_SLOW,
    SCRAPE_TIMEOUT,
    WARNING,
)

UP = {0: ("down", BAD), 1: ("up", FINE)}
ALIVE = {0: ("Silent", BAD), 1: ("To nobody", WARNING), 2: ("Alive", FINE)}
NOTHING = "Nothing of this kind is scraped"
SERVERS, EXPORTER = '{__name__=~"prometheus_build_info|vm_app_version"}', "flask_exporter_info"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    hidden_variables = [
        variables.label(name, name.title(), f"label_values(up, {name})", all_value=all_value).hide(
            variables.HIDDEN
        )
        for name, all_value in {"job": "", "service": ".*"}.items()
    ]
    return board.board(
        "monitoring-pipeline",
        "Pipeline",
        "Can I trust what I see? From the exporter over scrapes, rules and storage to the notification, of "
        "everything that is scraped.",
        variables=[*hidden_variables, variables.every_instance()],
        contents=[
            *_summary(),
            *_scrapes(),
            Fold("Rules, notifications and log lines", [*_alerting(), _logs()]),
            Fold("Probes from outside, and what the exporter could not record", [*_probes(), *_exporter()]),
        ],
        tags=["flask", "monitoring"],
    )


def _increase(metric: str) -> str:
    return f"sum(increase({metric}[$__range]))"


def _sum(*counts: str) -> str:
    """All of them together, where there is a server that could have counted; each may be absent."""
    return " + ".join(f"({count} or 0 * count({SERVERS}))" for count in counts)


def _summary() -> list[Panel]:
    failures = _increase("flask_exporter_failures_total")
    folds = _increase("flask_exporter_series_dropped_total")
    corrupt = 'flask_exporter_worker_files{state="corrupt"}'
    storage = _sum(
        _increase("prometheus_tsdb_compactions_failed_total"),
        _increase("prometheus_tsdb_wal_corruptions_total"),
        _increase("prometheus_tsdb_wal_writes_failed_total"),
        _increase("prometheus_remote_storage_samples_failed_total"),
    )
    rules = _sum(
        _increase("prometheus_rule_evaluation_failures_total"),
        _increase("prometheus_rule_group_iterations_missed_total"),
        _increase("vmalert_execution_errors_total"),
        "count(prometheus_config_last_reload_successful == 0)",
        "count(alertmanager_config_last_reload_successful == 0)",
    )
    losses = _sum(
        _increase("alertmanager_notifications_failed_total"),
        _increase("prometheus_notifications_dropped_total"),
    )
    return [
        number(
            "Alerting",
            "Alive while MonitoringDeadMansSwitch fires, as it always should, and an Alertmanager has a "
            "receiver to send alerts to.",
            now(
                'group(ALERTS{alertname="MonitoringDeadMansSwitch",alertstate="firing"})'
                " * clamp_max(max(prometheus_notifications_alertmanagers_discovered), 1)"
                " * (1 + group(alertmanager_notifications_total) or on () vector(1)) or vector(0)"
            ),
            unit="none",
            states=ALIVE,
            trend=False,
            width=6,
            height=3,
        ),
        _number("Targets down", "Targets that Prometheus could not scrape, now.", "count(up == 0)", "up"),
        _number(
            "Exporter failures in this time range",
            "What the exporter could not record.",
            failures,
            EXPORTER,
        ),
        _number(
            "Series capped in this time range",
            "Observations that the series cap folded into `_other`.",
            folds,
            EXPORTER,
        ),
        _number("Corrupt files", "Worker files that were set aside, now.", f"sum({corrupt})", EXPORTER),
        _number(
            "Rule failures in this time range",
            "Rules that could not be evaluated, groups that were skipped, and configurations that are not in "
            "force.",
            rules,
            SERVERS,
        ),
        _number(
            "Lost alerts in this time range",
            "Notifications that failed or were dropped on their way.",
            losses,
            SERVERS,
        ),
        _number(
            "Storage failures in this time range",
            "Failed compactions and writes of Prometheus, corruptions, and samples that a receiver refused.",
            storage,
            SERVERS,
        ),
    ]


def _number(title: str, description: str, expression: str, witness: str) -> Panel:
    """A number that is 0 only where there is a `witness`: else nothing is known."""
    return number(
        title,
        f"{description} 0 is good.",
        now(f"{expression} or 0 * count({witness})"),
        unit="locale",
        steps=ANY_IS_BAD,
        decimals=0,
        trend=False,
        width=6,
        height=3,
        no_data=NOTHING,
    )


def _scrapes() -> list[Panel]:
    down = "min_over_time(up[$__interval]) and min_over_time(up[$__range] @ end()) < 1"
    late = (
        "time() - min without (remote_name) (prometheus_remote_storage_queue_highest_sent_timestamp_seconds)"
    )
    samples = "scrape_samples_post_metric_relabeling and on (job, instance) flask_exporter_info"
    return [
        timeline(
            "Targets that were down in this time range",
            "Whether Prometheus could scrape them. A gap is a target that was not known. Those that were "
            "always up are left out. Where samples are sent elsewhere, also when they came "
            f"{REMOTE_WRITE_BEHIND // 60} minutes late, or not at all.",
            [
                query(down, "{{job}} {{service}} {{instance}}"),
                query(f"0 * ({late} > {REMOTE_WRITE_BEHIND})", "{{instance}} to {{url}}"),
            ],
            states=UP,
            width=10,
            height=9,
            no_data="All targets were up",
        ),
        lines(
            "Slowest scrape by job",
            f"At {SCRAPE_TIMEOUT} s a scrape is given up; MonitoringScrapeSlow fires at {SCRAPE_SLOW} s.",
            [query("max by (job) (scrape_duration_seconds)", "{{job}}")],
            unit="s",
            marks=[(SCRAPE_SLOW, WARNING)],
            axis=LOGARITHMIC,
            width=7,
            no_data=NOTHING,
        ),
        lines(
            "Samples of a scrape, share of the limit",
            f"What an instance of a service exposes, of the {SAMPLE_LIMIT:,} above which the whole scrape "
            "is refused.",
            [query(f"max by (service, instance) ({samples}) / {SAMPLE_LIMIT}", "{{service}} {{instance}}")],
            unit="percentunit",
            axis=Axis(highest=1),
            width=7,
            no_data=NOTHING,
        ),
    ]


def _exporter() -> list[Panel]:
    failures, folds = (
        f"round(sum by (service{more}) (increase(flask_exporter_{name}_total[$__interval]))) > 0"
        for name, more in (("failures", ", stage"), ("series_dropped", ""))
    )
    return [
        event_bars(
            "Exporter failures by stage",
            "And observations that the series cap folded into `_other`. Each bar is as many as there were "
            "within it.",
            [
                query(failures, "{{service}} {{stage}}", interval="1m"),
                query(folds, "{{service}} folded", interval="1m"),
            ],
            shades=BAD,
            width=12,
            height=8,
            no_data="The exporter recorded everything",
        ),
    ]


def _alerting() -> list[Panel]:
    group = 'label_replace({}, "group", "$1", "rule_group", ".*;(.*)")'
    handovers = f"sum(rate(prometheus_notifications_sent_total[{WINDOW}]))"
    failures = f"sum(rate(prometheus_notifications_errors_total[{WINDOW}]))"
    deliveries = f"sum by (integration) (rate(alertmanager_notifications_total[{WINDOW}]))"
    nobody = 'label_replace(vector(0), "integration", "to nobody", "", "")'
    losses = f"sum by (integration) (rate(alertmanager_notifications_failed_total[{WINDOW}]))"
    return [
        lines(
            "Rule evaluation",
            "How long each group took last. Above its interval, evaluations are skipped.",
            [
                query(
                    f"max by (group) ({group.format('prometheus_rule_group_last_duration_seconds')})",
                    "{{group}}",
                )
            ],
            unit="s",
            width=8,
            no_data=NOTHING,
        ),
        lines(
            "Notifications, ${window:raw}",
            "Alerts a second that Prometheus handed over, notifications by the way they take to people, "
            "and what failed on either way.",
            [
                query(handovers, "to Alertmanager"),
                query(f"{failures} > 0", "failed to Alertmanager"),
                query(f"{deliveries} > 0 or on () {nobody}", "sent {{integration}}"),
                query(f"{losses} > 0", "failed {{integration}}"),
            ],
            unit="cps",
            axis=Axis(highest=1),
            colors={"failed to Alertmanager": BAD},
            decimals=2,
            width=8,
            no_data=NOTHING,
        ),
    ]


def _probes() -> list[Panel]:
    no_probe = "No URL is probed"
    left = "last_over_time(probe_ssl_earliest_cert_expiry[1d]) - time()"
    return [
        timeline(
            "Probes",
            "Whether a URL answered as it should, asked as a user would.",
            [query("probe_success", "{{service}} {{instance}}")],
            states=UP,
            width=12,
            height=8,
            no_data=no_probe,
        ),
        lines(
            "Probe duration",
            f"Name lookup, connection and answer together. ProbeSlow fires at {PROBE_SLOW} s.",
            [query("max by (service, instance) (probe_duration_seconds)", "{{service}} {{instance}}")],
            unit="s",
            marks=[(PROBE_SLOW, WARNING)],
            width=12,
            height=8,
            no_data=no_probe,
        ),
        rows(
            "Certificates",
            "When those of the probed URLs run out, the first one first. ProbeCertificateExpiring fires "
            f"{CERTIFICATE_DAYS} days before.",
            keys=[Key("service", "Service", links.service_of_row(), width=150), Key("instance", "URL")],
            columns=[
                Column(
                    "Expires in",
                    f"min by (service, instance) ({left})",
                    "s",
                    decimals=1,
                    steps=CERTIFICATE_STEPS,
                    width=150,
                )
            ],
            sort="Expires in",
            ascending=["Expires in"],
            width=12,
            height=8,
            no_data="No URL with a certificate is probed",
        ),
    ]


def _logs() -> Panel:
    sent, dropped = (
        f"sum(increase(loki_write_{kind}_entries_total[$__interval]))" for kind in ("sent", "dropped")
    )
    return event_bars(
        "Log lines to Loki",
        "What Alloy sent, and what it gave up. Each bar is as many as there were within it.",
        [query(sent, "sent", interval="1m"), query(f"round({dropped}) > 0", "lost", interval="1m")],
        colors={"sent": FINE, "lost": BAD},
        no_data=NOTHING,
    )
