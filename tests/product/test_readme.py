"""README.md and docs/ work as they are written: every code block is executed, every link leads somewhere."""

import configparser
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from exporter import Settings
from prometheus.run import dialect, preparation, targets
from prometheus.run.plan import PORTS, Plan
from prometheus.tools.packages import NGINX
from prometheus.tools.toolbox import executable, gave_up
from tests.rig.deadline import eventually
from tests.rig.network import free_ports, get_json, status
from tests.rig.places import ROOT
from tests.rig.program import handles
from tests.rig.readme import BLOCKS, NAMES, PAGES, Block, Page, shows
from tests.rig.terminal import await_200, environment, local, started

SHELL = [block for block in BLOCKS if block.language == "sh"]
FILES = [block for block in BLOCKS if block.file]

# What serves shop.py, until it is stopped.
SERVERS = [
    block
    for block in SHELL
    if re.search(
        r"^(\w+=\S+ )*(flask|gunicorn|uwsgi|uvicorn|python serve.py|python -m exporter run)", block.text, re.M
    )
]
COMPOSE = [block for block in SHELL if "docker compose" in block.text]
ALONE = [block for block in SHELL if re.match(r"RULE_JOBS=|python -m exporter capacity", block.text)]
SIGHTS = [block for block in SHELL if block.section == "What you see"]
STORY = [block for block in SHELL if block.section == "Break it"]
RUN = next(block for block in SHELL if block.text == "make run\n")
INSTALL = next(block for block in SHELL if block.text == "pip install .\n")


def followers() -> dict[Block, list[Block]]:
    """Servers and commands of the how-tos, each with the blocks after it, which look at what it does."""
    leaders: dict[Block, list[Block]] = {}
    for block in SHELL:
        if block in SERVERS or block in ALONE:
            leaders[block] = []
        elif block.page.startswith("docs/how-to/") and block not in COMPOSE:
            leader = list(leaders)[-1]
            assert leader.page == block.page, f"{block} follows no server and no command"
            leaders[leader].append(block)
    return leaders


FOLLOWERS = followers()
LOOKS = [block for blocks in FOLLOWERS.values() for block in blocks]

# Requests to the application in a file, and what the metrics say of them.
APPLICATIONS = {
    "shop.py": (["GET /items/7"], ['flask_http_request_total{method="GET",status="200"} 1.0']),
    "apache.py": (
        ["GET /items/7"],
        [
            'flask_http_request_total{method="GET",status="200"} 1.0',
            'flask_exporter_mode{mode="multiprocess"} 1.0',
        ],
    ),
    "wsgi.py": (
        ["GET /hello/7"],
        ['flask_http_request_duration_seconds_count{method="GET",status="200",url_rule="/hello/<id>"} 1.0'],
    ),
    "factory.py": (["GET /nowhere"], ['flask_http_request_total{method="GET",status="404"} 1.0']),
    "orders.py": (
        ["POST /orders", "GET /internal"],
        [
            'flask_http_request_total{method="POST",status="201"} 1.0',
            'flask_http_request_total{method="GET",status="200"} 0.0',
            'shop_orders_total{status="201"} 1.0',
            'shop_order_seconds_count{item="tea"} 1.0',
            'flask_health_check_up{check="database"} 1.0',
            'flask_app_info{version="1.4.2"} 1.0',
        ],
    ),
    "migrated.py": (
        ["GET /nowhere"],
        ['flask_http_request_duration_seconds_count{method="GET",path="/nowhere",status="404"} 1.0'],
    ),
}
ASK = """
import importlib, sys
from werkzeug.test import Client
module = importlib.import_module(sys.argv[1])
names = [name for name in ("app", "application") if hasattr(module, name)]
client = Client(getattr(module, names[0]) if names else module.create_app())
for request in sys.argv[2:]:
    method, path = request.split()
    client.open(path, method=method, data={"item": "tea"})
print(client.get("/metrics", environ_base={"REMOTE_ADDR": "127.0.0.1"}).text)
"""


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack: the ports of the pages → those used, and what the pages call .run."""

    ports: Mapping[str, int]
    run: Path


def unpack(directory: Path, port: int) -> None:
    """Write the pages' files into the directory, with another port than 8001."""
    for block in FILES:
        file = directory / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(local(block.text, {"8001": port}, directory))


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """Files are there, anchors are headings, and addresses of the README are those of the stack."""
    page = Page(name)
    for target in page.links():
        if "://" in target:
            assert name != "README.md" or target.startswith("http://127.0.0.1:"), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        assert file.exists(), target
        assert not anchor or anchor in Page(str(file.relative_to(ROOT))).anchors(), target


