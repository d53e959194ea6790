"""Target files: what Prometheus scrapes, with compose's addresses replaced by this machine's."""

from pathlib import Path
from typing import Any

import yaml

from prometheus.run.plan import PORTS, Plan, PlanError

# Parts that only compose runs. Their targets are left out, because here they would be down for ever.
COMPOSE_ONLY = ("loki:", "alloy:")

# Files whose targets are URLs, which the blackbox exporter fetches.
PROBES = ("probe.yml", "urls.yml")


def part_names(directory: Path) -> set[str]:
    """Return the names of the stack's own parts that the target files mention.

    Raises:
        PlanError: the directory does not exist, or a target file in it is malformed.
    """
    if not directory.is_dir():
        raise PlanError(
            f"TARGETS_DIR={directory} is no directory: give one with target files, such as app.yml"
        )
    mentions = {target for file in _files(directory) for group in load(file) for target in group["targets"]}
    return {address.partition(":")[0] for address in PORTS if address in mentions}


def load(file: Path) -> list[dict[str, Any]]:
    """Return the groups of one target file, `[{"targets": ["host:port"], "labels": {"name": "value"}}]`.

    Raises:
        PlanError: the file is malformed, so that Prometheus would silently keep its previous targets.
    """
    try:
        groups = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"target file {file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise PlanError(f"target file {file}:{line} {getattr(error, 'problem', error)}") from error
    if groups is None:
        return []
    if not isinstance(groups, list):
        raise PlanError(f"target file {file}: write a list of groups, each `- targets: [host:port]`")
    for number, group in enumerate(groups, 1):
        complaint = _complaint(group)
        if complaint:
            raise PlanError(f"target file {file}: group {number}: {complaint}")
    return groups


def localize(plan: Plan, names: set[str]) -> set[tuple[str, str]]:
    """Write this run's target files, and return file name and address of each of the stack's own targets.

    `names` are the parts that this run starts. Entries of users stay as they are.
    """
    local = {address: plan.local(address.partition(":")[0]) for address in PORTS}
    absent = (*(address for address in PORTS if address.partition(":")[0] not in names), *COMPOSE_ONLY)
    own = set()
    for file in _files(plan.targets):
        groups = []
        for group in load(file):
            targets = [target for target in group["targets"] if not _host(target).startswith(absent)]
            addresses = []
            for target in targets:
                here = next(
                    (target.replace(old, new) for old, new in local.items() if _host(target) == old), target
                )
                if here != target:
                    own.add((file.name, here))
                addresses.append(here)
            prober = {"__prober__": plan.local("blackbox")} if file.name in PROBES else {}
            groups.append({"targets": addresses, "labels": prober | group.get("labels", {})})
        content = yaml.safe_dump(groups, sort_keys=False)
        (plan.configuration / "targets" / file.name).write_text(content, encoding="utf-8")
    return own


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.yml"))


def _host(target: str) -> str:
    """Return host:port of a target, which may be a URL."""
    return target.partition("://")[2].partition("/")[0] if "://" in target else target


def _complaint(group: object) -> str | None:
    if not isinstance(group, dict) or set(group) - {"targets", "labels"} or "targets" not in group:
        return "write `targets: [host:port]` and, if needed, `labels: {name: value}`"
    targets, labels = group["targets"], group.get("labels", {})
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        return f"targets is {targets!r}: write a list, [host:port, …]"
    if not isinstance(labels, dict) or not all(
        isinstance(part, str) for pair in labels.items() for part in pair
    ):
        return f"labels is {labels!r}: write {{name: value}}, both as text (numbers in quotes)"
    return None
