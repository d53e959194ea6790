"""Flask / Workers and host: is it out of something?"""

from grafana_foundation_sdk.builders import bargauge, common
from grafana_foundation_sdk.builders.dashboard import FieldColor, Row
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import FieldColorModeId

from grafana import board
from grafana.fields import Steps, limits
from grafana.panels import Panel, frame, lines, now, number, query
from grafana.promql import WINDOW, increase, of, rate, total

FULL: Steps = ((None, "green"), (0.7, "orange"), (0.9, "red"))
LATER = 4 * 3600
HOST = 'instance=~"$host"'
DISKS = f'{HOST},fstype!~"ramfs|squashfs|overlay|tmpfs|fuse.*"'
NO_WORKERS = "No worker"
NO_NODE = "No node exporter is scraped"


def dashboard() -> model.Dashboard:
    """The dashboard."""
    hosts = board.label("host", "Host", "label_values(node_memory_MemTotal_bytes, instance)")
    return board.board(
        "flask-workers",
        "Workers and host",
        "Is it out of something? Threads, memory, processor and disk, of the workers and of the host "
        "below them.",
        [board.jobs(), board.services(), board.instances(), hosts],
        [
            _forecast(),
            *_summary(),
            Row("Workers"),
            *_workers(),
            Row("Host"),
            *_host(),
        ],
    )


def _forecast() -> Panel:
    threads = f"sum({of('flask_worker_threads')})"
    busy = of("flask_worker_threads_busy")
    left, memory = f"node_memory_MemAvailable_bytes{{{HOST}}}", f"node_memory_MemTotal_bytes{{{HOST}}}"
    free, size = f"node_filesystem_avail_bytes{{{DISKS}}}", f"node_filesystem_size_bytes{{{DISKS}}}"
    shares = {
        "threads": f"sum(avg_over_time({busy}[5m])) / {threads}",
        "threads, 4 h": f"sum(predict_linear({busy}[1h], {LATER})) / {threads}",
        "memory": f"max(1 - {left} / {memory})",
        "memory, 4 h": f"max(1 - predict_linear({left.replace('}', '}[1h]')}, {LATER}) / {memory})",
        "disk": f"max(1 - {free} / {size})",
        "disk, 4 h": f"max(1 - predict_linear({free.replace('}', '}[6h]')}, {LATER}) / {size})",
    }
    asked = [now(f"clamp({share}, 0, 1)", name) for name, share in shares.items()]
    panel = frame(
        bargauge.Panel(),
        "Saturation, now and in 4 hours",
        "Worker threads, memory of the fullest host, and its fullest disk. In 4 hours: if it goes on as "
        "in the last hour (disk: 6 hours). Orange from 70 %, red from 90 %.",
        asked,
        14,
        8,
    )
    return (
        panel.unit("percentunit")
        .decimals(0)
        .min(0)
        .max(1)
        .no_value(NO_WORKERS)
        .thresholds(limits(FULL))
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
            "locale",
            now(f"{increase('flask_worker_starts_total')} or vector(0)"),
            decimals=0,
            width=5,
            trend=False,
            no_data=NO_WORKERS,
        ),
        number(
            "Memory",
            "Resident memory of all workers. Pages that they share count for each.",
            "bytes",
            query(f"sum({of('flask_worker_resident_memory_bytes')})"),
            decimals=0,
            width=5,
            no_data=NO_WORKERS,
        ),
        number(
            "Processors",
            "Processor time of all workers: 1 is one processor fully used.",
            "none",
            query(rate("flask_worker_cpu_seconds_total")),
            decimals=2,
            width=5,
            no_data=NO_WORKERS,
        ),
        number(
            "Garbage collection",
            "Share of the workers' processor time that goes into finding garbage.",
            "percentunit",
            query(
                f"{rate('flask_worker_gc_seconds_total')} / ({rate('flask_worker_cpu_seconds_total')} > 0)"
            ),
            steps=((None, "green"), (0.1, "orange"), (0.2, "red")),
            decimals=2,
            width=5,
            no_data=NO_WORKERS,
        ),
    ]


