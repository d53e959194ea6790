"""Deaths: what workers were answering when they died, and of what they died.

The ring of a dead worker names its owner until somebody has read what was in progress. Who knows the cause,
as the master of gunicorn does, reads it first; without such a master, the other workers do. The latest
deaths are kept in `deaths_0.ring`, one JSON object a line. Nothing here imports prometheus_client.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from exporter import forks, guard
from exporter.posix import fcntl
from exporter.worker import crash, requests, ring
from exporter.worker.requests import HEADER, KIND, OWNER_AT, Header

FILE = "deaths_0.ring"
UNKNOWN = "unknown"
HARMLESS = ("exit 0", "SIGTERM", "SIGINT", "SIGQUIT")
"""How a worker ends that was told to; it has lost what it was answering, and else nothing has happened."""

_KEPT = 100
_BYTES = 1 << 22
_PATIENCE = 1.0  # how long others may hold the file (s)
_NAMED = 10
_RECORDS = 1_000_001


@dataclass(frozen=True, slots=True)
class Lost:
    """A request that a dead worker was answering; its age in seconds.

    `answered` says that all of the answer had been handed to the server, which may have sent it: such a one
    has been counted as answered.
    """

    request_id: str
    method: str
    path: str
    script_name: str
    age_seconds: float
    state: str
    answered: bool
    url_rule: str | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker, at a time in seconds since the epoch."""

    timestamp: float
    pid: int
    cause: str
    """`SIGKILL` and other signals, `timeout`, `exit 3` and other codes, `graceful timeout`, or `unknown`."""
    requests: tuple[Lost, ...] = ()
    stack: tuple[str, ...] = ()
    """What `faulthandler` wrote in a crash, line by line."""
    counted: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        named = [
            f"{one.method} {quoted(one.path)} ({one.request_id}, {one.age_seconds:.1f} s, {one.state})"
            for one in self.requests[:_NAMED]
        ]
        rest = len(self.requests) - len(named)
        others = f" and {rest} more" if rest > 0 else ""
        hint = ", perhaps for want of memory" if self.cause == "SIGKILL" else ""
        return (
            f"worker {self.pid} died: {self.cause}{hint}; it was answering "
            f"{', '.join(named) or 'nothing'}{others}"
        )

    @classmethod
    def of(cls, line: bytes) -> Death:
        """The death in this line; raises ValueError if it is none of ours."""
        try:
            fields = json.loads(line)
            lost = tuple(_checked(Lost(**request), _LOST) for request in fields.pop("requests"))
            death: Death = _checked(cls(**fields, requests=lost), _DEATH)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"no death: {error}") from error
        return replace(death, stack=tuple(map(str, death.stack)))


_NUMBER = (int, float)
_LOST: dict[str, Any] = {
    **dict.fromkeys(("request_id", "method", "path", "script_name", "state"), str),
    "age_seconds": _NUMBER,
    "answered": bool,
    "url_rule": (str, type(None)),
}
_DEATH: dict[str, Any] = {
    "timestamp": _NUMBER,
    "pid": int,
    "cause": str,
    "stack": (list, tuple),
    "counted": bool,
}


def _checked(thing: Any, types: dict[str, Any]) -> Any:
    for name, expected in types.items():
        value = getattr(thing, name)
        if not isinstance(value, expected) or (expected is _NUMBER and not 0 <= value < 1e11):
            raise ValueError(f"{name} is {value!r}")
    return thing


def dead(directory: str) -> set[int]:
    """The owners of rings with requests in progress that nobody holds any more. Raises OSError."""
    owners = set()
    for _, descriptor in ring.opened(directory, KIND):
        header = Header.of(os.pread(descriptor, HEADER, 0))
        if header and not requests.is_free(descriptor) and not ring.is_held(descriptor, header.owner):
            owners.add(header.owner)
    return owners


