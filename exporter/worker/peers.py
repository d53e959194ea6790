"""Peers: other processes that serve the same application on the same address and count for themselves.

`wsgi.multiprocess` does not tell: bridges from ASGI say True with one process, granian says False with two.
So each process that serves holds read locks on two bytes of a file that nobody else opens; their numbers are
digests of the application with its address, and with the socket that listens there. A process that would
block a write lock on both is a peer: one that blocks the first alone has left the address, and only answers
its last requests. Nothing is written, the locks end with their process, and a forked child has none.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import forks
from exporter.posix import fcntl

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_FILE = Path(__file__).parents[1] / "py.typed"
_TABLES = {"tcp": (3, "0A", 1, 9), "tcp6": (3, "0A", 1, 9), "unix": (3, "00010000", 6, 6)}
"""Files of /proc/net: column and value of the state "listening", and the columns of address and inode."""


class Peers:
    """The other processes that serve the same applications as this one."""

    def __init__(self) -> None:
        self.after_fork()
        forks.forget(self)

    def after_fork(self) -> None:
        """Serve nothing yet."""
        self._places: set[tuple[str, str]] = set()
        self._is_for_one = False

    def join(self, environ: WSGIEnvironment, application: str) -> None:
        """Serve an application from now on, on the address of the request `environ`. Raises OSError."""
        # The next request has another process: CGI, and Werkzeug's server with `processes`.
        forks_each_time = "werkzeug.socket" in environ and environ.get("wsgi.multiprocess")
        self._is_for_one = bool(environ.get("wsgi.run_once") or forks_each_time)
        service = f"{application}\0{_network()}"
        self._places.update([(service, place) for place in _places(environ)])
        self._hold()

    def present(self) -> bool:
        """Whether there are any peers. Raises OSError."""
        self._hold()
        return self._is_for_one or any(
            _is_shared(service, socket)
            for service, place in tuple(self._places)  # another thread may join
            if _is_shared(service, place)
            for socket in _sockets(place)
        )

    def _hold(self) -> None:
        """Hold the locks, which are lost when anything else in the process closes the file."""
        if fcntl is not None:  # else Windows, where no server forks
            for place in tuple(self._places):
                fcntl.lockf(_file.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _byte(*place))


class _File:
    """The file's descriptor: one a process, because closing another one would end all of its locks."""

    def __init__(self) -> None:
        self._descriptor = -1
        forks.forget(self)

    @property
    def descriptor(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open(_FILE if _FILE.exists() else sys.executable, os.O_RDONLY)
            forks.keep(self._descriptor)
        return self._descriptor

    def after_fork(self) -> None:
        self._descriptor = -1


_file = _File()


def _is_shared(service: str, place: str) -> bool:
    """Whether another process holds the lock on the byte of this place."""
    if fcntl is None:
        return False
    at = _byte(service, place)
    descriptor = _file.descriptor
    if sys.platform == "linux":  # struct flock
        query = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
        kind = struct.unpack("hhqqi", fcntl.fcntl(descriptor, fcntl.F_GETLK, query))[0]
    else:
        query = struct.pack("qqihh", at, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
        kind = struct.unpack("qqihh", fcntl.fcntl(descriptor, fcntl.F_GETLK, query))[3]
    return bool(kind != fcntl.F_UNLCK)


def _byte(service: str, place: str) -> int:
    digest = sha256(f"{service} {place}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:7], "big")


def _network() -> str:
    """The network of the addresses: the file may lie on a disk that containers or machines share."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return f"{boot}{os.stat('/proc/self/ns/net').st_ino}"
    return ""


def _places(environ: WSGIEnvironment) -> set[str]:
    """The addresses on which the request may have arrived, and the sockets of this process there.

    A process without any gets its requests from its parent, which tells whether there may be others.
    """
    inodes = set()
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                inodes.add(os.readlink(f"/proc/self/fd/{name}"))
    mine = [(address, socket) for address, socket in _listening() if socket in inodes]
    port = f":{int(environ['SERVER_PORT']):04X}" if str(environ.get("SERVER_PORT")).isdecimal() else "none"
    places = [place for place in mine if place[0].endswith(port)] or mine
    if not places and environ.get("wsgi.multiprocess"):
        return {f"child of {os.getppid()}"}
    return {*chain.from_iterable(places)}


def _sockets(place: str) -> list[str]:
    """The sockets that listen on an address now; a socket, or another place, itself."""
    return [socket for address, socket in _listening() if address == place] or [place]


def _listening() -> Iterator[tuple[str, str]]:
    """All addresses and sockets that listen, from /proc: asking a socket could change its time-out."""
    for protocol, (column, state, address, inode) in _TABLES.items():
        with suppress(OSError), open(f"/proc/self/net/{protocol}", "rb") as table:
            for line in table:
                columns = line.decode("utf-8", "replace").split()
                if columns[column] == state:
                    yield f"{protocol} {columns[address]}", f"socket:[{columns[inode]}]"
