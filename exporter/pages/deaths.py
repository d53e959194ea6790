"""`/monitoring/deaths`: of what workers died, and what they were answering, the latest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from exporter.worker.deaths import Death


def deaths(kept: Iterable[Death], rule: Callable[[str, str], str] | None = None) -> list[dict[str, Any]]:
    """The body of the page; `rule` knows the rule of a method and a path, if anybody does."""
    return [_shown(death, rule) for death in kept]


def _shown(death: Death, rule: Callable[[str, str], str] | None) -> dict[str, Any]:
    shown = asdict(death)
    del shown["counted"]
    for request in shown["requests"]:
        path = request["path"].removeprefix(request.pop("script_name"))
        if request["url_rule"] is None and rule is not None:
            request["url_rule"] = rule(request["method"], path)
    moment = datetime.fromtimestamp(death.timestamp, timezone.utc).isoformat(timespec="microseconds")
    return {"timestamp": death.timestamp, "datetime": moment, **shown}
