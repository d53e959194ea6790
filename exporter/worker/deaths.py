"""Deaths of workers: their causes, and the requests that were in progress.

The ring of a dead worker names its owner until a process has read the requests in progress. gunicorn's master
knows the cause of a death, and reads them at once; without such a master, another worker does so later. The
file `deaths_0.ring` has the latest deaths, one JSON object a line. This module does not import
prometheus_client.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from json.encoder import encode_basestring_ascii as quote
from typing import Any

from exporter import forks, guard
from exporter.posix import fcntl
from exporter.worker import crash, requests, ring
from exporter.worker.requests import HEADER, KIND, OWNER_AT, Header

FILE = "deaths_0.ring"
UNKNOWN = "unknown"
HARMLESS = ("exit 0", "SIGTERM", "SIGINT", "SIGQUIT")
"""The causes of an ordered end; it is a death only if the worker had requests in progress."""

_DEATHS_LIMIT = 100
_BYTES = 1 << 22
_PATIENCE = 1.0  # the time for which others may hold the file (s)
_NAMES_LIMIT = 10
_RECORDS = 1_000_001
# A line that has not been counted yet, and the same afterwards: as long as before.
_UNCOUNTED, _COUNTED = b'"counted": false', b'"counted": true '


@dataclass(frozen=True, slots=True)
class LostRequest:
    """A request that was in progress when its worker died.

    It was `answered` if the server had all of the answer, and may have sent it. Such a request is counted as
    answered, and not as lost.
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
    requests: tuple[LostRequest, ...] = ()
    stack: tuple[str, ...] = ()
    """The lines that `faulthandler` wrote in a crash."""
    counted: bool = field(default=False, kw_only=True)
    """Whether a worker has added it to the counters."""

    def __str__(self) -> str:
        names = [
            f"{request.method} {quote(request.path)} "
            f"({request.request_id}, {request.age_seconds:.1f} s, {request.state})"
            for request in self.requests[:_NAMES_LIMIT]
        ]
        rest = len(self.requests) - len(names)
        others = f" and {rest} more" if rest > 0 else ""
        hint = ", perhaps for want of memory" if self.cause == "SIGKILL" else ""
        return (
            f"worker {self.pid} died: {self.cause}{hint}; it was answering "
            f"{', '.join(names) or 'nothing'}{others}"
        )

    @classmethod
    def of(cls, line: bytes) -> Death:
        """The death in this line; raises ValueError if the line has another content."""
        try:
            fields = json.loads(line)
            lost_requests = tuple(
                _check(LostRequest(**request), _REQUEST) for request in fields.pop("requests")
            )
            death: Death = _check(cls(**fields, requests=lost_requests), _DEATH)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"no death: {error}") from error
        return replace(death, stack=tuple(map(str, death.stack)))


