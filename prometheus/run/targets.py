"""Target files: the targets of Prometheus, with this machine's addresses instead of compose's."""

from itertools import chain
from pathlib import Path, PurePath
from typing import Any

import yaml

from prometheus.run.plan import PORTS, Plan, PlanError

# Parts that only compose runs. A run drops their targets, which would be down for ever.
COMPOSE_ONLY = ("loki:", "alloy:")

# The jobs that rules and dashboards select.
JOBS = {
    "app",
    "prometheus",
    "alertmanager",
    "victoriametrics",
    "grafana",
    "loki",
    "alloy",
    "node",
    "blackbox",
    "probe",
}

# Files whose targets are URLs for the blackbox exporter.
PROBES = ("probe.yml", "urls.yml")


Address = tuple[str, str]
"""The file of a target, and the target itself."""


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
        complaint = _complaint(group, urls=file.name in PROBES)
        if complaint:
            raise PlanError(f"target file {file}: group {number}: {complaint}")
    return groups


def localize(plan: Plan, names: set[str]) -> tuple[set[Address], set[Address]]:
    """Write this run's target files, and return the stack's own targets and those of the user.

    `names` are the parts that this run starts. Entries of users stay as they are.
    """
    local = {address: plan.local(address.partition(":")[0]) for address in PORTS}
    absent = (*(address for address in PORTS if address.partition(":")[0] not in names), *COMPOSE_ONLY)
    own: set[Address] = set()
    others: set[Address] = set()
    for file in _files(plan.targets):
        groups = []
        for group in load(file):
            targets = [target for target in group["targets"] if not _host(target).startswith(absent)]
            addresses = []
            for target in targets:
                here = next(
                    (target.replace(old, new) for old, new in local.items() if _host(target) == old), target
                )
                (others if here == target else own).add((file.name, here))
                addresses.append(here)
            prober = {"__prober__": plan.local("blackbox")} if file.name in PROBES else {}
            groups.append({"targets": addresses, "labels": prober | group.get("labels", {})})
        content = yaml.safe_dump(groups, sort_keys=False)
        (plan.configuration / "targets" / file.name).write_text(content, encoding="utf-8")
    return own, others


def check_jobs(plan: Plan) -> list[str]:
    """Return a warning for each target that rules and dashboards would miss or show under a wrong name.

    Raises:
        PlanError: prometheus.yml, which users may change, has no job named app.
    """
    document = yaml.safe_load((plan.configuration / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: _patterns(job) for job in document["scrape_configs"]}
    if "app" not in jobs:
        raise PlanError(
            f"prometheus.yml has the jobs {', '.join(jobs)}: the rules and dashboards want one named app, "
            "with all services"
        )
    warnings = [
        f"job {job}: no rule and no dashboard sees it; a service belongs to the job app"
        for job in jobs.keys() - JOBS - _renamed(document)
    ]
    patterns = list(chain.from_iterable(jobs.values()))
    for file in _files(plan.targets):
        if not any(PurePath(f"targets/{file.name}").match(pattern) for pattern in patterns):
            warnings.append(f"targets/{file.name}: no job in prometheus.yml reads this file")
        for group in load(file) if file.name == "app.yml" else ():
            if "service" not in group.get("labels", {}):
                names = ", ".join(group["targets"])
                warnings.append(
                    f"targets/{file.name}: {names} has no label `service`, so alerts call it app: add "
                    "`labels: {service: name}`"
                )
    return sorted(warnings)


def _renamed(document: dict[str, Any]) -> set[str]:
    """The jobs whose targets get the name of one that rules and dashboards select."""
    return {
        job["job_name"]
        for job in document["scrape_configs"]
        for step in job.get("relabel_configs", ())
        if step.get("target_label") == "job" and step.get("replacement") in JOBS
    }


def _patterns(job: dict[str, Any]) -> list[str]:
    return [pattern for discovery in job.get("file_sd_configs", ()) for pattern in discovery["files"]]


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.yml"))


def _host(target: str) -> str:
    """Return host:port of a target, which may be a URL."""
    return target.partition("://")[2].partition("/")[0] if "://" in target else target


def _complaint(group: object, *, urls: bool) -> str | None:
    if not isinstance(group, dict) or set(group) - {"targets", "labels"} or "targets" not in group:
        return "write `targets: [host:port]` and, if needed, `labels: {name: value}`"
    targets, labels = group["targets"], group.get("labels", {})
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        return f"targets is {targets!r}: write a list, [host:port, …]"
    if not isinstance(labels, dict) or not all(
        isinstance(part, str) for pair in labels.items() for part in pair
    ):
        return f"labels is {labels!r}: write {{name: value}}, both as text (numbers in quotes)"
    for target in () if urls else targets:
        scheme, slashes, rest = target.rpartition("://")
        host, slash, path = rest.partition("/")
        if slashes and scheme != "http":
            return f"target {target!r}: write {host}, and `__scheme__: {scheme}` into its labels"
        if slash and path:
            return f"target {target!r}: write {host}, and `__metrics_path__: /{path}` into its labels"
        if slashes or slash:
            return f"target {target!r}: write {host}"
    return None
