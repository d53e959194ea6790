"""Each example starts as its README says: statistics for local eyes, ids in the log, polite errors."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.server import Server, started

EXAMPLES = {
    "django": ("/orders/7", "/orders/<int:number>", "/boom"),
    "flask-legacy": ("/orders/7", "/orders/<int:number>", "/boom"),
    "web2py": ("/shop/default/order/7", "/shop/default/order", "/shop/default/boom"),
}


def test_every_example_has_its_test() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_does_what_its_readme_says(tmp_path: Path, example: str) -> None:
    order, rule, boom = EXAMPLES[example]
    shutil.copytree(ROOT / "examples" / example, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "README.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"<http://127\.0\.0\.1:8001(/[^>]*)>", text)) >= {
        order,
        boom,
        "/metrics",
    }
    (port,) = free_ports(1)
    words = shlex.split(block.replace("8001", str(port)).replace("/dev/shm/", f"{tmp_path}/"))
    settings = [word.partition("=")[::2] for word in words if re.match(r"[A-Z_]+=", word)]
    command = words[len(settings) :]
    command[0] = str(Path(sys.executable).with_name(command[0]))
    variables = {
        "PROMETHEUS_MULTIPROC_DIR": "",
        "PYTHONPATH": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        **dict(settings),
    }
    with started(command, tmp_path, **variables) as server:
        server.port = port
        eventually(lambda: answers(server), "an answer")
        good, bad = server.get(order), server.get(boom)
        inside, outside = (
            server.get("/monitoring/stats"),
            server.get("/monitoring/stats", {"X-Forwarded-For": "203.0.113.9"}),
        )
        samples = server.samples()
        eventually(lambda: "ValueError" in server.text(), "the traceback")
    lines = server.text().splitlines()
    good_id, bad_id = good.headers["X-Request-ID"], bad.headers["X-Request-ID"]

    assert (good.status, bad.status, inside.status, outside.status) == (200, 500, 200, 403)
    assert bad.text.startswith("Sorry, that went wrong.")
    assert bad_id in bad.text or example == "flask-legacy"
    assert inside.json["total_requests"] == 2
    assert any(good_id in line and "order 7 for 127.0.0.1" in line for line in lines)
    assert any(bad_id in line and boom in line for line in lines)
    assert (
        samples[f'flask_http_request_duration_seconds_count{{method="GET",status="200",url_rule="{rule}"}}']
        == 1
    )
    assert (
        samples[
            f'flask_http_request_errors_total{{error_type="ValueError",method="GET",status="500",url_rule="{boom}"}}'
        ]
        == 1
    )


def answers(server: Server) -> bool:
    """Whether it serves."""
    with suppress(OSError):
        return server.get("/health/ready").status == 200
    return False
