"""Each example starts as its README says: statistics for local eyes, ids in the log, polite errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.rig.deadline import eventually
from tests.rig.examples import running
from tests.rig.frameworks import CONDITIONS
from tests.rig.places import ROOT

EXAMPLES = {
    "django": ("/orders/7", "/orders/<int:number>", "/boom"),
    "flask-legacy": ("/orders/7", "/orders/<int:number>", "/boom"),
    "web2py": ("/shop/default/order/7", "/shop/default/order", "/shop/default/boom"),
}


def test_every_example_has_its_test() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize(
    "example", [pytest.param(example, marks=CONDITIONS.get(example, ())) for example in EXAMPLES]
)
def test_an_example_does_what_its_readme_says(tmp_path: Path, example: str) -> None:
    order, rule, boom = EXAMPLES[example]
    text = (ROOT / "examples" / example / "README.md").read_text()
    assert set(re.findall(r"<http://127\.0\.0\.1:8001(/[^>]*)>", text)) >= {
        order,
        boom,
        "/metrics",
    }
    with running(example, tmp_path) as server:
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
