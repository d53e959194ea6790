"""What the how-tos configure is valid, and their commands are right where no test can run them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus.run import dialect, targets
from prometheus.tools.packages import KUBECTL
from prometheus.tools.toolbox import executable, gave_up
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.readme import BLOCKS, PAGES, Block, Page
from tests.rig.terminal import await_200, environment, local, started

COMMANDS = [
    (name, command)
    for name, page in {**PAGES, "SECURITY.md": Page("SECURITY.md")}.items()
    for command in page.commands()
]
MAKE = [command for _, command in COMMANDS if command.startswith("make ")]
JQ = [command for _, command in COMMANDS if command.startswith("jq ")]
# The tests that run them, or see what they say.
ELSEWHERE = {
    r"docker compose up\n": "test_readme.py, with each receiver",
    r"docker compose -f": "test_compose.py: compose reads the files together",
    r"python -m exporter top --url": "test_top.py, in a terminal",
    r"curl -s http://127\.0\.0\.1:(8000|9090)/": "test_readme.py, of a running stack",
    r"The test alert was handed over to": "test_drill.py: the output of make drill ARGS=--live",
    r"Up after": "test_readme.py: the output of make run",
    r"job:flask_http_request_duration_seconds:error_ratio_5m\{": "test_contract.py: it is recorded",
}
NOT_CHECKED = {
    r"kubectl -n orders": "wants a cluster",
    r"(sudo )?systemctl": "wants systemd as the first process",
    r"WSGIDaemonProcess|\[Service\]": "wants Apache, and systemd as the first process",
    r"docker compose config --lock|digest=": "wants docker and a registry",
    r"curl -s http://127\.0\.0\.1:8428": "wants containers; test_parity.py asks a VictoriaMetrics",
}


def block(page: str, section: str, number: int = 0) -> Block:
    """A block of a section."""
    return [block for block in BLOCKS if (block.page, block.section) == (f"docs/how-to/{page}.md", section)][
        number
    ]


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/how-to/")])
def test_a_page_has_its_parts(name: str) -> None:
    """As the first page of the how-tos says; it, and the list before production, are others."""
    parts = [part in PAGES[name].prose for part in ("**You get**", "**You need**", "\n## What goes wrong\n")]

    assert set(parts) == {Path(name).stem not in ("index", "deployment")}


def test_every_command_has_its_check() -> None:
    """One of a new kind needs one, or a reason why there is none."""
    checked = {*MAKE, *JQ, "kubectl kustomize .\nkubectl apply -k .\n"}
    reasons = [*ELSEWHERE, *NOT_CHECKED]
    rest = [command for _, command in COMMANDS if command not in checked]

    assert [command for command in rest if not any(re.match(reason, command) for reason in reasons)] == []
    assert [reason for reason in reasons if not any(re.match(reason, command) for command in rest)] == []


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_it(command: str) -> None:
    """Its target is there, and its variables are read."""
    words = shlex.split(command.replace("\\\n", ""))
    names = [name for name, sign, _ in (word.partition("=") for word in words) if sign]
    answer = subprocess.run(
        [words[0], "--dry-run", *words[1:]], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    sources = [ROOT / "Makefile", ROOT / "prometheus/start.sh", *(ROOT / "deploy").glob("*.py")]
    text = "".join(source.read_text(encoding="utf-8") for source in sources)

    assert answer.returncode == 0, answer.stderr
    assert names
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_jq_finds_failures_slow_requests_and_bugs(tmp_path: Path) -> None:
    """In the log of a service that has some."""
    if shutil.which("jq") is None:
        pytest.skip("NOT EXECUTED: the recipes for the request log (there is no jq on the PATH)")
    source = """
import time
from flask import Flask
from exporter import FlaskExporter

app = Flask("shop")
FlaskExporter(app, request_log="./requests.jsonl", slow=0.2)

@app.get("/items/<int:number>")
def item(number):
    if number:
        time.sleep(0.5)
        return "item"
    return {}[number]

for number in (0, 0, 1):
    app.test_client().get(f"/items/{number}")
