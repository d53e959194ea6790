"""Ports of a run: whether they are free, and the process that holds a taken one."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from prometheus.run.plan import PORTS, Plan, PlanError

_LISTEN = "0A"  # the state in /proc/net/tcp


def check(plan: Plan, parts: set[str]) -> None:
    """Raise PlanError if ports of these parts cannot be used; the message names all of them."""
    complaints = []
    for address, setting in PORTS.items():
        part = address.partition(":")[0]
        reason = _reason(plan.ports[part]) if part in parts else None
        if reason:
            complaints.append(f"port {plan.ports[part]} for {part} ({setting}) {reason}")
    if complaints:
        raise PlanError(f"{'; '.join(complaints)}: end what listens there, or move all with PORT_OFFSET=1000")


def _reason(port: int) -> str | None:
    """The reason why the port cannot be used, or None."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"is taken{holder(port)}"
            return f"cannot be used ({error.strerror})"
    return None


def holder(port: int) -> str:
    """` by pid 12 (its command)` of the process that listens on the port; "" if the system hides it."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for directory in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):
            if any(os.readlink(descriptor) in sockets for descriptor in (directory / "fd").iterdir()):
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f" by pid {directory.name} ({command.strip()[:80]})"
    return ""


def _inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
