"""VictoriaMetrics and Prometheus on the same samples: every query of the dashboards and every rule."""

from __future__ import annotations

import json
import math
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grafana.build import documents
from tests.bench.dashboards import backfill_rules, running
from tests.grafana.history import DEPLOY, DOWN, SECONDS, write
from tests.rig.alerts import rules
from tests.rig.engines import ask, victoriametrics
from tests.rig.queries import fill, queries_of, step

ALL = dict.fromkeys(("service", "instance", "url_rule", "error_type", "slo", "host", "status_class"), ".*")
ALL |= {"job": "app", "compare": "10m"}
EXACT = 1e-9
"""Relative difference of values that are the same but for the last digits."""
EXTRAPOLATED = 0.025
"""That of a rate or an increase: Prometheus stretches what it saw to the whole window, the other does not."""
FEW = 0.35
"""The same where a bar of a minute or an hour has a handful of events: 3 in place of 2.67."""
WITH_FEW_EVENTS = {
    "flask-service: Log messages by level (A)",
    "flask-endpoints: Where slow requests wait, the worst five places (A)",
    "flask-endpoints: Client disconnects (A)",
    "flask-errors: Failures by error type (A)",
    "flask-errors: Failures by version (A)",
    "flask-errors: Failures by instance (A)",
}
HALF_HOUR = 1800
COUNTERS = re.compile(r"\b(rate|increase)\(")

Answer = dict[str, list[tuple[float, float]]]
"""Labels as JSON → time and value of each point."""


@dataclass(frozen=True)
class Question:
    """An expression as a panel or a rule asks it; `times` are the parameters of the API."""

    name: str
    promql: str
    path: str
    times: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Pair:
    """Prometheus and VictoriaMetrics with the same samples."""

    prometheus: str
    victoria: str

    def difference(self, question: Question) -> float | str:
        """The largest relative difference of two values, or which series or points only one has."""
        first, second = (answer(api, question) for api in (self.prometheus, self.victoria))
        if first.keys() != second.keys():
            return f"series: {sorted(first.keys() ^ second.keys())}"
        worst = 0.0
        for labels, points in first.items():
            if [at for at, _ in points] != [at for at, _ in second[labels]]:
                return f"points of {labels}: {len(points)} and {len(second[labels])}"
            pairs = zip(points, second[labels], strict=True)
            worst = max([worst, *(relative(one, other) for (_, one), (_, other) in pairs)])
        return worst


def relative(one: float, other: float) -> float:
    """The difference of two values by the larger one; infinite where only one is a number."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def answer(api: str, question: Question) -> Answer:
    """What one of the two says."""
    result = ask(api, question.path, query=question.promql, **dict(question.times))["result"]
    return {
        json.dumps(series["metric"], sort_keys=True): [
            (float(at), float(value)) for at, value in series.get("values") or [series["value"]]
        ]
        for series in result
    }


def questions(begin: int, end: int) -> Iterator[Question]:
    """Every query of the dashboards, and every rule at its evaluation and over time."""
    over_time = (("start", begin), ("end", end), ("step", 15))
    for board in map(json.loads, documents().values()):
        for query in queries_of(board):
            promql = fill(query, ALL, SECONDS)
            times = (("time", end),) if query.instant else (*over_time[:2], ("step", step(query, SECONDS)))
            yield Question(str(query), promql, "query" if query.instant else "query_range", times)
    for rule in rules():
        name = rule.get("alert") or rule["record"]
        yield Question(name, rule["expr"], "query", (("time", end),))
        yield Question(f"{name}, over time", rule["expr"], "query_range", over_time)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, list[Question]]]:
    """Both with 40 minutes of two services and all that the rules record of it, and the questions.

    They are about some minutes in which nothing begins or ends, no hour either, by which days are summed: a
    change is seen a sample sooner or later.
    """
    directory: Path = tmp_path_factory.mktemp("parity")
    end = int(time.time() - HALF_HOUR) // 3600 * 3600 + HALF_HOUR
    begin = end - SECONDS
    write(directory, end, recorded=False)
    backfill_rules(directory / "data", begin, end)
    with running(directory / "data") as prometheus, victoriametrics(directory / "victoria") as victoria:
        hand_over(prometheus, victoria.url, end)
        yield Pair(prometheus, victoria.url), list(questions(begin + DEPLOY + 420, begin + DOWN - 30))


def hand_over(prometheus: str, victoria: str, end: int) -> None:
    """Give VictoriaMetrics every sample that Prometheus has."""
    selector = f'{{__name__!=""}}[{SECONDS + 1}s]'
    result: list[dict[str, Any]] = ask(prometheus, "query", query=selector, time=end)["result"]
    lines = (
        json.dumps(
            {
                "metric": series["metric"],
                "timestamps": [round(at * 1000) for at, _ in series["values"]],
                "values": [float(value) for _, value in series["values"]],
            }
        )
        for series in result
    )
    urllib.request.urlopen(f"{victoria}/api/v1/import", "\n".join(lines).encode(), timeout=60).close()
    urllib.request.urlopen(f"{victoria}/internal/force_flush", timeout=60).close()


def test_every_query_and_rule_has_the_same_answer(asked: tuple[Pair, list[Question]]) -> None:
    """The same series at the same times; the same values but for what is stretched to a whole window."""
    pair, every = asked
    found = {question: pair.difference(question) for question in every}
    wrong = {
        question.name: difference
        for question, difference in found.items()
        if isinstance(difference, str) or difference > allowed(question)
    }
    sizes = [difference for difference in found.values() if isinstance(difference, float)]
    equal, close = (sum(size <= limit for size in sizes) for limit in (EXACT, EXTRAPOLATED))
    print(
        f"{len(found)} questions: {equal} equal, {close - equal} close, {len(sizes) - close} with few events"
    )

    assert wrong == {}
    assert {question.name for question in every} >= WITH_FEW_EVENTS


def allowed(question: Question) -> float:
    """The largest relative difference of its values that is known."""
    if question.name in WITH_FEW_EVENTS:
        return FEW
    return EXTRAPOLATED if COUNTERS.search(question.promql) else EXACT


def test_most_questions_have_an_answer(asked: tuple[Pair, list[Question]]) -> None:
    """Two empty answers prove nothing: of the rules the alerts that do not hold here have one."""
    pair, every = asked
    answers = {question.name: answer(pair.victoria, question) for question in every}

    assert sum(map(bool, answers.values())) > 0.5 * len(every)
    assert not [name for name in answers if "variable" in name and not answers[name] and "flask" in name]


def test_victoriametrics_has_no_exemplars(asked: tuple[Pair, list[Question]]) -> None:
    """It answers with none, so the dots on a latency graph are not there; the graph is."""
    pair, _ = asked
    series = "flask_http_request_duration_seconds_bucket"

    assert ask(pair.victoria, "query_exemplars", query=series, start=0, end=time.time()) == []
