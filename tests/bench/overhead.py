"""What measuring adds to one request, beside what others add to it.

    python -m tests.bench.overhead

One process calls the WSGI applications of `tests.bench.service` directly; a second one does so with a worker
directory, because prometheus_client decides that at its import. Each round asks all of them, in another order
each time; a figure is the median over the rounds of the difference to the bare application in that round, in
CPU time, so that a neighbour on the machine costs little. Draws `tests/bench/overhead.png`.
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
ROUNDS = 400
REQUESTS = 100
TARGETS = {"families": 0.25, "everything": 0.42}
MODES = {"one process": False, "worker directory": True}


def main() -> None:
    """Measure, print a table, write the file and the picture."""
    measured = {mode: _in_process_of_its_own(shared) for mode, shared in MODES.items()}
    rows = []
    for mode, rounds in measured.items():
        bare = statistics.median(rounds["bare"])
        rows.append(Row(f"{title('bare')}, {mode}", round(bare, 2), "µs a request"))
        added = {kind: added_by(rounds, kind)[1] for kind in KINDS if kind != "bare"}
        for kind, microseconds in added.items():
            ratio = round(microseconds / added["parent"], 3)
            detail = f"adds {microseconds:.2f} µs"
            rows.append(Row(f"{title(kind)}, {mode}", ratio, "of the parent", TARGETS.get(kind), detail))
    save("overhead", rows)
    draw(measured)


def added_by(rounds: dict[str, list[float]], kind: str) -> tuple[float, float, float]:
    """First quartile, median and third quartile of what `kind` adds to the bare application, in µs."""
    first, second, third = statistics.quantiles(
        [one - bare for one, bare in zip(rounds[kind], rounds["bare"], strict=True)], n=4
    )
    return first, second, third


def _in_process_of_its_own(shared: bool) -> dict[str, list[float]]:
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as directory, tempfile.TemporaryDirectory() as disk:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("EXPORTER_", "PROMETHEUS_"))}
        environ["BENCH_REQUEST_LOG"] = f"{disk}/requests.log"
        if shared:
            environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        done = subprocess.run(
            [sys.executable, "-m", "tests.rig.command", __spec__.name, "rounds"],
            env=environ,
            stdout=subprocess.PIPE,
            check=True,
        )
    rounds: dict[str, list[float]] = json.loads(done.stdout)
    return rounds


def measure() -> dict[str, list[float]]:
    """Microseconds of CPU time for each kind in each round."""
    registries = {kind: CollectorRegistry() for kind in KINDS}
    apps = {}
    for kind in KINDS:  # OpenTelemetry's imports come last: ours would look for its spans in each request
        apps[kind] = create(kind, registries[kind])
        ask(apps[kind], REQUESTS)
    rounds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind in random.sample(list(KINDS), len(KINDS)):
            started = time.process_time()
            ask(apps[kind], REQUESTS)
            rounds[kind].append((time.process_time() - started) / REQUESTS * 1e6)
    for kind in ("families", "everything"):  # what was measured must have done its work
        labels = {"method": "GET", "url_rule": "/orders/<int:number>", "status": "200"}
        counted = registries[kind].get_sample_value("flask_http_request_duration_seconds_count", labels)
        if counted is None or counted < REQUESTS * (ROUNDS + 1):
            raise SystemExit(f"{title(kind)}: {counted} of {REQUESTS * (ROUNDS + 1)} requests were recorded")
    return rounds


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

    kinds = [kind for kind in KINDS if kind != "bare"]
    figure, axes = pyplot.subplots(figsize=(10, 4.2), dpi=110, layout="constrained")
    height = 0.38
    for at, (mode, rounds) in enumerate(measured.items()):
        parents = added_by(rounds, "parent")[1]
        places = [place + (at - 0.5) * height for place in range(len(kinds))]
        quartiles = [added_by(rounds, kind) for kind in kinds]
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
    axes.set_yticks(range(len(kinds)), [title(kind) for kind in kinds])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("CPU time added to a Flask request, µs (% of what prometheus_flask_exporter adds)")
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(PICTURE)
    pyplot.close(figure)


if __name__ == "__main__":
    if sys.argv[1:] == ["rounds"]:
        json.dump(measure(), sys.stdout)
    else:
        main()