_NUMBER = (int, float)
_REQUEST: dict[str, Any] = {
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


def _check(thing: Any, types: dict[str, Any]) -> Any:
    """Return the object; raise ValueError if an attribute has another type."""
    for name, kind in types.items():
        value = getattr(thing, name)
        if not isinstance(value, kind) or (kind is _NUMBER and not 0 <= value < 1e11):
            raise ValueError(f"{name} is {value!r}")
    return thing


def cause_of(exitcode: int) -> str:
    """The cause of death of a process with this exit code, which is negative for a signal."""
    if exitcode >= 0:
        return f"exit {exitcode}"
    with suppress(ValueError):
        return signal.Signals(-exitcode).name
    return f"signal {-exitcode}"


def dead(directory: str) -> set[int]:
    """The dead owners of rings with requests in progress. Raises OSError."""
    owners = set()
    for _, descriptor in ring.descriptors(directory, KIND):
        header = Header.of(os.pread(descriptor, HEADER, 0))
        if header and not requests.is_free(descriptor) and not ring.is_held(descriptor, header.owner):
            owners.add(header.owner)
    return owners


def bury(directory: str, pid: int, cause: str, *, wait: float = 0.0) -> Death | None:
    """Read the requests in progress of a dead worker, and free its ring; None for an end that is no death.

    `wait` is the time (s) for which the worker's lock may outlive it. An OSError leaves the ring for a second
    attempt.
    """
    now, lost_requests, stack = time.perf_counter(), list[LostRequest](), list[str]()
    with _lock_file(directory) as file:
        for number, descriptor in _rings_of(directory, pid, wait):
            content = requests.content(descriptor, _RECORDS)
            lost_requests += (
                [_lost_request(request, now) for request in requests.in_flight(content)] if content else []
            )
            stack += crash.lines(directory, number)
        death = None
        if lost_requests or cause not in HARMLESS:
            death = Death(time.time(), pid, cause, tuple(lost_requests), tuple(stack))
            _write(file, [*_read(file), death])
        for number, descriptor in _rings_of(directory, pid, wait):
            crash.clear(directory, number)
            os.pwrite(descriptor, bytes(8), OWNER_AT)
    return death


def latest(directory: str) -> list[Death]:
    """The latest deaths, the last one first. Raises OSError if the directory cannot be read."""
    for _, descriptor in ring.descriptors(directory, "deaths"):
        return _read(descriptor)[::-1]
    return []


def version(directory: str) -> tuple[int, int]:
    """The version of the file: its time and its size, or (0, 0) if there is no file."""
    with suppress(OSError):
        status = os.stat(os.path.join(directory, FILE))
        return status.st_mtime_ns, status.st_size
    return 0, 0


@contextmanager
def new_deaths(
    directory: str, rule: Callable[[str, str], str]
) -> Iterator[tuple[list[Death], Callable[[], None]]]:
    """The deaths that no worker has counted yet, with the rules of their requests. Raises OSError.

    A worker calls the function right before it counts them: it marks them as counted. That is one copy of
    bytes, during which no other thread takes over. So there is next to no time to die between mark and count.
    """
    with _lock_file(directory) as file:
        deaths = _read(file)
        if all(death.counted for death in deaths):
            yield [], lambda: None
            return
        deaths = [death if death.counted else _with_rules(death, rule) for death in deaths]
        _write(file, deaths)
        new = [death for death in deaths if not death.counted]
        if os.fstat(file).st_size == 0:  # there was no room for any
            yield new, lambda: None
            return
        with mmap.mmap(file, 0) as memory:
            marked = memory[:].replace(_UNCOUNTED, _COUNTED)
            yield new, lambda: memory.__setitem__(slice(None), marked)


def _with_rules(death: Death, rule: Callable[[str, str], str]) -> Death:
    lost_requests = (
        replace(request, url_rule=rule(request.method, request.path.removeprefix(request.script_name)))
        for request in death.requests
    )
    return replace(death, requests=tuple(lost_requests))


def _lost_request(request: requests.InFlight, now: float) -> LostRequest:
    age = round(max(now - request.started, 0.0), 6)
    return LostRequest(
        request.request_id,
        request.method,
        request.path,
        request.script_name,
        age,
        request.state,
        request.is_answered,
    )


def _rings_of(directory: str, pid: int, wait: float) -> Iterator[tuple[int, int]]:
    """The number and the descriptor of each ring of this dead process, locked until the next one."""
    for number, descriptor in ring.descriptors(directory, KIND, os.O_RDWR):
        header = Header.of(os.pread(descriptor, HEADER, 0))
        if header is not None and header.owner == pid and guard.lock(descriptor, fcntl.LOCK_EX, wait):
            header = Header.of(os.pread(descriptor, HEADER, 0))
            if header is not None and header.owner == pid:  # no worker has taken it meanwhile
                yield number, descriptor


@contextmanager
def _lock_file(directory: str) -> Iterator[int]:
    """Open and lock the file: one process at a time buries workers and counts deaths."""
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
    """Write the latest deaths and all that are not counted yet, within the limits of the file.

    Raises OSError if the disk is full.
    """
    old = [death for death in deaths if death.counted][-_DEATHS_LIMIT:]
    new = [death for death in deaths if not death.counted]
    lines: list[bytes] = []
    size = 0
    for death in reversed(old + new):
        line = json.dumps(asdict(death)).encode() + b"\n"
        size += len(line)
        if size > _BYTES:
            break
        lines.insert(0, line)
    content = b"".join(lines)
    if os.pwrite(descriptor, content, 0) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), FILE)
    os.ftruncate(descriptor, len(content))
