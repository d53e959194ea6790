"""Flask / Workers and host: is it out of something?"""

from grafana_foundation_sdk.builders import bargauge, common
from grafana_foundation_sdk.builders.dashboard import FieldColor, Row
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import FieldColorModeId

from grafana import board, variables
from grafana.fields import color_steps
from grafana.graphs import Axis, event_bars, lines
from grafana.panels import Panel, frame, number
from grafana.promql import WINDOW, increase, of, queue_quantile, rate, total
from grafana.queries import now, query
from grafana.thresholds import (
    FULL,
    GARBAGE_STEPS,
    MEMORY_LOW,
    NEARLY_FULL,
    QUEUE_SLOW,
    SATURATION_STEPS,
    THREADS_SATURATED,
    percent,
)

FORECAST = 4 * 3600
"""Seconds."""
TREND = "30m"
"""What is younger has no trend: its warming up would go on for hours."""
HOST = 'instance=~"$host"'
DISKS = f'{HOST},fstype!~"ramfs|squashfs|overlay|tmpfs|fuse.*"'
NO_WORKERS = "No worker"
NO_NODE = "No node exporter is scraped"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    hosts = variables.label("host", "Host", "label_values(node_memory_MemTotal_bytes, instance)")
    return board.board(
        "flask-workers",
        "Workers and host",
        "Is it out of something? Threads, memory, processor and disk, of the workers and of the host "
        "below them.",
        variables=[variables.jobs(), variables.services(), variables.instances(), hosts],
        contents=[
            _forecast(),
            *_summary(),
            Row("Workers"),
            *_workers(),
            Row("Host"),
            *_host(),
        ],
    )


def _ahead(series: str, window: str) -> str:
    """The values in FORECAST seconds, if they go on as in the window."""
    return f"predict_linear({series}[{window}], {FORECAST}) and {series} offset {TREND}"


def _forecast() -> Panel:
    threads = f"sum({of('flask_worker_threads')})"
    busy = of("flask_worker_threads_busy")
    left, memory = f"node_memory_MemAvailable_bytes{{{HOST}}}", f"node_memory_MemTotal_bytes{{{HOST}}}"
    free, size = f"node_filesystem_avail_bytes{{{DISKS}}}", f"node_filesystem_size_bytes{{{DISKS}}}"
    shares = {
        "threads": f"sum(avg_over_time({busy}[5m])) / {threads}",
        # A thread that is new counts as it is.
        "threads, 4 h": f"sum({_ahead(busy, '1h')} or {busy}) / {threads} and sum({busy} offset {TREND})",
        "memory": f"max(1 - {left} / {memory})",
        "memory, 4 h": f"max(1 - ({_ahead(left, '1h')}) / {memory})",
        "disk": f"max(1 - {free} / {size})",
        "disk, 4 h": f"max(1 - ({_ahead(free, '6h')}) / {size})",
    }
    queries = [now(f"clamp({share}, 0, 1)", name) for name, share in shares.items()]
    panel = frame(
        bargauge.Panel(),
        "Saturation, now and in 4 hours",
        description="Worker threads, memory of the fullest host, and its fullest disk. In 4 hours: if it "
        "goes on as in the last hour (disk: 6 hours), and nothing before there is half an hour of data. "
        f"Orange from {percent(NEARLY_FULL)}, red from {percent(FULL)}.",
        queries=queries,
        width=14,
        height=8,
    )
    return (
        panel.unit("percentunit")
        .decimals(0)
        .min(0)
        .max(1)
        .no_value(NO_WORKERS)
        .thresholds(color_steps(SATURATION_STEPS))
        .color_scheme(FieldColor().mode(FieldColorModeId("thresholds")))
        .orientation(look.VizOrientation("horizontal"))
        .display_mode(look.BarGaugeDisplayMode("basic"))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )


def _summary() -> list[Panel]:
    return [
        number(
            "Worker starts",
            "Workers started in this time range: at a deploy, after max_requests, or because one died.",
            now(f"{increase('flask_worker_starts_total')} or vector(0)"),
            unit="locale",
            decimals=0,
            width=5,
            trend=False,
            no_data=NO_WORKERS,
        ),
        number(
            "Memory",
            "Resident memory of all workers. Pages that they share count for each.",
            query(f"sum({of('flask_worker_resident_memory_bytes')})"),
            unit="bytes",
            decimals=0,
            width=5,
            no_data=NO_WORKERS,
        ),
        number(
            "Processors",
            "Processor time of all workers: 1 is one processor fully used.",
            query(rate("flask_worker_cpu_seconds_total")),
            unit="none",
            decimals=2,
            width=5,
            no_data=NO_WORKERS,
        ),
        number(
            "Garbage collection",
            "Share of the workers' processor time that goes into finding garbage.",
            query(
                f"{rate('flask_worker_gc_seconds_total')} / ({rate('flask_worker_cpu_seconds_total')} > 0)"
            ),
            unit="percentunit",
            steps=GARBAGE_STEPS,
            decimals=2,
            width=5,
            no_data=NO_WORKERS,
        ),
    ]