def test_named_pages_exist() -> None:
    """Those that messages, comments and configurations name."""
    grep = ["git", "grep", "--untracked", "-hoIP", r"(?<![/\w])docs/[a-z/-]+\.md\b"]
    named = subprocess.check_output(grep, cwd=ROOT, text=True).split()

    assert {"docs/how-to/access.md"} <= set(named)
    assert [name for name in set(named) if not (ROOT / name).exists()] == []


def test_every_block_is_executed() -> None:
    """There is a test for each; a block of a new kind needs one."""
    programs = {block.file for block in FILES if any(block.file in shell.text for shell in SERVERS)}
    python = {block.file for block in BLOCKS if block.language == "python"}

    blocks = [*SERVERS, *LOOKS, *ALONE, *COMPOSE, *SIGHTS, *STORY, RUN, INSTALL]
    assert sorted(map(str, blocks)) == sorted(map(str, SHELL))
    assert {block.language for block in BLOCKS} == {"sh", "python", "ini", "nginx", "yaml"}
    assert python == {*APPLICATIONS, "serve.py", "gunicorn.conf.py", "asgi.py", ""}
    assert programs >= {"serve.py", "uwsgi.ini"}
    assert not any(block.file.startswith("/") for block in FILES)  # they are written into a directory
    assert len({block.file for block in FILES}) == len({(block.file, block.text) for block in FILES})
    assert {block for block in BLOCKS if block.output} <= {RUN, *SIGHTS, *STORY, *ALONE, *LOOKS}


@pytest.mark.parametrize("file", APPLICATIONS)
def test_application(tmp_path: Path, file: str) -> None:
    """Its requests are measured, and what else it declares is in the metrics."""
    unpack(tmp_path, 8001)
    (tmp_path / "gunicorn.conf.py").unlink()
    requests, expected = APPLICATIONS[file]
    command = [sys.executable, "-W", "error", "-c", ASK, file.removesuffix(".py"), *requests]
    answer = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert answer.returncode == 0, answer.stderr
    assert set(expected) <= set(answer.stdout.splitlines())


@pytest.mark.parametrize("block", SERVERS, ids=str)
def test_server(tmp_path: Path, block: Block) -> None:
    """It serves, shows what its page says, its metrics have every request of every worker, Ctrl-C ends it."""
    (port,) = free_ports(1)
    unpack(tmp_path, port)
    if "gunicorn shop:app" not in block.text:
        (tmp_path / "gunicorn.conf.py").unlink()
    url = f"http://127.0.0.1:{port}"
    looks = FOLLOWERS.get(block, [])
    has_jq = shutil.which("jq") is not None or not any("jq" in look.text for look in looks)
    with started(local(block.text, {"8001": port}, tmp_path), tmp_path, environment()) as output:
        await_200(f"{url}/health/ready", 60, output)
        if "uwsgi" in block.text:
            eventually(lambda: hears_signals(output), "uWSGI's master hears signals", 30)
        for look in looks if has_jq else ():
            # A line is logged after its answer.
            eventually(lambda look=look: sees(look, tmp_path, port), f"{look} says {look.output}", 30)  # type: ignore[misc]
        if "orders" not in block.text:
            count_items(tmp_path, block, url, output)
    if not has_jq:
        pytest.skip(f"NOT EXECUTED: what {block} shows (there is no jq on the PATH)")


