"""Flask / Workers and host: is it out of something?"""

from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.board import Fold
from grafana.fields import with_links
from grafana.graphs import LOGARITHMIC, Axis, event_bars, lines
from grafana.panels import Panel, number
from grafana.promql import WINDOW, count_per_bar, of, queue_quantile, rate, replaced_workers, total
from grafana.queries import now, query
from grafana.thresholds import (
    BAD,
    DIM,
    FINE,
    FULL,
    IDLE,
    MEMORY_LOW,
    NEARLY_FULL,
    NOTICE,
    PALE,
    QUEUE_SLOW,
    REQUEST_STUCK,
    SATURATION_STEPS,
    THREADS_SATURATED,
    TIME_LEFT_STEPS,
    WARNING,
    percent,
)

HOST = 'instance=~"$host"'
DISKS = f'{HOST},fstype!~"ramfs|squashfs|overlay|tmpfs|fuse.*"'
NO_WORKERS = "No worker"
NO_NODE = "No node exporter is scraped"
MODES = {
    "user": FINE,
    "system": IDLE,
    "iowait": BAD,
    "steal": WARNING,
    "nice": DIM,
    "irq": NOTICE,
    "softirq": PALE,
}


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    hosts = variables.label(
        "host", "Host", "label_values(node_memory_MemTotal_bytes, instance)", all_value=".+"
    )
    return board.board(
        "flask-workers",
        "Workers and host",
        "Is it out of something? Threads, memory, processor and disk, of the workers and of the host "
        "below them.",
        variables=[variables.jobs(), variables.services(), variables.instances(), hosts],
        contents=[
            *_summary(),
            *_workers(),
            Fold("Dead and replaced workers, and the requests that they lost", _deaths()),
            Fold("Garbage collection and queue", _more()),
            Fold("Host: $host", _host(), repeat="host"),
        ],
    )


def _saturation(title: str, description: str, share: str, name: str) -> Panel:
    return number(
        title,
        f"{description} Orange from {percent(NEARLY_FULL)}, red from {percent(FULL)}.",
        now(f"topk(1, {share})", name),
        unit="percentunit",
        steps=SATURATION_STEPS,
        decimals=0,
        width=5,
        trend=False,
        show_names=True,
        no_data="Nothing scraped",
    )


def _full_in(title: str, available: str, name: str, *, window: str, hours: int, width: int) -> Panel:
    """The time until `available` is 0 at the pace of the last `window`; no value in the first half hour."""
    pace, enough = f"-deriv({available}[{window}]) > 0", f"{available} offset 30m and {available} offset 15m"
    horizon = hours * 3600
    return number(
        title,
        f"If it goes on as in the last {window}. Told from half an hour of data on.",
        now(
            f"bottomk(1, ({available} / ({pace}) < {horizon} or 0 * {available} + {horizon}) and {enough})",
            name,
        ),
        unit="s",
        steps=TIME_LEFT_STEPS,
        states={horizon: (f"Not within {hours} h", IDLE)},
        decimals=1,
        width=width,
        trend=False,
        show_names=True,
        no_data="Too early to tell",
    )


def _summary() -> list[Panel]:
    busy, threads = of("flask_worker_threads_busy"), of("flask_worker_threads")
    available, memory = f"node_memory_MemAvailable_bytes{{{HOST}}}", f"node_memory_MemTotal_bytes{{{HOST}}}"
    free, size = f"node_filesystem_avail_bytes{{{DISKS}}}", f"node_filesystem_size_bytes{{{DISKS}}}"
    host, disk = "{{instance}}", "{{instance}} {{mountpoint}}"
    return [
        _saturation(
            "Busy threads, 5m",
            "Share of its worker threads that answer a request, of the busiest instance; the highest of "
            "the last 5 minutes.",
            f"max by (service, instance) (max_over_time({busy}[5m]) / {threads})",
            "{{service}} {{instance}}",
        ),
        _saturation(
            "Memory of the fullest host",
            "What is not available to new processes.",
            f"1 - {available} / {memory}",
            host,
        ),
        _full_in("Memory full in", available, host, window="1h", hours=4, width=5),
        _saturation(
            "Fullest disk",
            "Of the chosen hosts.",
            f"max by (instance, mountpoint) (1 - {free} / {size})",
            disk,
        ),
        _full_in("Disk full in", free, disk, window="6h", hours=24, width=4),
    ]


def _workers() -> list[Panel]:
    by = "service, instance"
    legend = "{{service}} {{instance}}"
    busy, threads = (f"sum by ({by}) ({of(f'flask_worker_threads{suffix}')})" for suffix in ("_busy", ""))
    panels = [
        lines(
            "Busy threads by instance",
            "Share of the instance's worker threads that answer a request. FlaskThreadsSaturated fires at "
            f"{percent(THREADS_SATURATED)}; at 100 % requests wait.",
            [query(f"{busy} / {threads}", legend)],
            unit="percentunit",
            marks=[(THREADS_SATURATED, WARNING)],
            axis=Axis(highest=1),
            width=12,
            height=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Oldest request without an answer, by instance",
            "Seconds since it came, without streams and websockets; /monitoring/inflight of the service "
            f"says what it does. FlaskRequestStuck fires at {REQUEST_STUCK} s.",
            [query(f"max by ({by}) ({of('flask_http_request_oldest_seconds')})", legend)],
            unit="s",
            marks=[(REQUEST_STUCK, WARNING)],
            axis=LOGARITHMIC,
            width=12,
            height=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Memory of the workers by instance",
            "Resident memory; pages that they share count for each. A line that only rises is a leak.",
            [query(f"sum by ({by}) ({of('flask_worker_resident_memory_bytes')})", legend)],
            unit="bytes",
            width=12,
            height=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Processors used by instance, ${window:raw}",
            "1 is one processor fully used.",
            [query(rate("flask_worker_cpu_seconds_total", by=by), legend)],
            unit="none",
            width=12,
            height=8,
            no_data=NO_WORKERS,
        ),
    ]
    return [with_links(panel, links.instance_of_line()) for panel in panels]


