"""Values that the tests of the chart render, by name: as little as possible, as much as possible, and between."""

from typing import Any

MINIMAL: dict[str, Any] = {
    "crds": {"enabled": False},
    "admissionPolicy": {"enabled": False},
    "rbac": {"create": False, "userRoles": {"create": False}},
    "serviceAccount": {"create": False, "name": "given"},
    "podDisruptionBudget": {"enabled": False},
    "leaderElection": {"enabled": False},
    "tests": {"create": False},
}
NAMESPACES: dict[str, Any] = {"watchNamespaces": ["art", "ml"], "rbac": {"nodeReader": False, "secretReader": False}}
FULL: dict[str, Any] = {
    "fullnameOverride": "trainer",
    "commonLabels": {"team": "art"},
    "image": {"registry": "registry.example.org:5000", "digest": "sha256:" + "0a" * 32, "pullPolicy": "Always"},
    "imagePullSecrets": ["registry"],
    "serviceAccount": {"annotations": {"example.org/role": "trainer"}},
    "replicaCount": 3,
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "resources": {"limits": {"memory": "1Gi"}},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}]}}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
                                   "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": "ltx2"}}}],
    "podAnnotations": {"example.org/note": "1"},
    "podLabels": {"example.org/cost": "art"},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "serviceAnnotations": {"example.org/note": "2"},
    "metrics": {
        "serviceMonitor": {"enabled": True, "additionalLabels": {"release": "prom"}},
        "podMonitor": {"enabled": True, "additionalLabels": {"release": "prom"}},
        "prometheusRule": {"enabled": True, "additionalLabels": {"release": "prom"}, "alertLabels": {"team": "art"},
                           "runbookUrl": "https://example.org/runbooks/"},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Training"}},
    },
    "networkPolicy": {"enabled": True, "apiServerCidrs": ["10.0.0.1/32"],
                      "jobs": {"enabled": True, "namespaces": ["art", "ml"]}},
    "jobs": {
        "images": {"cpu": "mirror/job:1"},
        "imagePullPolicy": "Never",
        "imagePullSecrets": ["jobs-registry"],
        "metricsPort": 9999,
        "graceSeconds": 60,
        "amdDeviceGroups": [],
        "runtimeClassNames": {"nvidia": "nvidia"},
        "hubEndpoint": "https://hub.example.org",
        "hubOffline": True,
        "proxy": {"https": "http://proxy:3128", "noProxy": "10.0.0.0/8,.svc"},
        "ca": {"configMap": "corporate-ca"},
        "podTemplate": {"allowHostPath": True},
    },
    "leaderElection": {"leaseName": "one", "leaseSeconds": 30},
    "api": {"requestsPerSecond": 7.5},
    "workers": 8,
    "resyncSeconds": 60,
    "staleSeconds": 1000,
    "port": 9090,
    "logLevel": "debug",
}  # fmt: skip
CASES = {"default": {}, "minimal": MINIMAL, "namespaces": NAMESPACES, "full": FULL}
