"""Monitoring / Pipeline: can I trust what I see?"""

from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.models import dashboard as model

from grafana import board, variables
from grafana.graphs import LOGARITHMIC, event_bars, lines
from grafana.panels import Panel, number, timeline
from grafana.promql import WINDOW, increase, of, rate
from grafana.queries import now, query
from grafana.thresholds import ANY_IS_BAD, PROBE_SLOW, SAMPLE_LIMIT, SCRAPE_SLOW, SCRAPE_TIMEOUT

UP = {0: ("down", "red"), 1: ("up", "green")}
ALIVE = {0: ("Silent", "dark-red"), 1: ("Alive", "dark-green")}
NOTHING = "Nothing of this kind is scraped"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    jobs = variables.label("job", "Job", "label_values(up, job)", all_value="")
    services = variables.label("service", "Service", 'label_values(up{job=~"$job"}, service)')
    instances = variables.label(
        "instance", "Instance", 'label_values(up{job=~"$job",service=~"$service"}, instance)'
    )
    return board.board(
        "monitoring-pipeline",
        "Pipeline",
        "Can I trust what I see? From the exporter over scrapes, rules and storage to the notification.",
        variables=[jobs, services, instances],
        contents=[
            *_summary(),
            Row("Scrapes"),
            *_scrapes(),
            Row("Exporter"),
            *_exporter(),
            Row("Rules and notifications"),
            *_alerting(),
            Row("Probes from outside"),
            *_probes(),
            Row("Storage"),
            *_storage(),
        ],
        tags=["monitoring"],
    )


def _increase(metric: str) -> str:
    return f"sum(increase({metric}[$__range]))"


def _summary() -> list[Panel]:
    failures = increase("flask_exporter_failures_total")
    folds = increase("flask_exporter_series_dropped_total")
    corrupt = of("flask_exporter_worker_files", 'state="corrupt"')
    storage = (
        "sum(increase(prometheus_tsdb_compactions_failed_total[$__range])"
        " + increase(prometheus_tsdb_wal_corruptions_total[$__range])"
        " + increase(prometheus_tsdb_wal_writes_failed_total[$__range]))"
    )
    losses = (
        f"({_increase('alertmanager_notifications_failed_total')} or vector(0))"
        f" + ({_increase('prometheus_notifications_dropped_total')} or vector(0))"
    )
    return [
        number(
            "Alerting",
            "Alive while MonitoringDeadMansSwitch fires, as it always should, and an Alertmanager takes "
            "alerts.",
            now(
                'sum(ALERTS{alertname="MonitoringDeadMansSwitch",alertstate="firing"})'
                " * clamp_max(max(prometheus_notifications_alertmanagers_discovered), 1) or vector(0)"
            ),
            unit="none",
            states=ALIVE,
            trend=False,
        ),
        _number("Down", "Targets that Prometheus could not scrape, now.", f"count({of('up')} == 0)", "now"),
        _number("Exporter", "What the exporter could not record.", failures),
        _number("Folded", "Observations that the series cap folded into `_other`.", folds),
        _number("Corrupt files", "Worker files that were set aside, now.", f"sum({corrupt})", "now"),
        _number(
            "Rule failures",
            "Rules that could not be evaluated, and groups that were skipped.",
            f"{_increase('prometheus_rule_evaluation_failures_total')}"
            f" + {_increase('prometheus_rule_group_iterations_missed_total')}",
        ),
        _number("Undelivered", "Notifications that failed or were dropped on their way.", losses),
        _number("Storage", "Failed compactions and writes of Prometheus, and corruptions.", storage),
    ]


def _number(title: str, description: str, expression: str, when: str = "in this time range") -> Panel:
    return number(
        title,
        f"{description} Counted {when}; 0 is good." if when != "now" else f"{description} 0 is good.",
        now(f"{expression} or vector(0)"),
        unit="locale",
        steps=ANY_IS_BAD,
        decimals=0,
        trend=False,
    )


def _scrapes() -> list[Panel]:
    return [
        timeline(
            "Targets",
            "Whether Prometheus could scrape them. A gap is a target that was not known.",
            [query(of("up"), "{{job}} {{instance}}")],
            states=UP,
            width=10,
            height=9,
            no_data=NOTHING,
        ),
        lines(
            "Scrape duration",
            f"At {SCRAPE_TIMEOUT} s a scrape is given up; MonitoringScrapeSlow fires at {SCRAPE_SLOW} s.",
            [query(f"max by (job, instance) ({of('scrape_duration_seconds')})", "{{job}} {{instance}}")],
            unit="s",
            axis=LOGARITHMIC,
            width=7,
            no_data=NOTHING,
        ),
        lines(
            "Samples of a scrape",
            f"What a target exposes. {SAMPLE_LIMIT:,} is the limit of a Flask service: above it the whole "
            "scrape is refused.",
            [query(f"max by (job, instance) ({of('scrape_samples_scraped')})", "{{job}} {{instance}}")],
            unit="short",
            calcs=["lastNotNull", "max"],
            axis=LOGARITHMIC,
            width=7,
            no_data=NOTHING,
        ),
    ]