def hears_signals(output: Path) -> bool:
    """Whether uWSGI's master has its handlers: its first workers answer before, and then Ctrl-C is lost."""
    master = re.search(r"master process \(pid: (\d+)\)", output.read_text())
    assert master is not None
    return handles(int(master[1]), signal.SIGUSR1)  # the last one that it sets


def sees(block: Block, directory: Path, port: int) -> bool:
    """Whether a reader who types the block sees what the page shows."""
    command = ["bash", "-euo", "pipefail", "-c", local(block.text, {"8001": port}, directory)]
    environ = environment(COLUMNS="80")  # of a terminal
    answer = subprocess.run(
        command, cwd=directory, env=environ, stdout=subprocess.PIPE, text=True, timeout=60
    )
    return shows(answer.stdout, block.output)


def count_items(directory: Path, block: Block, url: str, output: Path) -> None:
    """Twenty requests are counted, and logged where the block says so."""
    headers = {}
    if "EXPORTER_TOKEN_FILE" in block.text:
        assert status(f"{url}/metrics") == 401
        headers = {"Authorization": f"Bearer {(directory / 'token').read_text().strip()}"}

    def metrics() -> dict[str, float]:
        with urlopen(Request(f"{url}/metrics", headers=headers), timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {series: float(value) for series, value in pairs}

    name = 'flask_http_request_total{method="GET",status="200"}'
    before = metrics()
    for number in range(20):
        assert status(f"{url}/items/{number}") == 200
    after = metrics()

    mode = "single" if re.search("flask|uvicorn", block.text) else "multiprocess"
    assert after[name] - before[name] == 20
    assert after[f'flask_exporter_mode{{mode="{mode}"}}'] == 1
    if "EXPORTER_REQUEST_LOG=stdout" in block.text:
        lines = [json.loads(line) for line in output.read_text().splitlines() if line[0] == "{"]
        assert [line.get("url_rule") for line in lines].count("/items/<int:number>") == 20


@pytest.mark.parametrize("leader", ALONE, ids=str)
def test_command(tmp_path: Path, leader: Block) -> None:
    """One that ends by itself shows what its page says."""
    (tmp_path / "prometheus").symlink_to(ROOT / "prometheus")

    assert all(sees(block, tmp_path, 8001) for block in [leader, *FOLLOWERS[leader]])


def test_install(tmp_path: Path) -> None:
    """In an empty environment the package brings what it needs, its types and its OpenAPI document."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    environ = environment(PIP_NO_COMPILE="1", PIP_PYTHON=str(tmp_path / "venv/bin/python"))
    environ["PATH"] = f"{tmp_path / 'venv/bin'}:{environ['PATH']}"
    answer = subprocess.run(
        ["bash", "-c", INSTALL.text], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )

    assert answer.returncode == 0, answer.stderr
    source = "import exporter, exporter.pages as pages, os; exporter.FlaskExporter; "
    source += "print(*os.listdir(*exporter.__path__), *os.listdir(*pages.__path__))"
    said = subprocess.check_output(
        ["python", "-W", "error", "-c", source], cwd=tmp_path, env=environ, text=True
    )
    assert {"py.typed", "openapi.json"} <= set(said.split())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`make run` 60 times as fast, with shop.py among its targets."""
    directory = tmp_path_factory.mktemp("readme")
    numbers = [address.partition(":")[2] for address in PORTS]
    ports = dict(zip([*numbers, "8001"], free_ports(len(PORTS) + 1), strict=True))
    unpack(directory, ports["8001"])
    own = directory / "prometheus/targets"
    for file in (ROOT / "prometheus/targets").iterdir():
        if not (own / file.name).exists():
            shutil.copy(file, own)
    settings = {setting: str(ports[address.partition(":")[2]]) for address, setting in PORTS.items()}
    settings |= {"RUN_DIR": str(directory / "run"), "TARGETS_DIR": str(own)}
    environ = environment(**settings, TIME_SCALE="60", TRAFFIC_USERS="1")
    shop = next(block for block in SERVERS if block.text.startswith("flask"))
    with (
        started(local(shop.text, ports, directory), directory, environ),
        started(f"cd {shlex.quote(str(ROOT))}; {RUN.text}", own, environ) as output,
    ):
        eventually(lambda: "Ctrl-C stops everything." in output.read_text(), "the stack is up", 180)
        assert shows(output.read_text(), RUN.output)
        yield Stack(ports, directory / "run")
    marked = f"RUN_DIR={directory / 'run'}\0".encode()
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if marked in _read(path)]
    assert left == [], "Ctrl-C stops everything"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_look_and_break(stack: Stack, tmp_path: Path) -> None:
    """The fault becomes an alert with a runbook, and the request behind it is found."""
    top, health = SIGHTS
    fault, alert, request, line = STORY
    (tmp_path / ".run").symlink_to(stack.run)
    (tmp_path / ".venv").symlink_to(sys.prefix)

    def run(block: Block) -> str:
        command = ["bash", "-uo", "pipefail", "-c", local(block.text, stack.ports, tmp_path)]
        answer = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=120
        )
        assert answer.stderr == ""
        return answer.stdout

    def broken() -> str | None:
        assert run(fault) == ""
        said = run(alert)
        return said if '"FlaskErrorRatioCritical"' in said else None

    assert shows(run(health), health.output)
    said = eventually(broken, "FlaskErrorRatioCritical reaches Alertmanager", 180)
    runbook = f"http://127.0.0.1:{stack.ports['9090']}/user/FlaskErrorRatioCritical.md"
    assert f'"runbook_url": "{runbook}"' in said
    # Without Grafana, Prometheus has a page in its place.
    grafana = rf"{stack.ports['3000']}|{stack.ports['9090']}/user"
    assert re.search(rf'"dashboard_url": "http://127\.0\.0\.1:({grafana})/d/flask-errors\?', said)
    assert shows(said, alert.output)
    assert status(runbook) == 200

    assert shows(run(request), request.output)
    said = run(line)
    assert shows(said, line.output)
    assert len({json.loads(entry)["request_id"] for entry in said.splitlines()}) == 1
    # Wide figures leave a terminal of 80 columns less for the path.
    assert re.search(r"^/test/err\S* .* 100\.0%", run(top), re.MULTILINE)


