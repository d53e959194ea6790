"""Damage that the drill does to services, files and Prometheus, and its repair."""

import json
import os
import shutil
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

from prometheus.drill.stack import Stack

# Prometheus loads this rule and cannot evaluate it: both sides of the match have several series.
BROKEN_RULE = """\
groups:
  - name: broken
    rules:
      - record: broken
        expr: up + on () up
"""


@dataclass(slots=True)
class Killer:
    """Kills the oldest worker of a service again and again; the others go on answering scrapes."""

    service: str
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, stack: Stack) -> None:
        """Begin to kill, in a thread."""
        self._thread = threading.Thread(target=self._run, args=(stack,), daemon=True)
        self._thread.start()

    def stop(self, _: Stack) -> None:
        """Let the workers live."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _run(self, stack: Stack) -> None:
        while not self._stop.wait(0.8):
            for worker in stack.workers_of(self.service)[:1]:
                os.kill(worker, signal.SIGKILL)


def do_nothing(_: Stack) -> None:
    """Do nothing: the cause of a fault that always exists, and the repair of one that needs none."""


def leak(stack: Stack, rate: int) -> None:
    """Let the service `sick` leak `rate` megabytes a second; 0 ends the leak."""
    stack.get(f"{stack.url('sick')}/drill/leak?rate={rate}", method="POST")


def exceed_cap(stack: Stack) -> None:
    """Send requests of more kinds than the series cap of the service `flaky` allows."""
    for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "POST", "BREW"):
        for path in ("/", "/orders", "/orders/1", "/orders/0", "/test/normal", "/test/notfound", "/nowhere"):
            stack.get(stack.url("flaky") + path, method=method)


def fill_disk(stack: Stack) -> None:
    """Write to the host's disk until nothing more fits."""
    with _filler(stack).open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"x" * 4096)
        except OSError:
            return


def clear_disk(stack: Stack) -> None:
    """Remove what `fill_disk` wrote."""
    _filler(stack).unlink()


def _filler(stack: Stack) -> Path:
    return stack.host.disk(stack.children.process("node-exporter")) / "filler"


def spoil_database(stack: Stack) -> None:
    """Put a file that is no database in the place of the orders of the service `sick`."""
    file = stack.database("sick")
    file.rename(file.with_suffix(".good"))
    file.write_bytes(b"no database" * 1000)


def restore_database(stack: Stack) -> None:
    """Give the service `sick` its orders back."""
    file = stack.database("sick")
    file.with_suffix(".good").replace(file)


def add_bad_block(stack: Stack) -> None:
    """Put a block without an index into Prometheus' data."""
    good = next(stack.plan.data("prometheus").glob("01*/meta.json"))
    bad = _bad_block(stack)
    meta = json.loads(good.read_text()) | {"ulid": bad.name}
    (bad / "chunks").mkdir(parents=True)
    (bad / "meta.json").write_text(json.dumps(meta))


def remove_bad_block(stack: Stack) -> None:
    """Remove the block that `add_bad_block` made."""
    shutil.rmtree(_bad_block(stack))


def _bad_block(stack: Stack) -> Path:
    return stack.plan.data("prometheus") / "01DRDRDRDRDRDRDRDRDRDRDRDR"


def break_rules(stack: Stack) -> None:
    """Add a rule that cannot be evaluated."""
    (stack.plan.configuration / "rules/broken.yml").write_text(BROKEN_RULE)
    stack.reload()


def mend_rules(stack: Stack) -> None:
    """Remove the rule that cannot be evaluated."""
    (stack.plan.configuration / "rules/broken.yml").unlink()
    stack.reload()


def break_configuration(stack: Stack) -> None:
    """Give Prometheus a configuration that it refuses."""
    file = stack.plan.configuration / "prometheus.yml"
    shutil.copy(file, file.with_suffix(".good"))
    file.write_text(file.read_text() + "\nnonsense: true\n")
    stack.reload()


def mend_configuration(stack: Stack) -> None:
    """Give Prometheus its good configuration back."""
    file = stack.plan.configuration / "prometheus.yml"
    file.with_suffix(".good").replace(file)
    stack.reload()
