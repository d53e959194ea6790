"""Parsers turn the text of a variable, or an argument, into the value of a setting.

Each raises ValueError, with the remedy, for a value that it cannot use.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from exporter.addresses import Network
from exporter.labels import clean


def text(value: Any) -> str:
    """A text that every encoding can write."""
    string = str(value)
    if not string.isprintable() or clean(string) != string:
        raise ValueError("give printable text in UTF-8")
    return string


def path(value: str | None) -> str | None:
    """The path of a page; None turns the page off."""
    if value is None or value in ("", "off"):
        return None
    if not value.startswith("/"):
        raise ValueError("a path begins with '/', or is 'off'")
    return text(value)


def url(value: str | None) -> str | None:
    """The address of a web page, without a slash at its end; None for nowhere."""
    if value is None or value in ("", "off"):
        return None
    if not re.fullmatch(r"https?://[\w.\[\]:-]+(/[^\s;,'\"]*)?", value, re.ASCII):
        raise ValueError("give an address such as http://127.0.0.1:9090, or nothing")
    return value.rstrip("/")


def group(value: str | Callable[..., Any]) -> str | Callable[..., Any]:
    """The attribute or function that groups requests; a function's name is the label."""
    name = value.__name__ if callable(value) else value
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
        raise ValueError(
            f"invalid label name {name!r}: give an attribute of flask.request such as url_rule, endpoint or "
            "path, or a named function"
        )
    return value


def buckets(value: str | Iterable[float]) -> tuple[float, ...]:
    """Upper bounds in seconds, ascending, with infinity at the end."""
    parts = value.split(",") if isinstance(value, str) else value
    try:
        bounds = [float(part) for part in parts]
    except ValueError:
        raise ValueError("give upper bounds in seconds, for example 0.1,0.5,2") from None
    if not bounds or any(math.isnan(bound) for bound in bounds):
        raise ValueError("give at least one upper bound in seconds")
    if bounds[-1] != math.inf:
        bounds.append(math.inf)
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError("upper bounds must ascend")
    return tuple(bounds)


def milliseconds(bounds: Sequence[float]) -> bool:
    """Whether these bounds can hardly be seconds: none is below a second, or one is above ten minutes."""
    *finite, _ = bounds
    return len(finite) > 1 and (finite[0] >= 1 or finite[-1] > 600)


def prefix(value: str) -> str:
    """The first word of metric names."""
    if not re.fullmatch(r"[a-z](?:[a-z0-9_]*[a-z0-9])?", value):
        raise ValueError("give small letters, digits and '_', such as web")
    return value


def flag(value: str | bool) -> bool:
    """On or off."""
    if isinstance(value, bool):
        return value
    if value.lower() in ("1", "true", "on", "yes"):
        return True
    if value.lower() in ("0", "false", "off", "no"):
        return False
    raise ValueError("give on or off")


def whole(low: int, high: int, unit: str) -> Callable[[Any], int]:
    """A parser of whole numbers of this unit, from `low` to `high`."""

    def parse(value: Any) -> int:
        try:
            number = int(value)
        except (ValueError, TypeError):
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"give a whole number of {unit} from {low} to {high}")
        return number

    return parse


def number(low: float, high: float, kind: str) -> Callable[[Any], float]:
    """A parser of numbers from `low` to `high`; the message calls them `kind`."""

    def parse(value: Any) -> float:
        try:
            number = float(value)
        except (ValueError, TypeError):
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"give {kind} from {low:g} to {high:g}")
        return number

    return parse


def optional_networks(value: str | Iterable[str | Network] | None) -> tuple[Network, ...] | None:
    """As `networks`; None stays None. An empty text is refused, because it would shut everybody out."""
    result = None if value is None else networks(value)
    if isinstance(value, str) and not result:
        raise ValueError("give at least one address or network, or leave it out for the default")
    return result


def networks(value: str | Iterable[str | Network]) -> tuple[Network, ...]:
    """Networks and addresses, separated by commas or spaces."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    try:
        return tuple(ipaddress.ip_network(part) for part in parts)
    except ValueError as error:
        raise ValueError(f"{error}; give addresses or networks such as 10.0.0.0/8, ::1") from None


def level(value: str) -> str:
    """A level of `logging`."""
    levels = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    if value.upper() not in levels:
        raise ValueError(f"give one of {', '.join(levels)}")
    return value.upper()


def names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Names in lower case."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if isinstance(value, str) and not parts:
        raise ValueError("give at least one name, or leave it out for the default")
    return tuple(part.lower() for part in parts)


def request_log(value: str) -> str:
    """The destination of the request log."""
    if value in ("off", "stdout") or value.startswith("syslog:") or "/" in value:
        return value
    raise ValueError("give off, stdout, a file's path with a '/', or syslog://host:port or syslog:///dev/log")


def instance(value: str | None) -> str | None:
    """The name of an instance; None for the host's."""
    return None if value is None or value == "" else text(value)


def listen(value: str | tuple[str, int] | None) -> tuple[str, int] | None:
    """Host and port; None for no listener."""
    if value is None or value == "":
        return None
    host, _, port = value.rpartition(":") if isinstance(value, str) else (value[0], "", str(value[1]))
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("give host:port, for example 127.0.0.1:9101")
    return host.strip("[]"), int(port)


def file(value: str | None) -> str | None:
    """The path of a file; None for no file."""
    return None if value is None or value == "" else os.fspath(value)
