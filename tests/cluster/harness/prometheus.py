"""A real Prometheus inside a cluster, with the targets that Prometheus Operator derives from the installed monitors.

Prometheus Operator itself does not run: its definitions validate the objects, and `scrape_configs` does for the few
fields that the chart uses what it does. A field that is not known here is an error.
"""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from . import binaries
from .client import Kubectl, established
from .cluster import Cluster
from .processes import wait

PORT = 9090
# The release's own source, as the Go module proxy has it, and its hash as go.sum would write it.
OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
OPERATOR_SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
_POD, _SERVICE = "__meta_kubernetes_pod", "__meta_kubernetes_service"


def define_monitors(kubectl: Kubectl) -> None:
    """Install the definitions of PodMonitor, ServiceMonitor and PrometheusRule.

    Raises:
        Missing: they cannot be downloaded.
    """
    command = [binaries.go(), "mod", "download", "-json", OPERATOR]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        said = f"{done.stdout[-300:]}{done.stderr[-300:]}"
        raise binaries.Missing(f"Prometheus Operator's definitions cannot be downloaded: {said}")
    found = json.loads(done.stdout)
    assert found["Sum"] == OPERATOR_SUM, f"{OPERATOR} has the hash {found['Sum']}"
    folder = Path(found["Dir"]) / "example" / "prometheus-operator-crd"
    for name in ("podmonitors", "servicemonitors", "prometheusrules"):
        kubectl("apply", "--server-side", "-f", str(folder / f"monitoring.coreos.com_{name}.yaml"))
        established(kubectl, f"{name}.monitoring.coreos.com")


def scrape_configs(monitors: list[Mapping[str, Any]], kubeconfig: Path) -> list[dict[str, Any]]:
    """The scrape configurations of PodMonitors and ServiceMonitors as the API server holds them."""
    made = []
    for monitor in monitors:
        metadata, spec = monitor["metadata"], dict(monitor["spec"])
        pods = monitor["kind"] == "PodMonitor"
        endpoints = spec.pop("podMetricsEndpoints" if pods else "endpoints")
        labels = spec.pop("selector").pop("matchLabels")
        where = _namespaces(spec.pop("namespaceSelector", {}), metadata["namespace"])
        _nothing_else(spec)
        for number, endpoint in enumerate(map(dict, endpoints)):
            name = f"{metadata['namespace']}/{metadata['name']}"
            discovery = {"role": "pod" if pods else "endpointslice", "kubeconfig_file": str(kubeconfig), **where}
            relabelings = [_snake(rule) for rule in endpoint.pop("relabelings", [])]
            own = _pods(labels, endpoint["port"], name) if pods else _services(labels, endpoint["port"])
            endpoint.pop("port")
            made.append({
                "job_name": f"{monitor['kind']}/{name}/{number}",
                "kubernetes_sd_configs": [discovery],
                "scrape_interval": endpoint["interval"], "scrape_timeout": endpoint.pop("interval"),
                "metrics_path": endpoint.pop("path"), "honor_labels": endpoint.pop("honorLabels", False),
                "relabel_configs": [*own, *relabelings],
            })  # fmt: skip
            _nothing_else(endpoint)
    return made


def _nothing_else(rest: Mapping[str, Any]) -> None:
    assert not rest, f"unknown fields of a monitor: {sorted(rest)}"


def _namespaces(selector: Mapping[str, Any], own: str) -> dict[str, Any]:
    return {} if selector.get("any") else {"namespaces": {"names": selector.get("matchNames", [own])}}


def _snake(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): value for key, value in rule.items()}


def _keep(source: str, value: str) -> dict[str, Any]:
    return {"action": "keep", "source_labels": [source], "regex": re.escape(value).replace("\\-", "-")}


def _label(target: str, source: str) -> dict[str, Any]:
    return {"action": "replace", "source_labels": [source], "target_label": target}


def _selected(prefix: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    return [_keep(f"{prefix}_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}", value) for key, value in labels.items()]


def _pods(labels: Mapping[str, str], port: str, name: str) -> list[dict[str, Any]]:
    return [
        {"action": "drop", "source_labels": [f"{_POD}_phase"], "regex": "(Failed|Succeeded)"},
        *_selected(_POD, labels),
        _keep(f"{_POD}_container_port_name", port),
        _label("namespace", "__meta_kubernetes_namespace"),
        _label("container", f"{_POD}_container_name"),
        _label("pod", f"{_POD}_name"),
        {"target_label": "job", "replacement": name},
        {"target_label": "endpoint", "replacement": port},
    ]


def _services(labels: Mapping[str, str], port: str) -> list[dict[str, Any]]:
    return [
        *_selected(_SERVICE, labels),
        _keep("__meta_kubernetes_endpointslice_port_name", port),
        _label("namespace", "__meta_kubernetes_namespace"),
        _label("service", f"{_SERVICE}_name"),
        _label("pod", f"{_POD}_name"),
        _label("container", f"{_POD}_container_name"),
        _label("job", f"{_SERVICE}_name"),
        {"target_label": "endpoint", "replacement": port},
    ]


class Prometheus:
    """One process inside a cluster's namespaces, asked through this machine's loopback."""

    def __init__(self, cluster: Cluster, folder: Path, monitors: list[Mapping[str, Any]], rules: Mapping[str, Any]):
        """Start it on these monitors and rule groups (the spec of a PrometheusRule).

        Raises:
            Missing: it cannot be built.
            StartFailed: it did not come up.
        """
        assert cluster.plane is not None
        (folder / "rules.yaml").write_text(yaml.safe_dump(dict(rules)))
        config = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": scrape_configs(monitors, cluster.plane.kubeconfig("admin")),
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        log = cluster.folder / "logs" / "prometheus.log"
        command = [
            str(binaries.prometheus()), f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{PORT}",
        ]  # fmt: skip
        self.process = cluster.namespace.start("prometheus", command, log)
        ready = f"http://127.0.0.1:{PORT}/-/ready"
        try:
            wait("Prometheus", lambda: cluster.namespace.answers(ready), log, self.process)
            self._forwarder, self._port = cluster.forward(PORT, "prometheus-forward")
        except BaseException:
            self.process.end()
            raise

    def end(self) -> None:
        """End it, and the way to it."""
        self._forwarder.kill()
        self.process.end()

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its HTTP API. Raises urllib.error.HTTPError where it refuses the question."""
        words = urllib.parse.urlencode(parameters, doseq=True)
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}?{words}", timeout=30) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str, begin: float, end: float) -> list[dict[str, str]]:
        """The labels of each series that an expression yields between two moments (Unix seconds)."""
        found = self.ask("query_range", query=expression, start=begin, end=end, step=2)
        return [dict(one["metric"]) for one in found["result"]]

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """The alerts that fire now, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found