def test_questions_to_a_stack(stack: Stack, tmp_path: Path) -> None:
    """Those of the pages about trouble and replicas are answered."""
    pages = PAGES["docs/troubleshooting.md"], PAGES["docs/how-to/replicas.md"]
    health, scrapes, alerts, instances = (
        command for page in pages for command in page.commands() if command.startswith("curl")
    )

    def answer(command: str) -> str:
        command = local(command, stack.ports, tmp_path)
        return subprocess.check_output(["bash", "-euo", "pipefail", "-c", command], text=True, timeout=60)

    assert '"status":"' in answer(health)
    assert f'"scrapeUrl": "http://127.0.0.1:{stack.ports["8000"]}/metrics"' in answer(scrapes)
    eventually(lambda: '"alertname": "MonitoringDeadMansSwitch"' in answer(alerts), "an alert", 60)
    assert f'"instance":"127.0.0.1:{stack.ports["8000"]}"' in answer(instances)


def test_own_service_is_scraped_and_probed(stack: Stack) -> None:
    """What the target files of the pages name is up."""

    def value(query: str) -> list[str]:
        url = f"http://127.0.0.1:{stack.ports['9090']}/api/v1/query?query={query}"
        return [series["value"][1] for series in get_json(url)["data"]["result"]]

    for query in ('up{job="app",service="shop"}', 'probe_success{service="shop"}'):
        assert eventually(lambda query=query: value(query) == ["1"], query, 30)  # type: ignore[misc]


