"""How many requests a second a real gunicorn answers with each way of measuring, beside the bare service.

    python -m tests.bench.throughput

Two sync workers and wrk on loopback. The servers all run at once and wrk asks one at a time, in another order
each round; a figure is the median over the rounds of the ratio to the bare service in that round.
"""

import contextlib
import http.client
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.rows import Row, save
from tests.bench.service import PATH, title
from tests.rig.network import free_ports

COMPARED = ("bare", "parent", "families", "everything")
HOOKS = dict.fromkeys(("families", "everything", "logged"), "python:exporter.gunicorn")
WORKERS = 2
CONNECTIONS = 4
ROUNDS = 10
SECONDS = 2


def main() -> None:
    """Measure, print a table, write the file."""
    if shutil.which("wrk") is None:
        print("SKIPPED: wrk is not installed (Debian: apt install wrk)", file=sys.stderr)
        save("throughput", [])
        return
    with contextlib.ExitStack() as stack:
        ports = dict(zip(COMPARED, free_ports(len(COMPARED)), strict=True))
        for kind, port in ports.items():
            stack.enter_context(serving(kind, port))
        rounds: dict[str, list[float]] = {kind: [] for kind in COMPARED}
        for _ in range(ROUNDS):
            for kind in random.sample(COMPARED, len(COMPARED)):
                rounds[kind].append(requests_per_second(ports[kind]))
    save(
        "throughput",
        [
            Row(
                f"{title(kind)}, gunicorn with {WORKERS} workers",
                round(statistics.median(a / b for a, b in zip(rounds[kind], rounds["bare"], strict=True)), 3),
                "of bare",
                detail=f"{statistics.median(rounds[kind]):.0f} requests/s",
            )
            for kind in COMPARED
        ],
    )


@contextlib.contextmanager
def serving(kind: str, port: int, *options: str, rules: int = 0) -> Iterator[int]:
    """The service of this kind under gunicorn, with these options and more rules; the master's process id."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as directory, tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--no-control-socket"]
        if kind in HOOKS:
            command += ["--config", HOOKS[kind]]
        command += [
            "--bind",
            f"127.0.0.1:{port}",
            *options,
            f"tests.bench.service:create({kind!r}, rules={rules})",
        ]
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("EXPORTER_", "PROMETHEUS_"))}
        environ |= {"PROMETHEUS_MULTIPROC_DIR": str(Path(directory, "workers")), "EXPORTER_DRAIN": "0"}
        Path(directory, "workers").mkdir()
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"gunicorn with {title(kind)} does not start:\n{log.read().decode()}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", PATH)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def requests_per_second(port: int) -> float:
    """What wrk gets answered by the service on this port."""
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{SECONDS}s"),
            *("--timeout", "5s", f"http://127.0.0.1:{port}{PATH}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Requests/sec: +([0-9.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise SystemExit(f"wrk: {done.stdout}{done.stderr}")
    return float(found[1])


if __name__ == "__main__":
    main()
