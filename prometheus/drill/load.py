"""Requests that the drill sends to a service for as long as a fault lasts."""

import threading
import time
from collections.abc import Sequence

from prometheus.drill.stack import Stack


class Load:
    """Sends requests to a service from `threads` threads, `rate` a second in all, to each path in turn.

    With `queue`, a header says that a proxy kept each request for so many seconds.
    """

    def __init__(
        self, service: str, paths: Sequence[str], *, rate: float = 30, threads: int = 1, queue: float = 0
    ) -> None:
        self._service, self._paths, self._rate, self._queue = service, paths, rate, queue
        self._count = threads
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, stack: Stack) -> None:
        """Begin to send."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._run, args=(stack,), daemon=True) for _ in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, _: Stack) -> None:
        """End, once the requests under way are answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, stack: Stack) -> None:
        count = 0
        while not self._stop.wait(self._count / self._rate):
            headers = {"X-Request-Start": f"t={time.time() - self._queue:.3f}"} if self._queue else {}
            stack.get(stack.url(self._service) + self._paths[count % len(self._paths)], headers=headers)
            count += 1
