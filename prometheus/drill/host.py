"""The host under drill: a real but small disk, and a /proc that the drill writes.

To use up the machine's real processors and memory would disturb whatever else runs on it.
"""

import os
import threading
import time
from pathlib import Path

from prometheus.run.children import Part
from prometheus.tools.toolbox import executable

DISK = 8 << 20  # bytes
MEMORY = 4 << 20  # kB
HERTZ = 100

# The mount is visible only to node exporter, and through its root directory, so it needs no rights.
START = 'mount -t tmpfs -o size="$1" drill "$2" && shift 2 && exec "$@"'


class Host:
    """The host that node exporter sees. `busy` and `available` (kB of memory) may change at any time."""

    def __init__(self, directory: Path) -> None:
        self.busy, self.available = False, MEMORY // 4
        self._proc, self._mount = directory / "proc", directory / "disk"
        (self._proc / "1").mkdir(parents=True)
        self._mount.mkdir()
        (self._proc / "1/mountinfo").write_text(
            f"36 25 0:50 / {self._mount} rw,relatime - tmpfs drill rw,size={DISK >> 10}k\n"
        )
        self._idle = 0.0
        self._write()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def part(self, address: str) -> Part:
        """Return the process of this host's node exporter."""
        return Part(
            "node-exporter",
            (
                *(
                    "unshare",
                    "--map-root-user",
                    "--mount",
                    "sh",
                    "-c",
                    START,
                    "sh",
                    str(DISK),
                    str(self._mount),
                ),
                str(executable("node_exporter")),
                f"--web.listen-address={address}",
                f"--path.procfs={self._proc}",
                "--collector.disable-defaults",
                *(f"--collector.{name}" for name in ("cpu", "filesystem", "meminfo")),
            ),
            health=f"http://{address}/metrics",
        )

    def disk(self, process: int) -> Path:
        """Return the directory of the disk, seen through the root of node exporter's process."""
        return Path(f"/proc/{process}/root{self._mount}")

    def close(self) -> None:
        """Stop writing /proc."""
        self._stop.set()
        self._thread.join()

    def _live(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.2):
            now = time.monotonic()
            self._idle += 0.0 if self.busy else (now - last) * HERTZ * 0.9
            last = now
            self._write()

    def _write(self) -> None:
        processors = "".join(f"cpu{n} 1000 0 1000 {int(self._idle)} 0 0 0 0 0 0\n" for n in range(2))
        self._replace("stat", f"cpu 2000 0 2000 {int(2 * self._idle)} 0 0 0 0 0 0\n{processors}")
        self._replace("meminfo", f"MemTotal: {MEMORY} kB\nMemAvailable: {self.available} kB\n")

    def _replace(self, name: str, text: str) -> None:
        """Replace a file in one step, so that nobody reads half of it."""
        new = self._proc / f"{name}.new"
        new.write_text(text)
        os.replace(new, self._proc / name)
