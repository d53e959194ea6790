"""Scrapes: the state of the targets in Prometheus, with remedies for those that are down."""

import json
import re
import urllib.parse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prometheus.run.children import ask
from prometheus.run.plan import Plan
from prometheus.run.targets import Address

WHO_MAY_READ = "see docs/how-to/access.md"
PREFIX = "see docs/how-to/your-own-prometheus.md#another-prefix"

# Prometheus' reason → ours, with the remedy.
REMEDIES = (
    (r"HTTP status 401\b.*", f"401, it wants a token: {WHO_MAY_READ}"),
    (r"HTTP status 403\b.*", f"403, Prometheus' address may not read there: {WHO_MAY_READ}"),
    (r"HTTP status 404\b.*", "404, no metrics there: name their path in the label __metrics_path__"),
    (r"HTTP status (\d+)\b.*", r"\1, and its answer says why: look at {url}"),
    (r".*connection refused.*", "connection refused: start it, or mend its address"),
    (r".*(no such host|server misbehaving).*", "no such host: mend its address"),
    (r".*(context deadline exceeded|timeout).*", "no answer in time: look at {url}"),
    (r".*server gave HTTP response to HTTPS client.*", "it speaks http: leave out the label __scheme__"),
    (r".*malformed HTTP response.*", "it speaks something else, https perhaps: set the label __scheme__"),
    (r".*", r"\g<0>: look at {url}"),
)


class Scrapes:
    """The targets of a run. `own` are the stack's, which must be up; `others` are the user's.

    To those come targets of the user's that no file names, such as those of `static_configs`.
    """

    def __init__(self, plan: Plan, own: Collection[Address], others: Collection[Address]) -> None:
        self._api = f"{plan.url('prometheus')}/api/v1"
        rules = (plan.configuration / "rules/service.yml").read_text(encoding="utf-8")
        self._info = re.findall(r"\b(\w+_exporter)_failures_total", rules)[0] + "_info"
        self._own = own
        self._others = set(others)
        self.down: dict[Address, str] = {}
        """The user's targets that are not up, each as `name (address): reason, and remedy`."""

    @property
    def count(self) -> int:
        """The number of targets."""
        return len(self._own) + len(self._others)

    def complaint(self) -> str | None:
        """Return a complaint until own targets are up and others have been scraped once."""
        try:
            targets = json.loads(ask(f"{self._api}/targets?state=active"))["data"]["activeTargets"]
        except OSError as error:
            return f"prometheus does not list its targets ({error})"
        complaints = {
            (file, at): f"{at} of {file}: not scraped yet" for file, at in (*self._own, *self._others)
        }
        self.down.clear()
        for target in targets:
            labels = target["discoveredLabels"]
            address = Path(labels.get("__meta_filepath", target["scrapePool"])).name, labels["__address__"]
            if address not in self._own and address not in self._others:
                self._others.add(address)
                complaints[address] = f"{address[1]} of {address[0]}: not scraped yet"
            if target["health"] == "down" and address in self._others:
                self.down[address] = reason(target)
            elif target["health"] == "down" and address in complaints:
                complaints[address] = reason(target)
                continue
            if target["health"] != "unknown":
                complaints.pop(address, None)
        return "; ".join(f"target {text}" for text in complaints.values()) or None

    def unseen(self) -> list[str]:
        """A line for each service that is up without the metrics that rules and dashboards ask for."""
        query = urllib.parse.quote(f'up{{job="app"}} == 1 unless on (instance) {self._info}')
        series = json.loads(ask(f"{self._api}/query?query={query}"))["data"]["result"]
        names = sorted("{service} ({instance})".format(**one["metric"]) for one in series)
        return [f"{name}: no {self._info}, so no rule and no dashboard sees it: {PREFIX}" for name in names]


def reason(target: dict[str, Any]) -> str:
    """The name and the address of a target, the reason why Prometheus cannot read it, and the remedy."""
    labels = target["labels"]
    name = labels.get("service") or labels["job"]
    error = target["lastError"].removeprefix("server returned ")
    pattern, remedy = next(row for row in REMEDIES if re.fullmatch(row[0], error, re.DOTALL))
    text = re.sub(pattern, remedy, error, count=1, flags=re.DOTALL).replace("{url}", target["scrapeUrl"])
    return f"{name} ({target['discoveredLabels']['__address__']}): {text}"