def _workers() -> list[Panel]:
    starts = increase("flask_worker_starts_total", by="instance", window="$__interval")
    return [
        lines(
            "Threads",
            "Busy ones against all there are, by instance. FlaskThreadsSaturated fires at "
            f"{percent(THREADS_SATURATED)}.",
            [
                query(f"sum by (instance) ({of('flask_worker_threads_busy')})", "busy {{instance}}"),
                query(f"sum by (instance) ({of('flask_worker_threads')})", "all {{instance}}"),
            ],
            unit="none",
            decimals=0,
            width=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Time in the queue",
            "From the proxy's X-Request-Start to the worker. Needs a declared proxy "
            f"(EXPORTER_TRUSTED_PROXIES). FlaskQueueSlow fires at {QUEUE_SLOW} s.",
            [query(queue_quantile(q), f"p{q * 100:g}") for q in (0.99, 0.95, 0.5)],
            unit="s",
            colors={"p99": "red", "p95": "orange", "p50": "green"},
            marks=[(QUEUE_SLOW, "orange")],
            width=8,
            no_data="No proxy says when it took a request",
        ),
        event_bars(
            "Worker starts",
            "Each bar is as many as there were within it. Steady bars are workers that die.",
            [query(starts, "{{instance}}", interval="1m")],
            no_data=NO_WORKERS,
        ),
        lines(
            "Memory of the workers",
            "A line that only rises is a leak.",
            [query(f"sum by (instance) ({of('flask_worker_resident_memory_bytes')})", "{{instance}}")],
            unit="bytes",
            calcs=["lastNotNull", "max"],
            width=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Processors used by the workers",
            "1 is one processor fully used.",
            [query(rate("flask_worker_cpu_seconds_total", by="instance"), "{{instance}}")],
            unit="none",
            decimals=2,
            width=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Requests in progress",
            "Over all living workers; the exporter's own paths do not count.",
            [query(f"sum by (instance) ({of('flask_http_requests_in_progress')})", "{{instance}}")],
            unit="none",
            decimals=0,
            width=8,
            no_data=NO_WORKERS,
        ),
    ]


def _host() -> list[Panel]:
    cpu = f'node_cpu_seconds_total{{{HOST},mode!="idle"}}'
    idle = f'node_cpu_seconds_total{{{HOST},mode="idle"}}'
    disks = f'{HOST},device!~"loop.*|ram.*|sr.*|zram.*"'
    nics = f'{HOST},device!~"lo|veth.*|br-.*|docker.*"'
    free, size = f"node_filesystem_avail_bytes{{{DISKS}}}", f"node_filesystem_size_bytes{{{DISKS}}}"
    memory = f"1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}}"
    modes = total(f"rate({cpu}[{WINDOW}])", "mode")
    every = f"scalar(count({idle}))"

    def throughput(metric: str, labels: str, by: str) -> str:
        return total(f"rate({metric}{{{labels}}}[{WINDOW}])", by)

    return [
        lines(
            "Processor time",
            "Share of all processors, by what they do. iowait is waiting for a disk, steal for the "
            "hypervisor.",
            [query(f"{modes} / {every}", "{{mode}}")],
            unit="percentunit",
            stacked=True,
            axis=Axis(highest=1),
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Memory used",
            f"What is not available to new processes. HostMemoryLow fires above {percent(MEMORY_LOW)}.",
            [query(memory, "{{instance}}")],
            unit="percentunit",
            marks=[(MEMORY_LOW, "orange")],
            axis=Axis(highest=1),
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Disk space used",
            "By mount point.",
            [query(f"max by (instance, mountpoint) (1 - {free} / {size})", "{{mountpoint}}")],
            unit="percentunit",
            calcs=["lastNotNull", "max"],
            axis=Axis(highest=1),
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Load",
            "Processes that run or wait, over 1 minute, against the processors that there are.",
            [
                query(f"sum by (instance) (node_load1{{{HOST}}})", "load {{instance}}"),
                query(f"count by (instance) ({idle})", "processors {{instance}}"),
            ],
            unit="none",
            decimals=1,
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Disk",
            "Bytes read and written a second, by device.",
            [
                query(throughput("node_disk_read_bytes_total", disks, "device"), "read {{device}}"),
                query(throughput("node_disk_written_bytes_total", disks, "device"), "written {{device}}"),
            ],
            unit="Bps",
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Network",
            "Bytes received and sent a second, by device; containers' own interfaces left out.",
            [
                query(throughput("node_network_receive_bytes_total", nics, "device"), "received {{device}}"),
                query(throughput("node_network_transmit_bytes_total", nics, "device"), "sent {{device}}"),
            ],
            unit="Bps",
            width=8,
            no_data=NO_NODE,
        ),
    ]
