"""The shipped configuration with every duration divided by a constant, so that hours pass in minutes.

At a factor of 60 an alert of 2 minutes fires in 2 seconds, in the real Prometheus and with the shipped rules.
Expressions must write seconds as durations (`rate * 5m`, not `rate * 300`), because a bare number may be a
threshold, which stays the same.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

# A range must contain this many scrapes, or rate() over it is empty from time to time.
SCRAPES_PER_RANGE = 4

# Prometheus looks for targets for up to five seconds after its start, at any factor. An alert that waits for
# `LONG` as shipped outlasts that, and so must the scaled one (both in milliseconds).
LONG = 300_000
START = 15_000

UNITS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}

# Durations that are flags and not part of prometheus.yml, with the defaults of Prometheus.
FLAGS = {"--query.lookback-delta": "5m", "--rules.alert.resend-delay": "1m"}

INTERVALS = {"scrape_interval", "evaluation_interval"}
RULE_TIMES = {"interval", "keep_firing_for", "query_offset"}
ALERTMANAGER_TIMES = {"group_wait", "group_interval", "repeat_interval", "resolve_timeout"}

DURATION = r"(?:\d+(?:ms|[smhdwy]))+(?!\w)"
TOKEN = re.compile(
    r"""(?P<skip>"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*` | \#[^\n]* | [a-zA-Z_][\w:]*)"""
    rf"""| (?P<duration>{DURATION})"""
    r"""| (?P<number>0[xX][\da-fA-F]+ | \d+(?:\.\d*)?(?:[eE][+-]?\d+)? | \.\d+)""",
    re.VERBOSE,
)


def milliseconds(duration: str) -> int:
    """Return the milliseconds of a Prometheus duration such as `1h30m`; raise ValueError for other texts."""
    if duration == "0":
        return 0
    if not re.fullmatch(DURATION, duration):
        raise ValueError(f"{duration!r} is no duration such as 30s, 5m or 1h30m")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))


def spell(length: float) -> str:
    """Write milliseconds as a Prometheus duration, rounded up, so that a short one never becomes 0."""
    rest = math.ceil(length)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        number, rest = divmod(rest, UNITS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def divide(duration: str, factor: float) -> str:
    """Divide a duration by `factor`."""
    return spell(milliseconds(duration) / factor)


def expression(promql: str, factor: float) -> str:
    """Divide each duration in a PromQL expression: ranges, offsets, and durations in the place of numbers.

    Raises:
        ValueError: the expression multiplies by whole minutes in bare seconds (`* 300`).
    """

    def replacement(token: re.Match[str]) -> str:
        if token["duration"]:
            return divide(token["duration"], factor)
        if token["number"] and re.fullmatch(r"\d+", token["number"]) and _by_minutes(token):
            seconds = int(token["number"])
            raise ValueError(f"write the seconds {seconds} as {spell(seconds * 1000)} in: {promql.strip()}")
        return token[0]

    return TOKEN.sub(replacement, promql)


def _by_minutes(token: re.Match[str]) -> bool:
    seconds = int(token["number"])
    before, after = token.string[: token.start()].rstrip(), token.string[token.end() :].lstrip()
    return seconds >= 60 and seconds % 60 == 0 and (before.endswith("*") or after.startswith("*"))


def shortest_range(promql: str) -> float:
    """Return the milliseconds of the shortest range selector in an expression, or infinity without one."""
    bare = TOKEN.sub(lambda token: "" if token["skip"] else token[0], promql)
    return min(map(milliseconds, re.findall(rf"\[\s*({DURATION})", bare)), default=math.inf)


def flags(factor: float) -> list[str]:
    """Return the flags of Prometheus for a configuration with this `factor`."""
    return [f"{name}={divide(default, factor)}" for name, default in FLAGS.items()]


def directory(configuration: Path, factor: float) -> None:
    """Scale prometheus.yml, rules/*.yml and alertmanager/*.yml of a copy of the configuration, in place.

    Intervals of scrapes and evaluations are at least a second, unless the shortest range needs shorter ones.
    An alert that waits for five minutes or longer still waits for `START`.
    """
    rules = {file: _load(file) for file in sorted((configuration / "rules").glob("*.yml"))}
    longest = min(map(_shortest, rules.values()), default=math.inf) / factor / SCRAPES_PER_RANGE

    def interval(duration: str) -> str:
        return spell(math.floor(min(max(milliseconds(duration) / factor, 1000), longest)))

    def time(duration: str) -> str:
        return divide(duration, factor)

    def wait(duration: str) -> str:
        return spell(max(milliseconds(duration) / factor, START if milliseconds(duration) >= LONG else 0))

    for file, document in rules.items():
        keys = {
            **dict.fromkeys(RULE_TIMES, time),
            "for": wait,
            "expr": lambda promql: expression(promql, factor),
        }
        _dump(file, _walk(document, keys))
    prometheus = configuration / "prometheus.yml"
    times = {**dict.fromkeys(INTERVALS, interval), "refresh_interval": time}
    _dump(prometheus, _without_timeouts(_walk(_load(prometheus), times)))
    alertmanager(configuration, factor)


def alertmanager(configuration: Path, factor: float) -> None:
    """Scale alertmanager/*.yml of a copy of the configuration, in place."""
    for file in sorted((configuration / "alertmanager").glob("*.yml")):
        times = dict.fromkeys(ALERTMANAGER_TIMES, lambda duration: divide(duration, factor))
        _dump(file, _walk(_load(file), times))


def _shortest(rules: Any) -> float:
    groups = rules.get("groups", [])
    return min(
        (shortest_range(str(rule["expr"])) for group in groups for rule in group["rules"]), default=math.inf
    )


def _walk(node: Any, keys: Mapping[str, Callable[[str], str]]) -> Any:
    """Return the document with new texts under `keys`, at any depth."""
    if isinstance(node, dict):
        return {
            key: keys[key](str(value))
            if key in keys and not isinstance(value, dict | list)
            else _walk(value, keys)
            for key, value in node.items()
        }
    return [_walk(item, keys) for item in node] if isinstance(node, list) else node


def _without_timeouts(prometheus: Any) -> Any:
    """Raise each timeout to the interval, its maximum, because a scrape takes as long as before."""
    for section in (prometheus.get("global", {}), *prometheus.get("scrape_configs", [])):
        section.pop("scrape_timeout", None)
    prometheus["global"]["scrape_timeout"] = prometheus["global"]["scrape_interval"]
    return prometheus


def _load(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _dump(file: Path, document: Any) -> None:
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
