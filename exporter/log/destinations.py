"""Destinations: where log lines go, which is a file, standard output, or syslog."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import stat
import time
from typing import Protocol
from urllib.parse import urlsplit

from exporter import posix
from exporter.log.rotating import RotatingFile, UnsharedFile
from exporter.settings import Settings, SettingsError

_USER_FACILITY = 1 << 3  # RFC 5424, section 6.2.1
_STDOUT = 1
# The wait for a full pipe (ms), which happens once: from then on lines are lost until it has room again.
_PATIENCE = 1000
_PIPE = 4096  # bytes: PIPE_BUF
# A UDP packet has 65,535 bytes with its headers; a Unix socket takes more.
_DATAGRAM = 65_000


class Destination(Protocol):
    """A place for log lines, each of ASCII with a line feed at its end."""

    def write(self, line: bytes, severity: int) -> None:
        """Hand over one line of this syslog severity (0 to 7); raises OSError if it is lost."""

    def close(self) -> None:
        """Release the file or socket."""


def destination(settings: Settings) -> Destination | None:
    """The destination that `settings.request_log` names, ready to write; None where it is off.

    Raises SettingsError if it cannot be used.
    """
    target = settings.request_log
    try:
        if target == "off":
            return None
        if target == "stdout":
            return Stdout()
        if target.startswith("syslog:"):
            return Syslog(target)
        file = RotatingFile if posix.fcntl else UnsharedFile
        return file(target, settings.log_max_bytes, settings.log_backups)
    except (OSError, ValueError) as error:
        raise SettingsError(
            "EXPORTER_REQUEST_LOG",
            target,
            f"{error}; give off, stdout, a file in a directory that exists and can be written, or "
            "syslog://host:port or syslog:///dev/log",
        ) from error


class Stdout:
    """Standard output. In a pipe, lines of up to 4,096 bytes never mix with those of other processes."""

    def __init__(self) -> None:
        self._is_full = False
        self._is_mid_line = False
        self._poll = None
        # A regular file never makes a writer wait, and Windows has no poll().
        if hasattr(select, "poll") and not stat.S_ISREG(os.fstat(_STDOUT).st_mode):
            self._poll = select.poll()
            self._poll.register(_STDOUT, select.POLLOUT)

    def write(self, line: bytes, severity: int) -> None:  # noqa: ARG002  a stream has none
        """Write one line; raises OSError, and loses the line, if nobody reads from the pipe."""
        rest = b"\n" + line if self._is_mid_line else line
        while rest:
            if self._poll is not None and not self._poll.poll(0 if self._is_full else _PATIENCE):
                self._is_full = True
                raise OSError(errno.EAGAIN, "nobody reads the standard output")
            # A pipe with room takes at least this many bytes at once.
            size = os.write(_STDOUT, rest[:_PIPE])
            rest = rest[size:]
            self._is_full, self._is_mid_line = False, bool(rest)

    def close(self) -> None:
        """Leave standard output open, because others use it too."""


class Syslog:
    """A syslog daemon: RFC 5424 over UDP, or the local format over a Unix socket."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._local = not parts.hostname
        self._address: str | tuple[object, ...]
        if not parts.hostname:
            if not parts.path.strip("/"):
                raise ValueError("no host and no socket is named")
            if not hasattr(socket, "AF_UNIX"):
                raise ValueError("this system has no Unix sockets")
            family, self._address = socket.AF_UNIX, parts.path
        else:
            addresses = socket.getaddrinfo(parts.hostname, parts.port or 514, type=socket.SOCK_DGRAM)
            family, _, _, _, self._address = addresses[0]
        self._host = socket.gethostname() or "-"
        # Not connected, so that a new daemon at the address gets the lines after a restart.
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)  # a daemon that does not read costs lines, not requests

    def write(self, line: bytes, severity: int) -> None:
        """Send one datagram without the line feed; the longest texts are cut to make it fit."""
        now = time.time()
        if self._local:  # the form of glibc's syslog(), which journald and rsyslog expect on their socket
            stamp = time.strftime("%b %e %H:%M:%S", time.localtime(now))
            header = f"<{_USER_FACILITY | severity}>{stamp} flask[{os.getpid()}]: "
        else:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            header = f"<{_USER_FACILITY | severity}>1 {stamp}Z {self._host} flask {os.getpid()} - - "
        line = line.rstrip(b"\n")
        if len(line) > _DATAGRAM:
            line = shorten(line, _DATAGRAM)
        self._socket.sendto(header.encode() + line, self._address)

    def close(self) -> None:
        self._socket.close()


def shorten(line: bytes, limit: int) -> bytes:
    """The JSON object of a line in at most `limit` bytes, with its longest texts cut.

    The end of each text stays, because a traceback names the error there.
    """
    fields = json.loads(line)
    while len(line) > limit:
        name = max(fields, key=lambda name: len(json.dumps(fields[name])))
        text = str(fields[name])
        width = len(json.dumps(text)) / (len(text) + 1)  # bytes a character
        cut = int((len(line) - limit) / width) + 8
        if cut >= len(text):
            raise OSError(errno.EMSGSIZE, "the line has too many fields for a datagram")
        fields[name] = "…" + text[cut:]
        line = json.dumps(fields, separators=(",", ":")).encode()
    return line