def _deaths() -> list[Panel]:
    deaths = count_per_bar("flask_worker_deaths_total", by="service, cause")
    losses = count_per_bar("flask_http_requests_lost_total", by="service, url_rule, cause")
    replacements = replaced_workers("service, instance", "$__interval")
    starved = f"sum by (instance) (round(increase(node_vmstat_oom_kill{{{HOST}}}[$__interval])))"
    note = "Each bar is as many as there were within it."
    return [
        event_bars(
            "Deaths of workers by cause",
            "Workers that died and were not told to, and processes of any kind that a host killed for lack "
            f"of memory. {note}",
            [
                query(f"{deaths} > 0", "{{service}} {{cause}}", interval="1m"),
                query(f"{starved} > 0", "out of memory: {{instance}}", interval="1m"),
            ],
            shades=BAD,
            no_data="No worker died",
        ),
        with_links(
            event_bars(
                "Lost requests by endpoint and cause",
                "Requests that were never answered because their worker died; /monitoring/deaths names "
                f"them. {note}",
                [query(f"{losses} > 0", "{{service}} {{url_rule}} {{cause}}", interval="1m")],
                shades=BAD,
                no_data="No request was lost",
            ),
            links.endpoint_of_line(),
        ),
        with_links(
            event_bars(
                "Workers replaced by instance",
                f"Died or recycled (max_requests), without a restart of the service. {note}",
                [query(f"{replacements} > 0", "{{service}} {{instance}}", interval="1m")],
                shades=WARNING,
                no_data="No worker was replaced",
            ),
            links.instance_of_line(),
        ),
    ]


def _more() -> list[Panel]:
    by = "service, instance"
    garbage, all_cpu = (rate(f"flask_worker_{part}_seconds_total", by=by) for part in ("gc", "cpu"))
    return [
        with_links(
            lines(
                "Garbage collection by instance, ${window:raw}",
                "Share of the workers' processor time that goes into finding garbage.",
                [query(f"{garbage} / ({all_cpu} > 0)", "{{service}} {{instance}}")],
                unit="percentunit",
                axis=Axis(highest=0.1),
                no_data=NO_WORKERS,
            ),
            links.instance_of_line(),
        ),
        lines(
            "Time in the queue, p95, ${window:raw}",
            "From the proxy's X-Request-Start to the worker. Needs a declared proxy "
            f"(EXPORTER_TRUSTED_PROXIES). FlaskQueueSlow fires at {QUEUE_SLOW} s.",
            [query(queue_quantile(0.95, by="service"), "{{service}}")],
            unit="s",
            marks=[(QUEUE_SLOW, WARNING)],
            no_data="No proxy says when it took a request",
        ),
    ]


def _host() -> list[Panel]:
    cpu = f'node_cpu_seconds_total{{{HOST},mode!="idle"}}'
    idle = f'node_cpu_seconds_total{{{HOST},mode="idle"}}'
    free, size = f"node_filesystem_avail_bytes{{{DISKS}}}", f"node_filesystem_size_bytes{{{DISKS}}}"
    memory = f"1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}}"
    modes = total(f"rate({cpu}[{WINDOW}])", "instance, mode")
    cores = f"count by (instance) ({idle})"

    return [
        lines(
            "Processor time by mode, ${window:raw}",
            "Share of all processors, by what they do. iowait is waiting for a disk, steal for the "
            "hypervisor.",
            [query(f"{modes} / on (instance) group_left () {cores}", "{{mode}}")],
            unit="percentunit",
            stacked=True,
            colors=MODES,
            axis=Axis(highest=1),
            width=12,
            height=8,
            no_data=NO_NODE,
        ),
        lines(
            "Memory used",
            f"What is not available to new processes. HostMemoryLow fires above {percent(MEMORY_LOW)}.",
            [query(memory, "{{instance}}")],
            unit="percentunit",
            marks=[(MEMORY_LOW, WARNING)],
            axis=Axis(highest=1),
            width=12,
            height=8,
            no_data=NO_NODE,
        ),
        lines(
            "Disk space used",
            f"By mount point. Dashed: {percent(FULL)}.",
            [query(f"max by (instance, mountpoint) (1 - {free} / {size})", "{{instance}} {{mountpoint}}")],
            unit="percentunit",
            marks=[(FULL, WARNING)],
            axis=Axis(highest=1),
            width=12,
            height=8,
            no_data=NO_NODE,
        ),
        lines(
            "Load and pressure, ${window:raw}",
            "Load: processes that run or wait, as a share of the processors; above 100 %, some wait. Waits: "
            "the share of the time in which some process did, where the kernel measures it (PSI) and node "
            "exporter has the collector `pressure`.",
            [
                query(f"sum by (instance) (node_load1{{{HOST}}}) / {cores}", "load {{instance}}"),
                *(
                    query(
                        f"rate(node_pressure_{kind}_waiting_seconds_total{{{HOST}}}[{WINDOW}])",
                        f"waits for {resource} {{{{instance}}}}",
                    )
                    for kind, resource in {"cpu": "processors", "memory": "memory", "io": "disks"}.items()
                ),
            ],
            unit="percentunit",
            axis=LOGARITHMIC,
            marks=[(1, WARNING)],
            width=12,
            height=8,
            no_data=NO_NODE,
        ),
    ]