def test_target_files_are_valid(tmp_path: Path) -> None:
    """As `make run` checks them."""
    unpack(tmp_path, 8001)

    assert [len(targets.load(tmp_path / f"prometheus/targets/{name}.yml")) for name in ("app", "urls")] == [
        2,
        1,
    ]


def test_prometheus_takes_the_token(tmp_path: Path) -> None:
    """The configuration with the lines of its page is valid, as soon as the file that they name is there."""
    block = next(block for block in FILES if block.file == "prometheus/prometheus.yml")
    (addition,) = yaml.safe_load(block.text)["scrape_configs"]
    shutil.copytree(ROOT / "prometheus", tmp_path / "prometheus", ignore=shutil.ignore_patterns("*.py"))
    file = tmp_path / "prometheus/prometheus.yml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    (job,) = (job for job in document["scrape_configs"] if job["job_name"] == addition["job_name"])
    file.write_text(yaml.safe_dump(document | {"scrape_configs": [job | addition]}), encoding="utf-8")

    assert "token" in dialect.check(file.parent).stderr
    (file.parent / "token").write_text("a-token\n", encoding="utf-8")
    assert dialect.check(file.parent).returncode == 0


def test_prometheus_takes_the_job_of_a_service_with_another_token(tmp_path: Path) -> None:
    """As the page has it; `make run` knows that rules and dashboards see its targets."""
    (block,) = (block for block in BLOCKS if block.section == "Services with different tokens")
    plan = Plan.load({"RUN_DIR": str(tmp_path), "TARGETS_DIR": str(tmp_path / "targets")})
    preparation.copy_configuration(plan)
    file = plan.configuration / "prometheus.yml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    document["scrape_configs"] += dialect.translate(yaml.safe_load(block.text))["scrape_configs"]
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    (file.parent / "token-payments").write_text("a-token\n", encoding="utf-8")

    assert dialect.check(file.parent).returncode == 0
    assert targets.check_jobs(plan) == []


def test_nginx(tmp_path: Path) -> None:
    """Strangers see the service and no metrics, and the time in the queue is counted."""
    if gave_up(NGINX):
        pytest.skip("NOT EXECUTED: shop.conf (nginx cannot be had, see .tools/nginx.unavailable)")
    port, proxy = free_ports(2)
    unpack(tmp_path, port)
    (service,) = (block for block in SERVERS if "EXPORTER_TRUSTED_PROXIES" in block.text)
    site = tmp_path / "shop.conf"
    site.write_text(site.read_text().replace("8080", str(proxy)))
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind}; "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {tmp_path}/pid; events {{}} http {{ access_log off; {folders} include {site}; }}"
    )
    nginx = f"{executable('nginx')} -e stderr -c {configuration}"
    with (
        started(local(service.text, {"8001": port}, tmp_path), tmp_path, environment(), "shop") as output,
        started(nginx, tmp_path, environment(), "nginx") as errors,
    ):
        await_200(f"http://127.0.0.1:{port}/health/ready", 30, output)
        await_200(f"http://127.0.0.1:{proxy}/items/7", 30, errors)
        closed = [status(f"http://127.0.0.1:{proxy}{path}") for path in ("/metrics", "/monitoring/stats")]
        token = (tmp_path / "token").read_text().strip()
        request = Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request, timeout=10) as answer:
            metrics = answer.read().decode().splitlines()

    assert closed == [404, 404]
    assert "flask_http_request_queue_seconds_count 1.0" in metrics