def bury(directory: str, pid: int, cause: str, *, wait: float = 0.0) -> Death | None:
    """Read what a dead worker was answering, and let others have its ring; None if there is nothing to tell.

    `wait` is how long (s) its lock may outlive it. Raises OSError, and then it stays to be read.
    """
    now, lost, stack = time.perf_counter(), list[Lost](), list[str]()
    with _locked(directory) as file:
        for number, descriptor in _owned(directory, pid, wait):
            content = requests.content(descriptor, _RECORDS)
            lost += [_lost(request, now) for request in requests.in_flight(content)] if content else []
            stack += crash.lines(directory, number)
        death = None
        if lost or cause not in HARMLESS:
            death = Death(time.time(), pid, cause, tuple(lost), tuple(stack))
            _write(file, [*_read(file), death])
        for number, descriptor in _owned(directory, pid, wait):
            crash.clear(directory, number)
            os.pwrite(descriptor, bytes(8), OWNER_AT)
    return death


def kept(directory: str) -> list[Death]:
    """The latest deaths, the last one first. Raises OSError where the directory cannot be read."""
    for _, descriptor in ring.opened(directory, "deaths"):
        return _read(descriptor)[::-1]
    return []


def version(directory: str) -> tuple[int, int]:
    """What changes with the file; (0, 0) where there is none."""
    with suppress(OSError):
        status = os.stat(os.path.join(directory, FILE))
        return status.st_mtime_ns, status.st_size
    return 0, 0


def count(directory: str, rule: Callable[[str, str], str]) -> list[Death]:
    """The deaths that nobody has counted before, with the rules of their requests. Raises OSError."""
    with _locked(directory) as file:
        deaths = _read(file)
        fresh = {at: _named(death, rule) for at, death in enumerate(deaths) if not death.counted}
        if fresh:
            _write(file, [fresh.get(at, death) for at, death in enumerate(deaths)])
    return list(fresh.values())


def _named(death: Death, rule: Callable[[str, str], str]) -> Death:
    lost = tuple(
        replace(one, url_rule=rule(one.method, one.path.removeprefix(one.script_name)))
        for one in death.requests
    )
    return replace(death, requests=lost, counted=True)


def _lost(request: requests.InFlight, now: float) -> Lost:
    age = round(max(now - request.started, 0.0), 6)
    return Lost(
        request.request_id,
        request.method,
        request.path,
        request.script_name,
        age,
        request.state,
        request.answered,
    )


def _owned(directory: str, pid: int, wait: float) -> Iterator[tuple[int, int]]:
    """The rings that this dead process has left, each locked while it is the current one."""
    for number, descriptor in ring.opened(directory, KIND, os.O_RDWR):
        header = Header.of(os.pread(descriptor, HEADER, 0))
        if header is not None and header.owner == pid and guard.lock(descriptor, fcntl.LOCK_EX, wait):
            header = Header.of(os.pread(descriptor, HEADER, 0))
            if header is not None and header.owner == pid:  # nobody has taken it meanwhile
                yield number, descriptor


@contextmanager
def _locked(directory: str) -> Iterator[int]:
    """The file, open and locked: whoever buries a worker or counts deaths is alone."""
    at = guard.directory(directory)
    try:
        descriptor = guard.regular(FILE, os.O_RDWR | os.O_CREAT, at)
    finally:
        os.close(at)
    with forks.hold(descriptor):
        if not guard.lock(descriptor, fcntl.LOCK_EX, _PATIENCE):
            raise OSError(errno.EAGAIN, "another process has locked the deaths", directory)
        yield descriptor


def _read(descriptor: int) -> list[Death]:
    if os.fstat(descriptor).st_size > _BYTES:
        return []
    deaths = []
    for line in guard.content(descriptor).splitlines():
        with suppress(ValueError):
            deaths.append(Death.of(line))
    return deaths


def _write(descriptor: int, deaths: list[Death]) -> None:
    """The latest ones, and before them those that are still to be counted, for as many as there is room.

    Raises OSError where the disk is full.
    """
    counted = [death for death in deaths if death.counted][-_KEPT:]
    uncounted = [death for death in deaths if not death.counted]
    lines: list[bytes] = []
    size = 0
    for death in reversed(counted + uncounted):
        line = json.dumps(asdict(death)).encode() + b"\n"
        size += len(line)
        if size > _BYTES:
            break
        lines.insert(0, line)
    content = b"".join(lines)
    if os.pwrite(descriptor, content, 0) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), FILE)
    os.ftruncate(descriptor, len(content))
