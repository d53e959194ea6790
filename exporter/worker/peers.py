"""Peers: other processes that serve the same application on the same address and count for themselves.

`wsgi.multiprocess` does not tell: bridges from ASGI say True with one process, granian says False with two.
So each process that serves holds a read lock on one byte of a file that nobody else opens; which byte is a
digest of what it serves and where it listens. Who would be in the way of a write lock is a peer. Nothing is
written, the locks end with their process, and a forked child has none.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import forks
from exporter.posix import fcntl

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_FILE = Path(__file__).parents[1] / "py.typed"
_LISTENING = {"tcp": (3, "0A", 1, 9), "tcp6": (3, "0A", 1, 9), "unix": (3, "00010000", 6, 6)}
"""Files of /proc/net: the column and the value of listening, and the columns of address and inode."""


class Peers:
    """Other processes that serve what this one serves."""

    def __init__(self) -> None:
        self.after_fork()
        forks.forget(self)

    def after_fork(self) -> None:
        """Serve nothing yet."""
        self._bytes: set[int] = set()
        self._short_lived = False

    def join(self, environ: WSGIEnvironment, application: str) -> None:
        """Serve an application from now on, where the request of `environ` came in. Raises OSError."""
        self._short_lived = bool(environ.get("wsgi.run_once"))  # CGI: the next request has another process
        for place in _places(environ):
            digest = sha256(f"{application}\0{place}".encode("utf-8", "replace")).digest()
            self._bytes.add(int.from_bytes(digest[:7], "big"))
        self.present()

    def present(self) -> bool:
        """Whether there are any. Raises OSError."""
        locked = sum(map(_lock, self._bytes))  # all of them: a lock that was lost comes back
        return locked > 0 or self._short_lived


class _File:
    """The file's descriptor: one a process, because to close another one would end all of its locks."""

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


def _lock(at: int) -> bool:
    """Hold the lock on this byte; whether somebody else holds one, too."""
    if fcntl is None:  # Windows, where no server forks
        return False
    descriptor = _file.descriptor
    fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, at)
    if sys.platform == "linux":  # struct flock
        query = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
        kind = struct.unpack("hhqqi", fcntl.fcntl(descriptor, fcntl.F_GETLK, query))[0]
    else:
        query = struct.pack("qqihh", at, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
        kind = struct.unpack("qqihh", fcntl.fcntl(descriptor, fcntl.F_GETLK, query))[3]
    return bool(kind != fcntl.F_UNLCK)


def _places(environ: WSGIEnvironment) -> Iterator[str]:
    """The addresses on which the request may have come in, each with the network that it is an address of.

    A process that has none gets its requests from its parent, which says whether there may be others.
    """
    sockets = list(_listening())
    port = f":{int(environ['SERVER_PORT']):04X}" if str(environ.get("SERVER_PORT")).isdecimal() else "none"
    chosen = [address for address in sockets if address.endswith(port)] or sockets
    if not chosen and environ.get("wsgi.multiprocess"):
        chosen = [f"child of {os.getppid()}"]
    network = ""
    with suppress(OSError):  # the file may lie on a disk that containers or machines share
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        network = f"{boot}{os.stat('/proc/self/ns/net').st_ino}"
    for address in chosen:
        yield f"{network} {address}"


def _listening() -> Iterator[str]:
    """The addresses on which this process listens. From /proc: to ask a socket could change its time-out."""
    inodes = set()
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                inodes.add(os.readlink(f"/proc/self/fd/{name}"))
    for protocol, (state, listening, address, inode) in _LISTENING.items():
        with suppress(OSError), open(f"/proc/self/net/{protocol}", "rb") as table:
            for line in table:
                columns = line.decode("utf-8", "replace").split()
                if columns[state] == listening and f"socket:[{columns[inode]}]" in inodes:
                    yield f"{protocol} {columns[address]}"
