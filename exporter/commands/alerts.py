"""The alerts that fire, as a Prometheus knows them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from exporter.commands.connection import Connection, Unavailable

_SEVERITIES = ("critical", "warning")


@dataclass(frozen=True, slots=True)
class Alerts:
    """The names of the alerts that fire, the worst first; `complaint` says why they are unknown."""

    critical: tuple[str, ...] = ()
    warning: tuple[str, ...] = ()
    complaint: str = ""


class Prometheus:
    """The Prometheus at `url`. Raises ValueError for an invalid URL."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)

    def alerts(self) -> Alerts:
        """The alerts that fire now; those that are for information only are left out."""
        names: dict[str, set[str]] = {severity: set() for severity in _SEVERITIES}
        try:
            status, body = self._connection.get("/api/v1/alerts")
            for alert in json.loads(body)["data"]["alerts"]:
                labels = alert["labels"]
                if alert["state"] == "firing" and labels.get("severity") in names:
                    service = labels.get("service")
                    name = str(labels["alertname"])
                    names[labels["severity"]].add(f"{name} ({service})" if service else name)
        except Unavailable as error:
            return Alerts(complaint=str(error))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return Alerts(complaint=f"{self._connection.url} answers {status}, and no alerts")
        finally:
            self._connection.close()
        critical, warning = (tuple(sorted(names[severity])) for severity in _SEVERITIES)
        return Alerts(critical, warning)
