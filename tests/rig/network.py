"""Free ports, and documents over HTTP."""

import itertools
import json
import os
import random
import socket
import urllib.error
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.request import Request, urlopen

PORTS = range(11_000, 32_768)
"""Ports that Linux gives to nobody who asks for any port, nor to a connection, and Chromium visits all."""


def _circle() -> Iterator[int]:
    """Ports from a random one on, round and round; other processes of pytest-xdist have others."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = PORTS[process :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    first = random.SystemRandom().randrange(len(ports))
    return itertools.cycle([*ports[first:], *ports[:first]])


_next = _circle()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listened on a moment ago, and that no other test gets before it listens."""
    ports: list[int] = []
    while len(ports) < count:
        with suppress(OSError), socket.socket() as listener:
            port = next(_next)
            listener.bind(("127.0.0.1", port))
            ports.append(port)
    return ports


def get_json(url: str) -> Any:
    """The JSON document at `url`."""
    with urlopen(url, timeout=10) as answer:
        return json.load(answer)


def status(request: str | Request) -> int:
    """The status of the answer; 0 where there is none."""
    try:
        with urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0
