"""What measuring adds to one request, beside what others add to it.

    python -m tests.bench.overhead

A process calls the WSGI applications of `tests.bench.service` directly: Flask alone, and Flask with one of
the others, as a service has one and no more. It asks both in turn, in another order each time; what it finds
is the median over the rounds of their difference in CPU time, so that a neighbour costs little.
Memory lies otherwise in each process, so a figure is the median over several. Half of the processes have a
worker directory. Draws `tests/bench/overhead.png`.
"""

import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from tests.bench.rows import Row, save
from tests.bench.service import KINDS, PATH, create, title

PICTURE = Path(__file__).with_name("overhead.png")
PROCESSES = 15
ROUNDS = 60
REQUESTS = 100
TARGETS = {"families": 0.25, "everything": 0.42}
MODES = {"one process": False, "worker directory": True}
OTHERS = [kind for kind in KINDS if kind != "bare"]


def main() -> None:
    """Measure, print a table, write the file and the picture."""
    measured = {mode: _over_processes(shared) for mode, shared in MODES.items()}
    rows = []
    for mode, added in measured.items():
        rows.append(
            Row(f"{title('bare')}, {mode}", round(statistics.median(added["bare"]), 2), "µs a request")
        )
        parent = statistics.median(added["parent"])
        for kind in OTHERS:
            microseconds = statistics.median(added[kind])
            ratio = round(microseconds / parent, 3)
            detail = f"adds {microseconds:.2f} µs"
            rows.append(Row(f"{title(kind)}, {mode}", ratio, "of the parent", TARGETS.get(kind), detail))
    save("overhead", rows)
    draw(measured)


def _over_processes(shared: bool) -> dict[str, list[float]]:
    """What each kind adds to a request in each of its processes, in µs; for "bare" all that one takes."""
    measured: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(PROCESSES):
        for kind in random.sample(OTHERS, len(OTHERS)):
            bare, added = _in_process_of_its_own(kind, shared)
            measured["bare"].append(bare)
            measured[kind].append(added)
    return measured


def _in_process_of_its_own(kind: str, shared: bool) -> tuple[float, float]:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as directory, tempfile.TemporaryDirectory() as disk:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("EXPORTER_", "PROMETHEUS_"))}
        environ["BENCH_REQUEST_LOG"] = f"{disk}/requests.log"
        if shared:
            environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        done = subprocess.run(
            [sys.executable, "-m", "tests.rig.command", __spec__.name, kind],
            env=environ,
            stdout=subprocess.PIPE,
            check=True,
        )
    bare, added = json.loads(done.stdout)
    return bare, added


def measure(kind: str) -> tuple[float, float]:
    """Microseconds of CPU time of a request to Flask alone, and those that `kind` adds."""
    registry = CollectorRegistry()
    apps = {one: create(one, registry) for one in ("bare", kind)}
    for app in apps.values():
        ask(app, REQUESTS)
    bare, added = [], []
    for _ in range(ROUNDS):
        times = {}
        for one in random.sample(list(apps), 2):
            started = time.process_time()
            ask(apps[one], REQUESTS)
            times[one] = (time.process_time() - started) / REQUESTS * 1e6
        bare.append(times["bare"])
        added.append(times[kind] - times["bare"])
    if kind in TARGETS:  # what was measured must have done its work
        labels = {"method": "GET", "url_rule": "/orders/<int:number>", "status": "200"}
        counted = registry.get_sample_value("flask_http_request_duration_seconds_count", labels)
        if counted is None or counted < REQUESTS * (ROUNDS + 1):
            raise SystemExit(f"{title(kind)}: {counted} of {REQUESTS * (ROUNDS + 1)} requests were recorded")
    return statistics.median(bare), statistics.median(added)


def ask(app: Any, times: int) -> None:
    """As a server does, from the environ to `close()`."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": PATH,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_ACCEPT": "*/*",
        "HTTP_USER_AGENT": "bench",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for _ in range(times):
        body: Any = app(environ.copy(), _start_response)
        for _chunk in body:
            pass
        if hasattr(body, "close"):
            body.close()


def _start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    """A server's."""


def draw(measured: dict[str, dict[str, list[float]]]) -> None:
    """The picture of docs/explanation/cost.md."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 4.2), dpi=110, layout="constrained")
    height = 0.38
    for at, (mode, added) in enumerate(measured.items()):
        parents = statistics.median(added["parent"])
        places = [place + (at - 0.5) * height for place in range(len(OTHERS))]
        quartiles = [statistics.quantiles(added[kind], n=4) for kind in OTHERS]
        medians = [one[1] for one in quartiles]
        axes.barh(
            places,
            medians,
            height,
            label=mode,
            color=("#3274d9", "#8ab8ff")[at],
            xerr=[[one[1] - one[0] for one in quartiles], [one[2] - one[1] for one in quartiles]],
            error_kw={"elinewidth": 1, "ecolor": "#555555"},
        )
        for place, (_, median, third) in zip(places, quartiles, strict=True):
            text = f" {median:.1f} µs ({median / parents:.0%})"
            axes.text(third, place, text, va="center", fontsize=9)
    axes.set_yticks(range(len(OTHERS)), [title(kind) for kind in OTHERS])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("CPU time added to a Flask request, µs (% of what prometheus_flask_exporter adds)")
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(PICTURE)
    pyplot.close(figure)


if __name__ == "__main__":
    if sys.argv[1:]:
        json.dump(measure(sys.argv[1]), sys.stdout)
    else:
        main()
