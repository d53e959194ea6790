"""deploy/kubernetes is current, valid to the letter, and its parts find each other."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from app import __version__
from deploy.build import BASE, documents
from deploy.service import NAMESPACE
from docs.writers.metrics import families
from exporter import Settings
from prometheus.tools.packages import KUBECTL
from prometheus.tools.toolbox import executable, gave_up
from tests.rig.places import ROOT

Manifest = dict[str, Any]

SCHEMAS = Path(__file__).parent / "schemas"
OPERATOR = ("PrometheusRule", "ServiceMonitor", "Probe")
CONFIG_MAP_LIMIT = 1 << 20
SLOWEST = 10
"""Seconds that the app's slowest answer takes."""
OPERATORS_LABELS = {"namespace", "pod", "container", "service", "endpoint", "node", "job", "instance"}
"""Target labels of a ServiceMonitor; a metric's own label of such a name would be renamed."""


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    """What `kubectl apply --kustomize` would send."""
    if gave_up(KUBECTL):
        pytest.skip("NOT TESTED: the manifests of Kubernetes (kubectl cannot be had, see .tools)")
    text = subprocess.run(
        [executable("kubectl"), "kustomize", BASE], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    return list(yaml.safe_load_all(text))


def one(manifests: list[Manifest], kind: str, name: str = "orders") -> Manifest:
    """The manifest of this kind and name."""
    (manifest,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return manifest


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """The template of each Deployment's pods."""
    yield from (m["spec"]["template"] for m in manifests if m["kind"] == "Deployment")


def test_the_base_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make kubernetes` writes what is committed."""
    for name in ("GRAFANA_URL", "RUNBOOK_URL", "RULE_JOBS"):
        monkeypatch.delenv(name, raising=False)
    texts = documents()

    assert {path: path.read_text(encoding="utf-8") for path in texts} == texts
    assert set(BASE.iterdir()) == {path for path in texts if path.parent == BASE}


def test_links_and_jobs_are_those_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of start.sh hold here too."""
    monkeypatch.setenv("GRAFANA_URL", "https://grafana.example.com")
    monkeypatch.setenv("RULE_JOBS", "node=node-exporter")
    rules = documents()[BASE / "rules.yaml"]

    assert "https://grafana.example.com/d/flask-service" in rules
    assert "|node-exporter|" in rules


def test_what_kubernetes_knows_is_valid(manifests: list[Manifest]) -> None:
    """No field too many, none missing; each kind has a schema."""
    core = [manifest for manifest in manifests if manifest["kind"] not in OPERATOR]
    version = kubernetes_validate.latest_version()
    for manifest in core:
        kubernetes_validate.validate(manifest, version, strict=True)

    assert {manifest["kind"] for manifest in core} == {
        *("Namespace", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap")
    }
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one(core, "Service") | {"spek": {}}, version, strict=True)


class _Loader(yaml.SafeLoader):
    """Takes a bare `=` for text, as newer YAML does."""


_Loader.yaml_implicit_resolvers = {
    character: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:value"]
    for character, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def strict(schema: Any) -> Any:
    """A schema of a custom resource as JSON Schema, which refuses fields that it does not know."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: strict(value) for name, value in schema.items()}
    if result.pop("x-kubernetes-int-or-string", False):
        result.pop("anyOf", None)
        result["type"] = ["integer", "string"]
    if isinstance(result.get("properties"), dict) and isinstance(result.get("type"), str):
        result.setdefault("additionalProperties", False)
    return result


def validator(kind: str) -> Draft202012Validator:
    """Checks objects of one of the operator's kinds."""
    text = (SCHEMAS / f"{kind.lower()}s.yaml").read_text(encoding="utf-8")
    (version,) = yaml.load(text, _Loader)["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(schema)


@pytest.mark.parametrize("kind", OPERATOR)
def test_what_the_operator_knows_is_valid(manifests: list[Manifest], kind: str) -> None:
    """Against the schemas of prometheus-operator 0.93.0; a misspelt field is none."""
    check = validator(kind)
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    for manifest in found:
        check.validate(manifest)

    assert found
    with pytest.raises(ValidationError, match="intervall"):
        check.validate({**found[0], "spec": {**found[0]["spec"], "intervall": "15s"}})


def test_the_rules_are_the_shipped_ones(manifests: list[Manifest], tmp_path: Path) -> None:
    """Whatever YAML and kustomize have done to them."""
    files = []
    for shipped in sorted((ROOT / "prometheus/rules").glob("*.yml")):
        spec = one(manifests, "PrometheusRule", f"flask-{shipped.stem}")["spec"]
        assert spec == yaml.safe_load(shipped.read_text(encoding="utf-8"))
        files.append(tmp_path / shipped.name)
        files[-1].write_text(yaml.safe_dump(spec), encoding="utf-8")
    check = subprocess.run(
        [executable("promtool"), "check", "rules", *files], capture_output=True, text=True, check=False
    )

    assert check.returncode == 0, check.stdout + check.stderr
    assert len(files) == sum(manifest["kind"] == "PrometheusRule" for manifest in manifests)


def test_dashboards_are_found_by_the_sidecar(manifests: list[Manifest]) -> None:
    """Each is a ConfigMap of its own that etcd takes."""
    shipped = {path.name: path.read_text() for path in (ROOT / "grafana/dashboards").rglob("*.json")}
    maps = [m for m in manifests if "grafana_dashboard" in m["metadata"]["labels"]]

    assert {name: text for manifest in maps for name, text in manifest["data"].items()} == shipped
    assert all(len(manifest["data"]) == 1 for manifest in maps)
    assert max(len(json.dumps(manifest)) for manifest in maps) < CONFIG_MAP_LIMIT


def test_everything_is_in_the_namespace(manifests: list[Manifest]) -> None:
    names = {manifest["metadata"].get("namespace", manifest["metadata"]["name"]) for manifest in manifests}

    assert names == {NAMESPACE}


def test_selectors_and_ports_meet(manifests: list[Manifest]) -> None:
    """Whatever selects pods or Services finds them, and whatever names a port names one that is there."""
    templates = {m["metadata"]["name"]: m["spec"]["template"] for m in manifests if m["kind"] == "Deployment"}
    for name, template in templates.items():
        labels = template["metadata"]["labels"].items()
        (container,) = template["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        service, policy = one(manifests, "Service", name), one(manifests, "NetworkPolicy", name)
        assert one(manifests, "Deployment", name)["spec"]["selector"]["matchLabels"].items() <= labels
        assert service["spec"]["selector"].items() <= labels
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= ports
        probes = [value["httpGet"]["port"] for key, value in container.items() if key.endswith("Probe")]
        assert set(probes) <= ports
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    budget = one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget.items() <= templates["orders"]["metadata"]["labels"].items()
    # The service lets in exactly the prober of this base, beside those of other namespaces.
    peers = one(manifests, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    (prober,) = (peer["podSelector"]["matchLabels"] for peer in peers if "namespaceSelector" not in peer)
    assert prober.items() <= templates["blackbox"]["metadata"]["labels"].items()


def test_the_monitor_gives_the_labels_of_the_rules(manifests: list[Manifest]) -> None:
    """One Service is found, by a port that it has; the job is the rules', and no label of ours is renamed."""
    monitor, service = one(manifests, "ServiceMonitor")["spec"], one(manifests, "Service")
    (endpoint,) = monitor["endpoints"]
    selected = monitor["selector"]["matchLabels"].items()
    found = [m for m in manifests if m["kind"] == "Service" and selected <= m["metadata"]["labels"].items()]
    assert found == [service]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "app"}]
    assert f'up{{job="{endpoint["relabelings"][0]["replacement"]}"}}' in str(
        one(manifests, "PrometheusRule", "flask-service")
    )
    labels = {label for family in families().values() for label in family.labels}
    assert labels.isdisjoint(OPERATORS_LABELS)
    prometheus = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())
    (job,) = (job for job in prometheus["scrape_configs"] if job["job_name"] == "app")
    assert (monitor["sampleLimit"], monitor["labelLimit"]) == (job["sample_limit"], job["label_limit"])


def test_the_probe_asks_the_service_under_its_name(manifests: list[Manifest]) -> None:
    """Rules join probes and targets by service and namespace."""
    probe = one(manifests, "Probe")["spec"]
    targets = probe["targets"]["staticConfig"]
    addresses = [probe["prober"]["url"], *(url.split("/")[2] for url in targets["static"])]
    for address in addresses:
        name, namespace, service, port = re.split(r"[.:]", address)
        ports = {each["port"] for each in one(manifests, "Service", name)["spec"]["ports"]}
        assert (namespace, service, int(port) in ports) == (NAMESPACE, "svc", True)

    assert targets["labels"] == {"service": one(manifests, "Service")["metadata"]["name"]}
    assert probe["jobName"] == "probe"
    assert (
        probe["module"]
        in yaml.safe_load(one(manifests, "ConfigMap", "blackbox")["data"]["config.yml"])["modules"]
    )


def test_pods_have_no_rights(manifests: list[Manifest]) -> None:
    """As in compose: no root, nothing writable but volumes, bounds on memory, no token."""
    for template in pods(manifests):
        spec = template["spec"]
        (container,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert re.search(r":v?\d+\.\d+\.\d+$", container["image"])
        assert container["resources"]["limits"].keys() == {"memory"}


def test_the_service_keeps_its_workers_files_in_memory(manifests: list[Manifest]) -> None:
    """In a directory of their own, because a volume is everybody's; all of it fits into the pod's memory."""
    spec = one(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environ = {variable["name"]: variable.get("value") for variable in container["env"]}
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    memory = {v["name"]: v["emptyDir"] for v in spec["volumes"] if v["emptyDir"].get("medium") == "Memory"}
    sizes = [int(volume["sizeLimit"].removesuffix("Mi")) for volume in memory.values()]

    assert Path(str(environ["PROMETHEUS_MULTIPROC_DIR"])).parent == mounts["workers"]
    assert "workers" in memory
    assert sum(sizes) < int(container["resources"]["limits"]["memory"].removesuffix("Mi")) / 2
    assert container["image"] == f"orders:{__version__}"


def test_a_pod_ends_after_it_has_drained(manifests: list[Manifest]) -> None:
    """Settings are valid, and the time for the end is enough for the drain and the slowest answer."""
    spec = one(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environ = {variable["name"]: variable.get("value") for variable in container["env"]}
    settings = Settings.load({name: str(value) for name, value in environ.items()})
    paths = {
        name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness", "startup")
    }

    assert settings.instance == "$(POD_IP):8000"
    assert spec["terminationGracePeriodSeconds"] > settings.drain + SLOWEST
    assert paths == {"readiness": "/health/ready", "liveness": "/health/live", "startup": "/health/live"}
