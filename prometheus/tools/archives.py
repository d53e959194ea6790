"""Official release archives: download, comparison with the published checksum, unpacking."""

import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus.tools.packages import Package, UnavailableError

BLOCK = 1 << 20
ARCHIVE_LIMIT = 1 << 30
CHECKSUMS_LIMIT = 1 << 20
SLOWEST = 10_000  # bytes a second, on average, after the first `timeout` seconds


@dataclass(slots=True)
class Archives:
    """Gets packages from their projects' sites, or from one mirror with the same paths.

    `base` replaces the projects' addresses; `timeout` (seconds) bounds connecting and each wait for data.
    A site that does not answer is tried only once, although several packages come from it.
    """

    base: str | None = None
    timeout: float = 10.0
    _silent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls) -> "Archives":
        """Read STACK_ARCHIVES (an address) and STACK_ARCHIVES_TIMEOUT (seconds)."""
        setting = os.environ.get("STACK_ARCHIVES_TIMEOUT", "10")
        try:
            timeout = float(setting)
        except ValueError:
            timeout = 0.0
        if not 0 < timeout <= 3600:
            raise SystemExit(
                f"STACK_ARCHIVES_TIMEOUT={setting!r} is not a number of seconds above 0, up to 3600"
            )
        return cls(os.environ.get("STACK_ARCHIVES") or None, timeout)

    def get(self, package: Package, staging: Path) -> None:
        """Put the package's executables (or its tree) into `staging`; raise UnavailableError otherwise."""
        if not package.version:
            raise UnavailableError("its project publishes no such archive")
        site = (self.base or package.site).rstrip("/")
        if site in self._silent:
            raise UnavailableError(self._silent[site])
        checksum = self._checksum(site, package)
        file = staging / "archive.tar.gz"
        try:
            digest = self._download(site, package.archive, file)
            if digest != checksum:
                raise UnavailableError(
                    f"{site}/{package.archive} has SHA-256 {digest}, the release publishes {checksum}"
                )
            _unpack(package, file, staging)
        finally:
            file.unlink(missing_ok=True)

    def _checksum(self, site: str, package: Package) -> str:
        name = package.archive.rpartition("/")[2]
        text = b"".join(self._blocks(site, package.checksums, CHECKSUMS_LIMIT)).decode(errors="replace")
        for line in text.splitlines():
            fields = line.split()
            # Grafana publishes a file for each archive, with nothing but the digest.
            if fields[1:] == [name] or (package.tree and len(fields) == 1):
                return fields[0].lower()
        raise UnavailableError(f"{site}/{package.checksums} has no checksum for {name}")

    def _download(self, site: str, path: str, file: Path) -> str:
        """Download into `file`, and return its SHA-256."""
        digest = hashlib.sha256()
        with file.open("wb") as out:
            for block in self._blocks(site, path):
                digest.update(block)
                out.write(block)
        return digest.hexdigest()

    def _blocks(self, site: str, path: str, limit: int = ARCHIVE_LIMIT) -> Iterator[bytes]:
        """The blocks that the site sends, within limits of size and time."""
        size = 0
        start = time.monotonic()
        with self._open(site, path) as answer:
            try:
                while block := answer.read1(BLOCK):
                    size += len(block)
                    if size > limit:
                        raise UnavailableError(f"{site}/{path} has more than {limit} bytes")
                    if size < (time.monotonic() - start - self.timeout) * SLOWEST:
                        raise UnavailableError(f"{site}/{path} is too slow: {size} bytes so far")
                    yield block
            except (OSError, http.client.HTTPException) as error:
                raise UnavailableError(f"{site}/{path} broke off after {size} bytes: {error}") from error
            length = answer.headers.get("Content-Length")
        if length is not None and length != str(size):
            raise UnavailableError(f"{site}/{path} ended after {size} of {length} bytes")

    def _open(self, site: str, path: str) -> http.client.HTTPResponse:
        try:
            # The address is a setting of the operator, never input.
            answer: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
                f"{site}/{path}", timeout=self.timeout
            )
        except urllib.error.HTTPError as error:
            error.close()
            raise UnavailableError(f"{site}/{path} answered {error.code}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            self._silent[site] = f"{site} gave no answer: {reason}"
            raise UnavailableError(self._silent[site]) from error
        return answer


def _unpack(package: Package, file: Path, staging: Path) -> None:
    top = "" if package.project == "VictoriaMetrics" else f"{package.name}-{package.version}"
    try:
        with tarfile.open(file) as archive:
            if package.tree:
                # Python before 3.10.12 and 3.11.4, as Debian 12 has it, knows no filters and ignores this.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(staging)  # noqa: S202  its programs are run, so it is trusted
                (tree,) = (entry for entry in staging.iterdir() if entry.is_dir())
                tree.rename(staging / package.name)
                return
            for member in archive:
                directory, _, file_name = member.name.rpartition("/")
                name = file_name.removesuffix("-prod")
                if name in package.executables and directory.startswith(top) and member.isfile():
                    source = archive.extractfile(member)
                    assert source is not None  # noqa: S101 (isfile() was true)
                    with source, (staging / name).open("wb") as out:
                        shutil.copyfileobj(source, out)
                    (staging / name).chmod(0o755)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise UnavailableError(f"{file.name} of {package.name} cannot be unpacked: {error}") from error