"""
    subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, env=environment(PYTHONPATH=str(ROOT)), check=True
    )
    failures, slow, bugs = (
        subprocess.check_output(["bash", "-euc", command], cwd=tmp_path, text=True) for command in JQ
    )

    assert [json.loads(line)["error_type"] for line in failures.splitlines()] == ["KeyError", "KeyError"]
    assert re.fullmatch(r"0\.[5-9]\d* /items/<int:number> __main__:item\n", slow)
    # The record of an exception and the line of its request have its group.
    assert re.fullmatch(r" +4 [0-9a-f]{12} KeyError\n", bugs)


def test_kustomization(tmp_path: Path) -> None:
    """The overlay builds on the base of this repository: with its image and its labels."""
    if gave_up(KUBECTL):
        pytest.skip("NOT TESTED: the overlay of Kubernetes (kubectl cannot be had, see .tools)")
    text = block("kubernetes", "The demo").text
    base = os.path.relpath(ROOT / "deploy/kubernetes", tmp_path)
    text, count = re.subn(r"(?<=resources: \[)[^\]]+", base, text)
    (tmp_path / "kustomization.yaml").write_text(text)
    command = [str(executable("kubectl")), "kustomize", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    manifests = list(yaml.safe_load_all(built))
    images = re.findall(r"image: (\S+orders\S*)", built)

    assert count == 1
    assert images == ["registry.example.com/orders:1.0.0"]
    assert {manifest["metadata"]["labels"].get("release") for manifest in manifests} == {"monitoring"}


def test_the_operator_s_prometheus_has_what_compose_gives() -> None:
    """Features and retention."""
    spec = yaml.safe_load(block("kubernetes", "Prometheus").text)
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    command = " ".join(compose["services"]["prometheus"]["command"])

    assert f"--enable-feature={','.join(spec['enableFeatures'])} " in command
    assert f"--storage.tsdb.retention.time={spec['retention']} " in command


@pytest.mark.parametrize(
    "scrape", [block("your-own-prometheus", "Scrape"), block("replicas", "Without compose", 1)], ids=str
)
def test_prometheus_takes_the_job(tmp_path: Path, scrape: Block) -> None:
    """In the place of ours, with the same limits; a word that Prometheus does not know is refused."""
    shutil.copytree(ROOT / "prometheus", tmp_path / "prometheus", ignore=shutil.ignore_patterns("*.py"))
    file = tmp_path / "prometheus/prometheus.yml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    (ours,) = (job for job in document["scrape_configs"] if job["job_name"] == "app")
    (job,) = yaml.safe_load(scrape.text)["scrape_configs"]

    def answer(job: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        file.write_text(yaml.safe_dump(document | {"scrape_configs": [job]}), encoding="utf-8")
        return dialect.check(file.parent)

    assert answer(job).returncode == 0, answer(job).stderr
    assert answer(job | {"sample_limits": 1}).returncode != 0
    assert {name: job[name] for name in job if name.endswith("_limit")}.items() <= ours.items()


def test_targets_of_replicas(tmp_path: Path) -> None:
    """`make run` takes the file."""
    file = tmp_path / "app.yml"
    file.write_text(block("replicas", "Without compose").text)

    (group,) = targets.load(file)
    assert len(group["targets"]) == 3


def test_queries_that_show_that_it_works(tmp_path: Path) -> None:
    """promtool reads them."""
    rows = PAGES["docs/how-to/your-own-prometheus.md"].table("See that it works")
    rules = [{"record": f"query:{number}", "expr": query} for number, (query, _) in enumerate(rows)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    command = [str(executable("promtool")), "check", "rules", str(file)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert len(rules) == 3


def test_unit_of_systemd(tmp_path: Path) -> None:
    """systemd reads every line of it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT TESTED: shop.service (there is no systemd-analyze on the PATH)")
    (unit,) = (block for block in BLOCKS if block.file == "shop.service")
    file = tmp_path / "shop.service"

    def complaints(text: str) -> str:
        file.write_text(text.replace("/srv/shop/.venv/bin/gunicorn", sys.executable))
        command = ["systemd-analyze", "verify", "--man=no", str(file)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return "".join(line for line in answer.stderr.splitlines(True) if "shop.service" in line)

    assert complaints(unit.text) == ""
    assert "KillMod" in complaints(unit.text.replace("KillMode", "KillMod"))


def test_a_hook_of_one_s_own(tmp_path: Path) -> None:
    """Both run when a worker ends: the exporter's knows of its death."""
    (configuration,) = (block for block in BLOCKS if block.file == "gunicorn.conf.py")
    hook = block("several-workers", "With a configuration of your own", -1)
    (shop,) = {block.text for block in BLOCKS if block.file == "shop.py"}
    (port,) = free_ports(1)
    (tmp_path / "shop.py").write_text(shop)
    own = hook.text.replace("...", 'print("the worker has ended", worker.pid, flush=True)')
    assert own != hook.text
    (tmp_path / "gunicorn.conf.py").write_text(
        local(f"{configuration.text}\n{own}", {"8001": port}, tmp_path)
    )
    url = f"http://127.0.0.1:{port}"
    with started("exec gunicorn shop:app", tmp_path, environment()) as output:
        await_200(f"{url}/health/ready", 30, output)
        pid = max(map(int, re.findall(r"Booting worker with pid: (\d+)", output.read_text())))
        os.kill(pid, 9)
        eventually(lambda: f"the worker has ended {pid}" in output.read_text(), "the hook", 30)
        eventually(lambda: f"worker {pid} died: SIGKILL" in output.read_text(), "the exporter's hook", 30)
