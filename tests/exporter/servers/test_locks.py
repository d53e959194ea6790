"""A neighbour that holds every lock it can get keeps no request waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rig.server import Server, serving
from tests.rig.users import STRANGER, needs_root

LIMIT = 10_000
"""The size (bytes) at which the log rotates: after some 30 requests."""

HOLD = """
import fcntl, os, pathlib, sys

uid, *paths = sys.argv[1:]
if uid != str(os.geteuid()):
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
held = []
inside = (file for path in paths if os.access(path, os.R_OK) for file in pathlib.Path(path).iterdir())
for path in [*paths, *inside]:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY | os.O_NONBLOCK), fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(os.path.basename(path))
    except OSError as error:
        print(path, error, file=sys.stderr)
print(*held, flush=True)
sys.stdin.read()
"""


@contextmanager
def neighbour(uid: int, *paths: Path) -> Iterator[list[str]]:
    """A process of this user that holds all locks below these directories; the names of what it holds."""
    command = [sys.executable, "-c", HOLD, str(uid), *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()
        finally:
            process.kill()


def longest(server: Server, requests: int) -> float:
    """The time (s) of the request that took longest."""
    times = []
    for _ in range(requests):
        begin = time.monotonic()
        assert server.get("/orders/1").status == 200
        times.append(time.monotonic() - begin)
    return max(times)


@pytest.mark.parametrize(
    ("uid", "has_lock"),
    [(os.geteuid(), True), pytest.param(STRANGER[0], False, marks=needs_root)],
    ids=["own", "stranger"],
)
def test_no_request_waits_for_a_lock(uid: int, has_lock: bool) -> None:
    """50 ms at most, in one of ten rounds; on a busy machine twice what requests wait for a processor."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        log = directory / "log" / "requests.jsonl"
        log.parent.mkdir(mode=0o755)
        variables = {"EXPORTER_REQUEST_LOG": str(log), "EXPORTER_LOG_MAX_BYTES": str(LIMIT)}
        with serving(directory, "--threads", "4", workers=2, **variables) as server:
            lock = log.with_name(".requests.jsonl.lock")
            for _ in range(10):
                free = longest(server, 100)  # the log rotates again
                if has_lock:
                    lock.touch(mode=0o600)
                with neighbour(uid, log.parent, server.directory) as held:
                    before = log.stat().st_ino
                    beside = longest(server, 100)
                    assert (lock.name in held, "archive.lock" in held) == (has_lock, has_lock)
                    assert {"log", "requests.jsonl"} <= set(held)
                    assert (log.stat().st_ino == before) == has_lock, (
                        "whoever has the lock decides if it rotates"
                    )
                print(f"longest beside held locks {1000 * beside:.1f} ms, without {1000 * free:.1f} ms")
                if beside < max(0.05, 2 * free):
                    return

    pytest.fail("a request waited for a lock in each round")
