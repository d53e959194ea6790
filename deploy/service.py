"""The service as Kubernetes runs it, with the limits and addresses that docker-compose.yml gives it."""

import re
from typing import Any

from exporter.settings import Settings

Manifest = dict[str, Any]

NAMESPACE = NAME = "orders"
LABEL = "app.kubernetes.io/name"
PORT = 8000
WORKERS = "/run/exporter"

# Who may connect: Prometheus wherever it is, the prober, and the ingress controller that brings the users.
PROMETHEUS = {"namespaceSelector": {}, "podSelector": {"matchLabels": {LABEL: "prometheus"}}}
PROBER = {"podSelector": {"matchLabels": {LABEL: "blackbox"}}}
INGRESS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}

CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def manifests(compose: Manifest) -> list[Manifest]:
    """Everything that the service itself consists of; `compose` is docker-compose.yml."""
    return [_namespace(), _deployment(compose), _service(), _budget(), _policy()]


def metadata(name: str) -> Manifest:
    """Name and label, by which selectors find it."""
    return {"name": name, "labels": {LABEL: name}}


def seconds(duration: str) -> int:
    """The seconds of a duration of compose, such as 30s."""
    return int(duration.removesuffix("s"))


def memory(size: str) -> str:
    """A size of compose, such as 512m, in Kubernetes' units."""
    return f"{size.upper()}i"


def pod_security(user: str) -> Manifest:
    """No root, no rights; `user` is compose's uid:gid."""
    uid, gid = map(int, user.split(":"))
    return {
        "runAsNonRoot": True,
        "runAsUser": uid,
        "runAsGroup": gid,
        "fsGroup": gid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _namespace() -> Manifest:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _deployment(compose: Manifest) -> Manifest:
    app = compose["services"]["app"]
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # its variables would look like settings
        "securityContext": pod_security(app["user"]),
        "terminationGracePeriodSeconds": seconds(app["stop_grace_period"]),
        "containers": [_container(app)],
        "volumes": [*_in_memory(app), {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(NAME),
        "spec": {
            "replicas": 2,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": {LABEL: NAME}},
            "template": {"metadata": {"labels": {LABEL: NAME}}, "spec": pod},
        },
    }


def _container(app: Manifest) -> Manifest:
    health = app["healthcheck"]
    pace = {"periodSeconds": seconds(health["interval"]), "timeoutSeconds": seconds(health["timeout"])}
    patience = {**pace, "failureThreshold": health["retries"]}
    (ready,) = re.findall(r"http://127\.0\.0\.1:8000(/\S+?)'", " ".join(health["test"]))
    alive = {"httpGet": {"path": f"{Settings().health_path}/live", "port": "http"}}
    return {
        "name": "app",
        "image": "orders",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": _environment(),
        "readinessProbe": {"httpGet": {"path": ready, "port": "http"}, **pace, "failureThreshold": 2},
        "livenessProbe": {**alive, **patience},
        "startupProbe": {**alive, **patience},
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": memory(app["mem_limit"])},
        },
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            *({"name": volume["name"], "mountPath": path} for volume, path in _memory_mounts(app)),
            {"name": "data", "mountPath": "/data"},
        ],
    }


def _environment() -> list[Manifest]:
    plain = {
        # A directory of its own in the volume, which everybody may write.
        "PROMETHEUS_MULTIPROC_DIR": f"{WORKERS}/workers",
        "EXPORTER_REQUEST_LOG": "stdout",
        "EXPORTER_DRAIN": f"{Settings().drain:g}",
        "APP_PROMETHEUS_URL": "",
        "APP_ALERTMANAGER_URL": "",
        "APP_GRAFANA_URL": "",
    }
    return [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "EXPORTER_INSTANCE", "value": f"$(POD_IP):{PORT}"},  # as Prometheus calls it
        *({"name": name, "value": value} for name, value in plain.items()),
    ]


def _memory_mounts(app: Manifest) -> list[tuple[Manifest, str]]:
    """Each tmpfs of compose as a volume, and where it is mounted."""
    mounts = []
    for mount in app["tmpfs"]:
        path, _, options = mount.partition(":")
        size = memory(dict(option.split("=") for option in options.split(","))["size"])
        name = {WORKERS: "workers", "/tmp": "tmp"}[path]  # noqa: S108
        mounts.append(({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}, path))
    return mounts


def _in_memory(app: Manifest) -> list[Manifest]:
    return [volume for volume, _ in _memory_mounts(app)]


def _service() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(NAME),
        "spec": {
            "selector": {LABEL: NAME},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        },
    }


def _budget() -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(NAME),
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {LABEL: NAME}}},
    }


def _policy() -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(NAME),
        "spec": {
            "podSelector": {"matchLabels": {LABEL: NAME}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [PROMETHEUS, PROBER, INGRESS], "ports": [{"port": "http"}]}],
            "egress": [],
        },
    }
