"""Client: the internals of prometheus_client and of prometheus_flask_exporter that this package uses.

They are checked once, when the exporter is imported: a release without them is refused then, by name, and
does not fail in the middle of a scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from inspect import isclass, signature
from types import CodeType, FunctionType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, Summary, metrics, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.openmetrics import exposition


def _escape(function: str) -> Callable[[str, str], str]:
    """prometheus_client's function that escapes a name; before 0.23, names stay as they are."""
    escape: Callable[[str, str], str] | None = getattr(exposition, function, None)
    if escape is None or "escaping" not in signature(escape).parameters:
        return lambda name, _: name
    return escape


escape_label_name = _escape("escape_label_name")
escape_metric_name = _escape("escape_metric_name")


def check() -> None:
    """Raise ImportError if the installed prometheus_client lacks something that the exporter uses."""
    require(
        "prometheus-client",
        "0.18 to 0.26",
        {
            MmapedDict: "_fname _f _m _used _capacity _positions _init_value read_value",
            MmapedDict.write_value: "key value timestamp",
            values: "MmapedDict MutexValue ValueClass",
            values.MutexValue: "_value _exemplar _multiprocess",
            values.MultiProcessValue: "_file _key _multiprocess _MmapedValue__check_for_pid_change "
            "files values lock",
            metrics: "_use_created",
            metrics.MetricWrapperBase: "_is_parent _metrics _name _documentation _type _unit "
            "_labelnames _labelvalues _child_samples",
            Counter: "_value _created",
            Gauge: "_value _child_samples",
            Summary: "_count _sum _created",
            Histogram: "_sum _buckets _upper_bounds _created",
            CollectorRegistry: "_lock _collector_to_names _target_info _target_info_metric",
            Metric: "_restricted_metric",
        },
    )


def require(distribution: str, versions: str, needs: Mapping[Any, str]) -> None:
    """Raise ImportError unless each module, class or function mentions the names that it is needed for.

    Instances would tell more, but creating one writes into the worker directory.
    """
    for owner, names in needs.items():
        gaps = set(names.split()) - _names(owner)
        if gaps:
            place = getattr(owner, "__qualname__", owner.__name__)
            raise ImportError(
                f"{distribution} {version(distribution)} has no {', '.join(sorted(gaps))} in {place}, "
                f"which the exporter uses: install a version from {versions}"
            )


def _names(owner: Any) -> set[str]:
    """The attributes of a module or class, and every name in its code, or in that of a function."""
    if isinstance(owner, CodeType):
        inner = [constant for constant in owner.co_consts if isinstance(constant, CodeType)]
        own = {*owner.co_names, *owner.co_varnames, *owner.co_cellvars}
        return own.union(*map(_names, inner))
    if isinstance(owner, FunctionType):
        return _names(owner.__code__)
    members = vars(owner).values() if isclass(owner) else ()
    return set(dir(owner)).union(*(_names(member) for member in members if isinstance(member, FunctionType)))
