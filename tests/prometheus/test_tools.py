"""`.tools/` is filled from the first source that has a fit program, and never with half of one."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prometheus.tools.__main__ import main
from prometheus.tools.archives import Archives
from prometheus.tools.packages import (
    ALERTMANAGER,
    COMPOSE,
    GRAFANA,
    KUBECTL,
    NGINX,
    NODE,
    PROMETHEUS,
    VICTORIAMETRICS,
    VMUTILS,
    Package,
    UnavailableError,
)
from prometheus.tools.toolbox import fill, gave_up

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site(ThreadingHTTPServer):
    """A site of release archives that the test owns: a path has a body, or a way to misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, bytes | Answer] = {}
        self.asked: list[str] = []
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, package: Package, files: dict[str, str]) -> None:
        """Offer the package's archive with these files in it, and its checksum."""
        body = archive(package, files)
        name = package.archive.rpartition("/")[2]
        digest = hashlib.sha256(body).hexdigest()
        self.answers[f"/{package.archive}"] = body
        line = digest if package.tree else f"{'0' * 64}  other.tar.gz\n{digest}  {name}"
        self.answers[f"/{package.checksums}"] = f"{line}\n".encode()


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(404)
        elif isinstance(answer, bytes):
            self.begin(len(answer))
            self.wfile.write(answer)
        else:
            answer(self)

    def begin(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def silence(handler: BaseHTTPRequestHandler) -> None:
    """Accept, read the request, and say nothing until the test is over."""
    assert isinstance(handler, Handler)
    handler.server.over.wait(30)


def half_of(body: bytes) -> Answer:
    """Promise the whole body, send the first half and hang up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert isinstance(handler, Handler)
        handler.begin(len(body))
        handler.wfile.write(body[: len(body) // 2])

    return answer


def stalled(body: bytes) -> Answer:
    """Promise the whole body, send the first half and keep the line open."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        half_of(body)(handler)
        handler.wfile.flush()
        silence(handler)

    return answer


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """Promise a megabyte, and send a byte now and then."""
    assert isinstance(handler, Handler)
    handler.begin(1 << 20)
    with suppress(OSError):
        while not handler.server.over.wait(0.05):
            handler.wfile.write(b"x")


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Send as much as the other end takes."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(bytes(1 << 16))


def program(version: str) -> str:
    """A program that says its version as Prometheus' do."""
    return f"#!/bin/sh\necho 'tool, version {version} (branch: HEAD)'\n"


def archive(package: Package, files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    flat = package.project == "VictoriaMetrics"
    top = "" if flat else f"{package.archive.rpartition('/')[2].removesuffix('.tar.gz')}/"
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{top}{name}")
            member.size = len(text.encode())
            member.mode = 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on the PATH: empty, so without apt too."""
    directory = tmp_path / "path"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def filled(
    tools: Path, site: Site, *packages: Package, timeout: float = 30.0
) -> tuple[dict[Package, str], set[str]]:
    """Fill `tools` from the site; what is missing, and the names that are now in `tools`."""
    missing = fill(packages, tools, Archives(site.address, timeout))
    return missing, set(os.listdir(tools)) - {".lock"}


def install(directory: Path, name: str, text: str) -> Path:
    file = directory / name
    file.write_text(text)
    file.chmod(0o755)
    return file


def version(file: Path) -> str:
    return subprocess.run([file, "--version"], capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("path")
class TestArchive:
    def test_good(self, site: Site, tmp_path: Path) -> None:
        """An archive with the published checksum gives its programs, and nothing else of it stays."""
        site.publish(PROMETHEUS, {name: program("3.13.2") for name in ("prometheus", "promtool", "NOTICE")})

        missing, names = filled(tmp_path / "tools", site, PROMETHEUS)

        assert missing == {}
        assert names == {"prometheus", "promtool"}
        assert version(tmp_path / "tools/promtool") == "tool, version 3.13.2 (branch: HEAD)\n"

    def test_victoriametrics(self, site: Site, tmp_path: Path) -> None:
        """Its archives have no directory, other names in them, and programs that tell a version otherwise."""
        for package in (VICTORIAMETRICS, VMUTILS):
            site.publish(
                package,
                {
                    f"{name}-prod": f"#!/bin/sh\necho {name}-20261101-tags-v1.150.0-0-gb7ef6cc3e"
                    for name in package.executables
                },
            )

        missing, names = filled(tmp_path / "tools", site, VICTORIAMETRICS, VMUTILS)

        assert missing == {}
        assert names == {"victoria-metrics", "vmagent", "vmalert", "vmalert-tool", "vmauth"}

    @pytest.mark.parametrize("has_filters", [True, False])
    def test_good_tree(
        self, has_filters: bool, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Grafana comes whole, under one name for every version, also with Python before 3.11.4."""
        if not has_filters:
            extractall = tarfile.TarFile.extractall
            monkeypatch.delattr(tarfile, "data_filter", raising=False)
            monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, path: extractall(self, path))
        site.publish(GRAFANA, {"bin/grafana": program("13.2.3"), "conf/defaults.ini": "[server]\n"})

        missing, names = filled(tmp_path / "tools", site, GRAFANA)

        assert missing == {}
        assert names == {"grafana"}
        assert (tmp_path / "tools/grafana/conf/defaults.ini").read_text() == "[server]\n"

    def test_kept(self, site: Site, tmp_path: Path) -> None:
        """What is in place is not asked for again."""
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        filled(tmp_path / "tools", site, NODE)
        asked = list(site.asked)

        missing, _ = filled(tmp_path / "tools", site, NODE)

        assert missing == {}
        assert site.asked == asked

    def test_wrong_checksum(self, site: Site, tmp_path: Path) -> None:
        """An archive that differs from what the release publishes is named with both sums, and not used."""
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        published = site.answers[f"/{NODE.checksums}"]
        assert isinstance(published, bytes)
        other = archive(NODE, {"node_exporter": program("1.9.2")})
        site.answers[f"/{NODE.archive}"] = other

        missing, names = filled(tmp_path / "tools", site, NODE)

        assert names == {"node_exporter.unavailable"}
        actual, expected = hashlib.sha256(other).hexdigest(), published.split()[2].decode()
        assert f"{NODE.archive} has SHA-256 {actual}, the release publishes {expected}\n" in missing[NODE]

    @pytest.mark.parametrize(
        ("misbehave", "timeout", "said"),
        [(half_of, 30.0, "ended after {half} of {all} bytes"), (stalled, 1.5, "broke off after ")],
    )
    def test_half_a_file(
        self, site: Site, tmp_path: Path, misbehave: Callable[[bytes], Answer], timeout: float, said: str
    ) -> None:
        """An archive that ends, or stalls, half-way is reported with its size, and nothing of it stays."""
        body = archive(NODE, {"node_exporter": program("1.9.1") + "#" * 100})
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        site.answers[f"/{NODE.archive}"] = misbehave(body)

        missing, names = filled(tmp_path / "tools", site, NODE, timeout=timeout)

        assert names == {"node_exporter.unavailable"}
        assert f"{NODE.archive} {said.format(half=len(body) // 2, all=len(body))}" in missing[NODE]

    def test_a_site_that_trickles_is_given_up(self, site: Site, tmp_path: Path) -> None:
        """Each byte comes in time, and all of them never would."""
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        site.answers[f"/{NODE.archive}"] = trickle

        missing, names = filled(tmp_path / "tools", site, NODE, timeout=1.5)

        assert names == {"node_exporter.unavailable"}
        assert f"{NODE.archive} is too slow: " in missing[NODE]

    @pytest.mark.parametrize("path", [NODE.checksums, NODE.archive])
    def test_a_file_without_an_end_is_given_up(
        self, site: Site, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Archives._blocks, "__defaults__", (10_000_000,))
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        site.answers[f"/{path}"] = endless

        with pytest.raises(UnavailableError, match=f"{path} has more than 10?"):
            Archives(site.address, 30.0).get(NODE, tmp_path)

    @pytest.mark.parametrize("length", ["abc", "-1", "1e3", "7"])
    def test_a_length_that_is_none(self, site: Site, tmp_path: Path, length: str) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", length)
            handler.end_headers()
            handler.wfile.write(b"0" * 64)

        site.answers[f"/{NODE.checksums}"] = answer
        with pytest.raises(UnavailableError, match=f"{site.address}/{NODE.checksums}"):
            Archives(site.address, 30.0).get(NODE, tmp_path)

    @pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "-1", "0", "soon"])
    def test_a_timeout_that_is_none(self, seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STACK_ARCHIVES_TIMEOUT", seconds)
        with pytest.raises(SystemExit, match="STACK_ARCHIVES_TIMEOUT"):
            Archives.load()

    def test_no_answer(self, site: Site, tmp_path: Path) -> None:
        """A site that accepts and says nothing costs one timeout, however many packages it should have."""
        site.answers = dict.fromkeys((f"/{PROMETHEUS.checksums}", f"/{NODE.checksums}"), silence)

        missing, names = filled(tmp_path / "tools", site, PROMETHEUS, NODE, timeout=0.2)

        assert site.asked == [f"/{PROMETHEUS.checksums}"]
        assert names == {"node_exporter.unavailable", "prometheus.unavailable"}
        reason = f"  release archive: {site.address} gave no answer: timed out"
        assert [reason in report.splitlines() for report in missing.values()] == [True, True]

    def test_not_published(self, site: Site, tmp_path: Path) -> None:
        """A site without the release is reported with its answer."""
        missing, _ = filled(tmp_path / "tools", site, NODE)

        assert f"{site.address}/{NODE.checksums} answered 404" in missing[NODE]

    def test_no_checksum(self, site: Site, tmp_path: Path) -> None:
        """An archive that the release publishes no checksum for is not even downloaded."""
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        site.answers[f"/{NODE.checksums}"] = f"{'0' * 64}  other.tar.gz\n".encode()

        missing, _ = filled(tmp_path / "tools", site, NODE)

        assert f"{NODE.checksums} has no checksum for {NODE.archive.rpartition('/')[2]}" in missing[NODE]
        assert f"/{NODE.archive}" not in site.asked

    def test_not_an_archive(self, site: Site, tmp_path: Path) -> None:
        """A page in place of the archive, checksum and all, is reported as such."""
        page = b"<html>log in first</html>"
        site.answers[f"/{NODE.archive}"] = page
        name = NODE.archive.rpartition("/")[2]
        site.answers[f"/{NODE.checksums}"] = f"{hashlib.sha256(page).hexdigest()}  {name}\n".encode()

        missing, names = filled(tmp_path / "tools", site, NODE)

        assert names == {"node_exporter.unavailable"}
        assert "release archive: archive.tar.gz of node_exporter cannot be unpacked" in missing[NODE]

    def test_half_a_package(self, site: Site, tmp_path: Path) -> None:
        """An archive without one of the programs gives neither of them."""
        site.publish(PROMETHEUS, {"prometheus": program("3.13.2")})

        _, names = filled(tmp_path / "tools", site, PROMETHEUS)

        assert names == {"prometheus.unavailable"}

    def test_does_not_run(self, site: Site, tmp_path: Path) -> None:
        """A program that does not run on this machine is not put in place."""
        site.publish(NODE, {"node_exporter": "#!/bin/sh\necho wrong libc >&2\nexit 1\n"})

        missing, names = filled(tmp_path / "tools", site, NODE)

        assert names == {"node_exporter.unavailable"}
        assert "node_exporter --version failed: wrong libc" in missing[NODE]


class TestPath:
    @pytest.mark.parametrize(
        ("package", "flags", "answer", "fit"),
        [
            (NGINX, "-v", "nginx version: nginx/1.30.6", True),
            (NGINX, "-v", "nginx version: nginx/1.22.1", False),
            (KUBECTL, "version --client", "Client Version: v1.36.4", True),
            (COMPOSE, "version", "Docker Compose version 2.40.3-3", True),
            (COMPOSE, "version", "Docker Compose version v2.20.0", False),
        ],
    )
    def test_each_is_asked_for_its_version_in_its_own_way(
        self, site: Site, tmp_path: Path, path: Path, package: Package, flags: str, answer: str, fit: bool
    ) -> None:
        """What has no archive is not looked for there."""
        install(path, package.name, f'#!/bin/sh\n[ "$*" = "{flags}" ] && echo "{answer}" >&2\n')

        missing, names = filled(tmp_path / "tools", site, package)

        assert names == {package.name if fit else f"{package.name}.unavailable"}
        assert ("its project publishes no such archive" in missing.get(package, "")) == (not fit)
        assert site.asked == []

    def test_first(self, site: Site, tmp_path: Path, path: Path) -> None:
        """A fit pair of programs on the PATH is used, and nothing downloaded."""
        for name in ("prometheus", "promtool"):
            install(path, name, program("3.5.0"))

        missing, names = filled(tmp_path / "tools", site, PROMETHEUS)

        assert missing == {}
        assert names == {"prometheus", "promtool"}
        assert (tmp_path / "tools/promtool").resolve() == (path / "promtool").resolve()
        assert site.asked == []

    def test_too_old(self, site: Site, tmp_path: Path, path: Path) -> None:
        """A Prometheus of another major version on the PATH is passed over, and said to be."""
        for name in ("prometheus", "promtool"):
            install(path, name, program("2.53.1"))

        missing, _ = filled(tmp_path / "tools", site, PROMETHEUS)

        file = (path / "prometheus").resolve()
        assert f"  PATH: {file} is version 2.53, needed is 3.0 or later, below 4.0" in missing[PROMETHEUS]

    def test_grafana_home(self, site: Site, tmp_path: Path, path: Path) -> None:
        """Grafana on the PATH is used with the directory that it was installed in."""
        home = tmp_path / "opt/grafana"
        (home / "bin").mkdir(parents=True)
        (home / "conf").mkdir()
        (home / "conf/defaults.ini").touch()
        (path / "grafana").symlink_to(install(home / "bin", "grafana", program("13.1.0")))

        missing, _ = filled(tmp_path / "tools", site, GRAFANA)

        assert missing == {}
        assert (tmp_path / "tools/grafana").resolve() == home.resolve()


class TestReport:
    @pytest.mark.usefixtures("path")
    def test_nothing_works(self, site: Site, tmp_path: Path) -> None:
        """The report names each source with its reason, and what to do."""
        missing, _ = filled(tmp_path / "tools", site, NODE)

        assert missing[NODE].splitlines() == [
            "node_exporter cannot be had. Tried:",
            "  PATH: no node_exporter",
            f"  release archive: {site.address}/{NODE.checksums} answered 404",
            "  Debian unstable: this machine has no apt",
            "Put node_exporter 1.8 or later on the PATH, "
            "or set STACK_ARCHIVES to a mirror of the release archives.",
        ]

    @pytest.mark.usefixtures("path")
    def test_remembered(self, site: Site, tmp_path: Path) -> None:
        """A package that could not be had is remembered as such for a day, or until it can be had."""
        tools = tmp_path / "tools"
        assert not gave_up(NODE, tools)
        filled(tools, site, NODE)
        assert gave_up(NODE, tools)

        os.utime(tools / "node_exporter.unavailable", (0, 0))
        assert not gave_up(NODE, tools)

        site.publish(NODE, {"node_exporter": program("1.9.1")})
        missing, names = filled(tools, site, NODE)
        assert missing == {}
        assert names == {"node_exporter"}

    @pytest.mark.usefixtures("path")
    def test_a_directory_that_cannot_be_written(self, site: Site, tmp_path: Path) -> None:
        """What is there already suffices, as for a user of somebody else's tools; the rest is named."""
        tools = tmp_path / "tools"
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        filled(tools, site, NODE)
        (tools / ".lock").unlink()
        (tools / ".lock").mkdir()  # root may write everywhere, but not here

        assert fill([NODE], tools) == {}
        report = fill([NODE, NGINX], tools)[NGINX]
        assert report == f"nginx cannot be put into {tools}: Is a directory"

    @pytest.mark.usefixtures("path")
    def test_leftovers(self, site: Site, tmp_path: Path) -> None:
        """What a killed run left half-written goes at the next."""
        (tmp_path / "tools/.partial-killed").mkdir(parents=True)
        (tmp_path / "tools/.partial-killed/archive.tar.gz").write_bytes(b"half")
        site.publish(NODE, {"node_exporter": program("1.9.1")})

        _, names = filled(tmp_path / "tools", site, NODE)

        assert names == {"node_exporter"}

    @pytest.mark.usefixtures("path")
    def test_command(
        self,
        site: Site,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The command takes the address of the archives from STACK_ARCHIVES and prints where programs are."""
        monkeypatch.setenv("STACK_ARCHIVES", site.address)
        site.publish(NODE, {"node_exporter": program("1.9.1")})
        tools = tmp_path / "tools"

        status = main(["node_exporter"], tools)

        assert status == 0
        assert capsys.readouterr().out == f"node_exporter\t{tools}/node_exporter\n"

    def test_bad_timeout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A timeout that is none ends the command with its name and value."""
        monkeypatch.setenv("STACK_ARCHIVES_TIMEOUT", "soon")

        with pytest.raises(
            SystemExit, match="STACK_ARCHIVES_TIMEOUT='soon' is not a number of seconds above 0"
        ):
            main(["node_exporter"], tmp_path)


@pytest.fixture
def debian(tmp_path: Path, path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose apt has one mirror configured, the test's; its unstable suite is what the test adds."""
    needed = ("apt-get", "dpkg", "dpkg-deb", "tar", "rm", "cat", "dirname", "unshare", "mount", "sh")
    lacking = [name for name in needed if shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin") is None]
    if lacking:
        assert os.environ.get("CI") != "true", f"CI needs {lacking}"
        pytest.skip(f"needs {', '.join(lacking)}")
    for name in needed:
        (path / name).symlink_to(str(shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin")))
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb {site.address}/debian stable main\n")
    config = tmp_path / "apt.conf"
    # Stands for the machine's own configuration; the packages of a test are not signed.
    config.write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\n'
        'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(config))
    return tmp_path / "debian"


def publish_deb(site: Site, root: Path, package: str, files: dict[str, str]) -> None:
    """Make a Debian package of the files and offer it as the mirror's unstable suite."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    control = (
        f"Package: {package}\nVersion: 1\nArchitecture: {architecture}\n"
        "Maintainer: Test <test@example.com>\nDescription: test\n"
    )
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(control)
    deb = root.with_suffix(".deb")
    subprocess.run(["dpkg-deb", "--build", root, deb], check=True, capture_output=True)
    body = deb.read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    listed = f"{control}Filename: pool/{package}.deb\nSize: {len(body)}\nSHA256: {digest}\n".encode()
    packages = f"main/binary-{architecture}/Packages"
    release = (
        f"Suite: unstable\nCodename: sid\nComponents: main\nArchitectures: {architecture}\n"
        "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"SHA256:\n {hashlib.sha256(listed).hexdigest()} {len(listed)} {packages}\n"
    )
    site.answers |= {
        f"/debian/pool/{package}.deb": body,
        f"/debian/dists/unstable/{packages}": listed,
        "/debian/dists/unstable/Release": release.encode(),
    }


class TestDebian:
    def test_after_archives(self, site: Site, tmp_path: Path, debian: Path) -> None:
        """Where the archives fail, the unstable suite of the machine's own mirror gives the program."""
        publish_deb(
            site,
            debian,
            "prometheus-node-exporter",
            {"usr/bin/prometheus-node-exporter": program("1.11.1")},
        )

        missing, names = filled(tmp_path / "tools", site, NODE)

        assert missing == {}
        assert names == {"node_exporter"}
        assert version(tmp_path / "tools/node_exporter") == "tool, version 1.11.1 (branch: HEAD)\n"

    def test_alertmanager_finds_its_templates(self, site: Site, tmp_path: Path, debian: Path) -> None:
        """Alertmanager sees its templates where it wants them, in the process that was started."""
        wanted = "/usr/share/prometheus/alertmanager/default.tmpl"
        publish_deb(
            site,
            debian,
            "prometheus-alertmanager",
            {
                "usr/bin/prometheus-alertmanager": f"{program('0.33.1')}cat {wanted}; echo $$ $1; pwd",
                "usr/bin/amtool": program("0.33.1"),
                wanted.lstrip("/"): "the templates\n",
            },
        )
        missing, names = filled(tmp_path / "tools", site, ALERTMANAGER)
        assert missing == {}
        assert names == {"alertmanager", "amtool", "debian-alertmanager"}

        command = [str(tmp_path / "tools/alertmanager"), "--config.file=a b"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            lines = process.communicate()[0].splitlines()

        # A machine that has templates of its own keeps them.
        templates = Path(wanted).read_text() if Path(wanted).exists() else "the templates"
        assert lines[1:] == [*templates.splitlines(), f"{process.pid} --config.file=a b", str(tmp_path)]

    def test_programs_that_tell_no_version(self, site: Site, tmp_path: Path, debian: Path) -> None:
        """Debian's VictoriaMetrics says nothing, or knows no such flag; its one package is two of ours.

        Without /sys/fs/cgroup/cpu.pressure each says so in a line of its log, on stderr.
        """
        log = "echo 'INFO: metrics: disable exposing PSI metrics' >&2\n"
        ignorant = f"#!/bin/sh\n{log}echo 'flag provided but not defined: -version' >&2\nexit 1\n"
        silent = f"#!/bin/sh\n{log}echo\n"
        files = {f"usr/bin/{name}": silent for name in ("victoria-metrics", *VMUTILS.executables)}
        publish_deb(site, debian, "victoria-metrics", {**files, "usr/bin/vmalert-tool": ignorant})

        missing, names = filled(tmp_path / "tools", site, VICTORIAMETRICS, VMUTILS)

        assert missing == {}
        assert names == {"victoria-metrics", *VMUTILS.executables}
        assert site.asked.count("/debian/pool/victoria-metrics.deb") == 1

    def test_a_program_that_fails_is_none_that_tells_no_version(
        self, site: Site, tmp_path: Path, debian: Path
    ) -> None:
        files = {"usr/bin/victoria-metrics": "#!/bin/sh\necho 'no such library' >&2\nexit 127\n"}
        publish_deb(site, debian, "victoria-metrics", files)

        missing, names = filled(tmp_path / "tools", site, VICTORIAMETRICS)

        assert names == {"victoria-metrics.unavailable"}
        assert "victoria-metrics --version failed: no such library" in missing[VICTORIAMETRICS]

    def test_a_program_that_is_a_link(self, site: Site, tmp_path: Path, debian: Path) -> None:
        """Debian's compose is a plugin of docker's, and a link to it."""
        (debian / "usr/bin").mkdir(parents=True)
        (debian / "usr/bin/docker-compose").symlink_to("../libexec/docker-compose")
        answer = "#!/bin/sh\necho 'Docker Compose version 2.40.3-3'\n"
        publish_deb(site, debian, "docker-compose", {"usr/libexec/docker-compose": answer})

        missing, names = filled(tmp_path / "tools", site, COMPOSE)

        assert (missing, names) == ({}, {"docker-compose"})

    @pytest.mark.usefixtures("debian")
    def test_mirror_without_it(self, site: Site, tmp_path: Path) -> None:
        """A mirror without the unstable suite is named."""
        missing, names = filled(tmp_path / "tools", site, NODE)

        assert names == {"node_exporter.unavailable"}
        assert (
            f"Debian unstable: apt-get: E: Failed to fetch {site.address}/debian/dists/unstable/"
            in missing[NODE]
        )
