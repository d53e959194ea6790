"""Free ports, and documents over HTTP."""

import json
import socket
import urllib.error
from contextlib import ExitStack
from typing import Any
from urllib.request import Request, urlopen


def free_ports(count: int) -> list[int]:
    """Ports that nothing listened on a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


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
