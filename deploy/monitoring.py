"""What the Prometheus operator takes: the service's monitor, its probe with the prober, and the rules."""

from typing import Any

from deploy.service import (
    CONTAINER_SECURITY,
    LABEL,
    NAME,
    NAMESPACE,
    PORT,
    PROMETHEUS,
    Manifest,
    memory,
    metadata,
    pod_security,
)

OPERATOR = "monitoring.coreos.com/v1"
PROBER_PORT = 9115
CONFIGURATION = "/etc/blackbox_exporter/config.yml"


def manifests(compose: Manifest, prometheus: Manifest, probe: list[Manifest], modules: str) -> list[Manifest]:
    """The monitor and the probe, with the prober.

    `prometheus` is prometheus.yml, `probe` targets/probe.yml, and `modules` the text of blackbox.yml.
    """
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    pace = {
        "interval": prometheus["global"]["scrape_interval"],
        "scrapeTimeout": prometheus["global"]["scrape_timeout"],
    }
    return [
        _monitor(prometheus["global"], jobs["app"], pace),
        _probe(jobs["probe"], probe, pace),
        *_prober(compose["services"]["blackbox"], modules),
    ]


def rule(name: str, groups: list[Any]) -> Manifest:
    """A file of rules, `name`.yml."""
    return {
        "apiVersion": OPERATOR,
        "kind": "PrometheusRule",
        "metadata": metadata(f"flask-{name}"),
        "spec": {"groups": groups},
    }


def _limits(job: Manifest) -> Manifest:
    return {"sampleLimit": job["sample_limit"], "labelLimit": job["label_limit"]}


def _monitor(everywhere: Manifest, job: Manifest, pace: Manifest) -> Manifest:
    return {
        "apiVersion": OPERATOR,
        "kind": "ServiceMonitor",
        "metadata": metadata(NAME),
        "spec": {
            "selector": {"matchLabels": {LABEL: NAME}},
            "endpoints": [
                {
                    "port": "http",
                    **pace,
                    # The operator calls the job as the service; the label `service` has that name already.
                    "relabelings": [{"targetLabel": "job", "replacement": job["job_name"]}],
                }
            ],
            "scrapeNativeHistograms": job["scrape_native_histograms"],
            "scrapeClassicHistograms": everywhere["always_scrape_classic_histograms"],
            **_limits(job),
        },
    }


def _probe(job: Manifest, targets: list[Manifest], pace: Manifest) -> Manifest:
    (module,) = job["params"]["module"]
    (group,) = targets
    inside = f"{NAME}.{NAMESPACE}.svc:{PORT}"
    return {
        "apiVersion": OPERATOR,
        "kind": "Probe",
        "metadata": metadata(NAME),
        "spec": {
            "jobName": job["job_name"],
            **pace,
            "module": module,
            "prober": {"url": f"blackbox.{NAMESPACE}.svc:{PROBER_PORT}"},
            "targets": {
                "staticConfig": {
                    "static": [url.replace(f"app:{PORT}", inside) for url in group["targets"]],
                    "labels": group["labels"],
                }
            },
            **_limits(job),
        },
    }


def _prober(blackbox: Manifest, modules: str) -> list[Manifest]:
    name = "blackbox"
    labels = {LABEL: name}
    container = {
        "name": name,
        "image": blackbox["image"],
        "args": [f"--config.file={CONFIGURATION}"],
        "ports": [{"name": "http", "containerPort": PROBER_PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/healthy", "port": "http"}},
        "livenessProbe": {"httpGet": {"path": "/-/healthy", "port": "http"}},
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": memory(blackbox["mem_limit"])},
        },
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "configuration", "mountPath": CONFIGURATION.rpartition("/")[0]}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": pod_security(blackbox["user"]),
        "containers": [container],
        "volumes": [{"name": "configuration", "configMap": {"name": name}}],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(name),
            "data": {CONFIGURATION.rpartition("/")[2]: modules},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata(name),
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata(name),
            "spec": {
                "selector": labels,
                "ports": [{"name": "http", "port": PROBER_PORT, "targetPort": "http"}],
            },
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(name),
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [PROMETHEUS], "ports": [{"port": "http"}]}],
            },
        },
    ]