def _workers() -> list[Panel]:
    queued = rate("flask_http_request_queue_seconds_bucket", by="le")
    starts = increase("flask_worker_starts_total", by="instance", window="$__interval")
    return [
        lines(
            "Threads",
            "Busy ones against all there are, by instance. FlaskThreadsSaturated fires at 80 %.",
            "none",
            [
                query(f"sum by (instance) ({of('flask_worker_threads_busy')})", "busy {{instance}}"),
                query(f"sum by (instance) ({of('flask_worker_threads')})", "all {{instance}}"),
            ],
            decimals=0,
            width=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Time in the queue",
            "From the proxy's X-Request-Start to the worker. Needs a declared proxy "
            "(EXPORTER_TRUSTED_PROXIES). FlaskQueueSlow fires at 0.25 s.",
            "s",
            [query(f"histogram_quantile({q}, {queued}) >= 0", f"p{q * 100:g}") for q in (0.99, 0.95, 0.5)],
            colors={"p99": "red", "p95": "orange", "p50": "green"},
            objective=((None, "transparent"), (0.25, "orange")),
            width=8,
            no_data="No proxy says when it took a request",
        ),
        lines(
            "Worker starts",
            "Each bar is as many as there were within it. Steady bars are workers that die.",
            "none",
            [query(f"{starts}", "{{instance}}", interval="1m")],
            calcs=["sum"],
            bars=True,
            stacked=True,
            decimals=0,
            width=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Memory of the workers",
            "A line that only rises is a leak.",
            "bytes",
            [query(f"sum by (instance) ({of('flask_worker_resident_memory_bytes')})", "{{instance}}")],
            calcs=["lastNotNull", "max"],
            width=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Processors used by the workers",
            "1 is one processor fully used.",
            "none",
            [query(rate("flask_worker_cpu_seconds_total", by="instance"), "{{instance}}")],
            decimals=2,
            width=8,
            no_data=NO_WORKERS,
        ),
        lines(
            "Requests in progress",
            "Over all living workers; the exporter's own paths do not count.",
            "none",
            [query(f"sum by (instance) ({of('flask_http_requests_in_progress')})", "{{instance}}")],
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
    used = f"1 - node_memory_MemAvailable_bytes{{{HOST}}} / node_memory_MemTotal_bytes{{{HOST}}}"
    modes = total(f"rate({cpu}[{WINDOW}])", "mode")
    every = f"scalar(count({idle}))"

    def moved(metric: str, labels: str, by: str) -> str:
        return total(f"rate({metric}{{{labels}}}[{WINDOW}])", by)

    return [
        lines(
            "Processor time",
            "Share of all processors, by what they do. iowait is waiting for a disk, steal for the "
            "hypervisor.",
            "percentunit",
            [query(f"{modes} / {every}", "{{mode}}")],
            stacked=True,
            highest=1,
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Memory used",
            "What is not available to new processes. HostMemoryLow fires above 90 %.",
            "percentunit",
            [query(used, "{{instance}}")],
            objective=((None, "transparent"), (0.9, "orange")),
            highest=1,
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Disk space used",
            "By mount point.",
            "percentunit",
            [query(f"max by (instance, mountpoint) (1 - {free} / {size})", "{{mountpoint}}")],
            calcs=["lastNotNull", "max"],
            highest=1,
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Load",
            "Processes that run or wait, over 1 minute, against the processors that there are.",
            "none",
            [
                query(f"sum by (instance) (node_load1{{{HOST}}})", "load {{instance}}"),
                query(f"count by (instance) ({idle})", "processors {{instance}}"),
            ],
            decimals=1,
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Disk",
            "Bytes read and written a second, by device.",
            "Bps",
            [
                query(moved("node_disk_read_bytes_total", disks, "device"), "read {{device}}"),
                query(moved("node_disk_written_bytes_total", disks, "device"), "written {{device}}"),
            ],
            width=8,
            no_data=NO_NODE,
        ),
        lines(
            "Network",
            "Bytes received and sent a second, by device; containers' own interfaces left out.",
            "Bps",
            [
                query(moved("node_network_receive_bytes_total", nics, "device"), "received {{device}}"),
                query(moved("node_network_transmit_bytes_total", nics, "device"), "sent {{device}}"),
            ],
            width=8,
            no_data=NO_NODE,
        ),
    ]
