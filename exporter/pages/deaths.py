"""`/monitoring/deaths`: the causes of workers' deaths and their requests in progress, the latest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from exporter.worker.deaths import Death


def deaths(latest: Iterable[Death], rule: Callable[[str, str], str] | None = None) -> list[dict[str, Any]]:
    """The body of the page; `rule` gives the rule of a method and a path, None if no rules are known."""
    return [_element(death, rule) for death in latest]


def _element(death: Death, rule: Callable[[str, str], str] | None) -> dict[str, Any]:
    fields = asdict(death)
    del fields["counted"]
    for request in fields["requests"]:
        path = request["path"].removeprefix(request.pop("script_name"))
        if request["url_rule"] is None and rule is not None:
            request["url_rule"] = rule(request["method"], path)
    moment = datetime.fromtimestamp(death.timestamp, timezone.utc).isoformat(timespec="microseconds")
    return {"timestamp": death.timestamp, "datetime": moment, **fields}
