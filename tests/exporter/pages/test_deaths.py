"""`/monitoring/deaths`: the deaths as they are kept, with the rules of the requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from exporter.pages.deaths import deaths
from exporter.worker.deaths import Death, LostRequest

LOST = LostRequest("id-1", "GET", "/shop/orders/7", "/shop", 0.5, "running", answered=False)


@pytest.mark.parametrize(
    ("rule", "found"), [(lambda method, path: f"{method} {path}", "GET /orders/7"), (None, None)]
)
def test_a_rule_that_is_known_stays_and_others_are_looked_for(
    rule: Callable[[str, str], str] | None, found: str | None
) -> None:
    known = replace(LOST, url_rule="/orders/<int:number>")
    death = Death(1_767_225_600.25, 7, "SIGSEGV", (LOST, known), ("in view",), counted=True)
    request = {
        "request_id": "id-1",
        "method": "GET",
        "path": "/shop/orders/7",
        "age_seconds": 0.5,
        "state": "running",
        "answered": False,
    }

    assert deaths([death], rule) == [
        {
            "timestamp": 1_767_225_600.25,
            "datetime": "2026-01-01T00:00:00.250000+00:00",
            "pid": 7,
            "cause": "SIGSEGV",
            "requests": (
                {**request, "url_rule": found},
                {**request, "url_rule": "/orders/<int:number>"},
            ),
            "stack": ("in view",),
        }
    ]
