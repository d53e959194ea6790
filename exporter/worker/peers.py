"""Peers: other processes that serve the same application on the same address and count for themselves.

`wsgi.multiprocess` does not tell: bridges from ASGI say True with one process, granian says False with two.
So each process that serves holds a read lock on one byte of a file that nobody else opens; the number of the
byte is a digest of the application and its address. A process that would block a write lock is a peer.
Nothing is written, the locks end with their process, and a forked child has none.
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
_TABLES = {"tcp": (3, "0A", 1, 9), "tcp6": (3, "0A", 1, 9), "unix": (3, "00010000", 6, 6)}
"""Files of /proc/net: column and value of the state "listening", and the columns of address and inode."""


class Peers:
    """The other processes that serve the same applications as this one."""

    def __init__(self) -> None:
        self.after_fork()
        forks.forget(self)

    def after_fork(self) -> None:
        """Serve nothing yet."""
        self._bytes: set[int] = set()
        self._is_for_one = False

    def join(self, environ: WSGIEnvironment, application: str) -> None:
        """Serve an application from now on, on the address of the request `environ`. Raises OSError."""
        # The next request has another process: CGI, and Werkzeug's server with `processes`.
        forks_each_time = "werkzeug.socket" in environ and environ.get("wsgi.multiprocess")
        self._is_for_one = bool(environ.get("wsgi.run_once") or forks_each_time)
        for place in _places(environ):
            digest = sha256(f"{application}\0{place}".encode("utf-8", "replace")).digest()
            self._bytes.add(int.from_bytes(digest[:7], "big"))
        self.present()

    def present(self) -> bool:
        """Whether there are any peers. Raises OSError."""
        count = sum(map(_lock, self._bytes))  # any() would not renew each lost lock
        return count > 0 or self._is_for_one


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


def _lock(at: int) -> bool:
    """Hold the lock on this byte, and tell whether another process holds one, too."""
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
    """The addresses on which the request may have arrived, each with the network that it belongs to.

    A process without any gets its requests from its parent, which tells whether there may be others.
    """
    sockets = list(_listen_addresses())
    port = f":{int(environ['SERVER_PORT']):04X}" if str(environ.get("SERVER_PORT")).isdecimal() else "none"
    addresses = [address for address in sockets if address.endswith(port)] or sockets
    if not addresses and environ.get("wsgi.multiprocess"):
        addresses = [f"child of {os.getppid()}"]
    network = ""
    with suppress(OSError):  # the file may lie on a disk that containers or machines share
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        network = f"{boot}{os.stat('/proc/self/ns/net').st_ino}"
    for address in addresses:
        yield f"{network} {address}"


def _listen_addresses() -> Iterator[str]:
    """The addresses on which this process listens, from /proc: asking a socket could change its time-out."""
    inodes = set()
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                inodes.add(os.readlink(f"/proc/self/fd/{name}"))
    for protocol, (column, state, address, inode) in _TABLES.items():
        with suppress(OSError), open(f"/proc/self/net/{protocol}", "rb") as table:
            for line in table:
                columns = line.decode("utf-8", "replace").split()
                if columns[column] == state and f"socket:[{columns[inode]}]" in inodes:
                    yield f"{protocol} {columns[address]}"