def test_systemd(tmp_path: Path) -> None:
    """The command of the unit serves, and the unit gives it time to end."""
    (port,) = free_ports(1)
    unpack(tmp_path, port)
    (tmp_path / "gunicorn.conf.py").unlink()
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(tmp_path / "shop.service")
    service = unit["Service"]
    folder = tmp_path / "run"
    folder.mkdir(mode=int(service["RuntimeDirectoryMode"], 8))
    name, _, directory = service["Environment"].partition("=")
    assert directory == f"/run/{service['RuntimeDirectory']}"
    command = service["ExecStart"].replace(f"{service['WorkingDirectory']}/.venv/bin/", "exec ")
    with started(command, tmp_path, environment(**{name: str(folder), "EXPORTER_DRAIN": "1"})) as output:
        await_200(f"http://127.0.0.1:{port}/health/ready", 30, output)
        assert status(f"http://127.0.0.1:{port}/metrics") == 200

    assert int(service["TimeoutStopSec"]) > Settings().drain + 30
    assert service["KillMode"] == "mixed"


def test_own_container(tmp_path: Path) -> None:
    """The command of the container serves those who have the token, and there is time and memory for it."""
    (port,) = free_ports(1)
    unpack(tmp_path, port)
    (tmp_path / "gunicorn.conf.py").unlink()
    shop = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]["shop"]
    (tmp_path / "token").write_text("a-token\n")
    directory, _, options = shop["tmpfs"][0].partition(":")
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "workers"), "EXPORTER_TOKEN_FILE": "token"}
    command = shop["command"].replace("0.0.0.0", "127.0.0.1")
    with started(command, tmp_path, environment(**variables)) as output:
        await_200(f"http://127.0.0.1:{port}/health/ready", 30, output)
        url = f"http://127.0.0.1:{port}/metrics"
        answers = status(url), status(Request(url, headers={"Authorization": "Bearer a-token"}))

    assert answers == (401, 200)
    assert variables.keys() == shop["environment"].keys()
    assert shop["environment"]["PROMETHEUS_MULTIPROC_DIR"] == directory
    assert shop["user"] == ":".join(re.findall(r"[ug]id=(\d+)", options))
    assert int(shop["stop_grace_period"].removesuffix("s")) > Settings().drain + 30


@pytest.mark.parametrize("block", COMPOSE, ids=str)
def test_compose(tmp_path: Path, block: Block) -> None:
    """Its secrets and variables are right, and the stack comes up where there is a compose."""
    *before, last = block.text.splitlines()
    words = shlex.split(last)
    variables = dict(word.split("=", 1) for word in words[:-3])
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "__pycache__", "build"))
    subprocess.run(["bash", "-euc", "\n".join(before)], cwd=clone, check=True)

    assert words[-3:] == ["docker", "compose", "up"]
    assert variables.keys() <= set(re.findall(r"^#(\w+)=", example, re.MULTILINE))
    start = [
        "sh",
        "prometheus/alertmanager/start.sh",
        "true",
        f"--config.file={tmp_path / 'alertmanager.yml'}",
    ]
    subprocess.run(start, cwd=clone, env=environment(**variables), check=True)

    if variables.get("ALERT_RECEIVER") in ("slack", "discord", "email"):
        return  # it comes up as with a webhook
    for needed in (["docker", "info"], ["docker", "compose", "version"]):
        if shutil.which("docker") is None or subprocess.run(needed, capture_output=True).returncode:
            pytest.skip(f"NOT EXECUTED: {last} ({' '.join(needed)} fails here)")
    host = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    project = {"COMPOSE_PROJECT_NAME": f"readme-{os.getpid()}", "BIND_ADDRESS": host}
    environ = environment(**project, **variables, TRAFFIC_USERS="1")
    try:
        with started(last, clone, environ) as output:
            for path in (":8000/health/ready", ":9090/-/ready", ":9093/-/ready", ":3000/api/health"):
                url = f"http://{host}{path}"
                await_200(url, 600, output)
    finally:
        down = ["docker", "compose", "down", "--volumes", "--rmi", "local"]
        subprocess.run(down, cwd=clone, env=environ, capture_output=True, check=True)