def _exporter() -> list[Panel]:
    failures = increase("flask_exporter_failures_total", by="stage", window="$__interval")
    seconds, scrapes = (
        rate("flask_exporter_scrape_seconds_sum", by="instance"),
        rate("flask_exporter_scrape_seconds_count", by="instance"),
    )
    return [
        lines(
            "Worker files",
            "One set for each living worker, an archive of the dead, and corrupt ones that were set aside.",
            [query(f"sum by (state) ({of('flask_exporter_worker_files')})", "{{state}}")],
            unit="none",
            colors={"corrupt": "red"},
            calcs=["lastNotNull", "max"],
            decimals=0,
            width=8,
            no_data=NOTHING,
        ),
        lines(
            "Time to answer a scrape",
            "Mean of merging the workers' files and writing the text, inside the service.",
            [query(f"{seconds} / ({scrapes} > 0)", "{{instance}}")],
            unit="s",
            width=8,
            no_data=NOTHING,
        ),
        event_bars(
            "Exporter failures",
            "By stage, and observations that the series cap folded. Each bar is as many as there were "
            "within it.",
            [
                query(failures, "{{stage}}", interval="1m"),
                query(
                    increase("flask_exporter_series_dropped_total", window="$__interval"),
                    "folded",
                    interval="1m",
                ),
            ],
            no_data=NOTHING,
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
            "From Prometheus to Alertmanager",
            "Alerts handed over a second, and those that could not be.",
            [query(handovers, "sent"), query(f"{failures} or vector(0)", "failed")],
            unit="cps",
            colors={"sent": "green", "failed": "red"},
            decimals=2,
            width=8,
            no_data=NOTHING,
        ),
        lines(
            "From Alertmanager to people",
            "Notifications a second by the way they take, and those that did not arrive.",
            [
                query(f"{deliveries} > 0 or on () {nobody}", "sent {{integration}}"),
                query(f"{losses} > 0", "failed {{integration}}"),
            ],
            unit="cps",
            width=8,
            no_data=NOTHING,
        ),
    ]


def _probes() -> list[Panel]:
    no_probe = "No URL is probed"
    return [
        timeline(
            "Probes",
            "Whether a URL answered as it should, asked as a user would.",
            [query("probe_success", "{{instance}}")],
            states=UP,
            width=10,
            height=9,
            no_data=no_probe,
        ),
        lines(
            "Probe duration",
            f"Name lookup, connection and answer together. ProbeSlow fires at {PROBE_SLOW} s.",
            [query("max by (instance) (probe_duration_seconds)", "{{instance}}")],
            unit="s",
            marks=[(PROBE_SLOW, "orange")],
            width=7,
            no_data=no_probe,
        ),
        lines(
            "Phases of a probe",
            "Where the time goes, mean of all URLs.",
            [query("avg by (phase) (probe_http_duration_seconds)", "{{phase}}")],
            unit="s",
            stacked=True,
            width=7,
            no_data=no_probe,
        ),
    ]


def _storage() -> list[Panel]:
    return [
        lines(
            "Series in memory",
            "What Prometheus holds of the last hours. Memory grows with it.",
            [query("prometheus_tsdb_head_series", "{{instance}}")],
            unit="short",
            calcs=["lastNotNull", "max"],
            width=8,
            no_data=NOTHING,
        ),
        lines(
            "Disk used",
            "Blocks, the write-ahead log and what is in memory, by Prometheus.",
            [
                query("prometheus_tsdb_storage_blocks_bytes", "blocks {{instance}}"),
                query("prometheus_tsdb_wal_storage_size_bytes", "log {{instance}}"),
            ],
            unit="bytes",
            calcs=["lastNotNull", "max"],
            width=8,
            no_data=NOTHING,
        ),
        lines(
            "Samples stored",
            "A second. A drop is a target that is gone, or one that exposes less.",
            [query(f"rate(prometheus_tsdb_head_samples_appended_total[{WINDOW}])", "{{instance}} {{type}}")],
            unit="cps",
            width=8,
            no_data=NOTHING,
        ),
    ]
