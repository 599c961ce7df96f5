"""The values of the chart, as models: what each means, its default and its form.

values.yaml, values.schema.json and the table of the chart's README are written from here, so none of them can forget a
value. What the operator itself reads (ltx2_operator.settings.Installation) is taken over field by field.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ltx2_operator.fields import Label, Model
from ltx2_operator.settings import Installation

Free = dict[str, Any]  # an object of the Kubernetes API, which knows its form better than we do
Texts = dict[str, str]
Digest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Port = Annotated[int, Field(ge=1, le=65535)]

# Fields of Installation that another value decides.
DERIVED: Final = {"node_reader": "rbac.nodeReader", "secret_reader": "rbac.secretReader"}


class Image(Model):
    registry: str = Field(default="", description="Registry of all our images: put before the repository and before "
                          "the default images of jobs. Empty: the container runtime's own default.")  # fmt: skip
    repository: str = Field(default="ltx2/operator", description="Repository of the operator's image.")
    tag: str = Field(default="", description="Tag; empty: the chart's appVersion.")
    digest: Digest = Field(default="", description="Digest (sha256:…); it beats the tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(default="IfNotPresent", description="As in a pod.")


class Crds(Model):
    enabled: bool = Field(default=True, description="Install the definition of LTX2Training and keep it up to date.")
    keep: bool = Field(
        default=True,
        description="Keep the definition when the release is uninstalled. Off: every LTX2Training of the cluster is "
        "deleted with it (their claims stay in any case).",
    )


class AdmissionPolicy(Model):
    enabled: bool = Field(
        default=True,
        description="Refuse unknown and mistyped keys of spec.config and spec.datasets at once, for every client. "
        "Off: the operator names them after the object was stored (condition Accepted).",
    )


class UserRoles(Model):
    create: bool = Field(default=True, description="Make the ClusterRoles of viewers and editors of trainings.")
    aggregate: bool = Field(default=True, description="Add them to the cluster's own roles view, edit and admin.")


class Rbac(Model):
    create: bool = Field(default=True, description="Make the roles of the operator and bind them.")
    node_reader: bool = Field(
        default=True,
        description="Let the operator read nodes (a ClusterRole even with watchNamespaces). Needed by gpu.class auto "
        "and to tell who is short of GPUs; without it auto is refused by name.",
    )
    secret_reader: bool = Field(
        default=True,
        description="Let the operator look whether a named Secret exists, before any pod waits for it. Without it a "
        "missing Secret shows as a pod that cannot start.",
    )
    user_roles: UserRoles = Field(default=UserRoles(), description="Roles for people.")


class ServiceAccount(Model):
    create: bool = Field(default=True, description="Make the service account of the operator.")
    name: str = Field(default="", description="Its name; empty: the full name of the release, or default if not made.")
    annotations: Texts = Field(default={}, description="Annotations of the service account.")


class PodDisruptionBudget(Model):
    enabled: bool = Field(default=True, description="Let drains take the replicas one by one.")
    max_unavailable: int | Annotated[str, Field(pattern="^[0-9]{1,3}%$")] = Field(
        default=1, description="Replicas that may be away, as a number or a percentage."
    )


class ServiceMonitor(Model):
    enabled: bool = Field(default=False, description="Make a ServiceMonitor for the operator's own metrics.")
    interval: str = Field(default="30s", pattern="^[0-9]+(ms|s|m)$", description="How often they are read.")
    additional_labels: Texts = Field(default={}, description="Labels that your Prometheus selects, e.g. release.")


class PodMonitor(Model):
    enabled: bool = Field(default=False, description="Make a PodMonitor for the pods of trainings.")
    interval: str = Field(default="15s", pattern="^[0-9]+(ms|s|m)$", description="How often they are read.")
    additional_labels: Texts = Field(default={}, description="Labels that your Prometheus selects, e.g. release.")


class PrometheusRule(Model):
    enabled: bool = Field(default=False, description="Make the alerts.")
    additional_labels: Texts = Field(default={}, description="Labels that your Prometheus selects, e.g. release.")
    alert_labels: Texts = Field(default={}, description="Labels of every alert, e.g. team.")
    runbook_url: str = Field(default="", description="Address before the alert's name in runbook_url; empty: none.")
    stalled_minutes: int = Field(default=15, ge=1, le=1440, description="Minutes without a step that raise an alert.")
    checkpoint_intervals: int = Field(
        default=3, ge=2, le=100, description="Age of the newest checkpoint that raises an alert, in usual intervals."
    )
    attempts_per_hour: int = Field(default=3, ge=2, le=100, description="Attempts within an hour that raise an alert.")
    cache_hours: int = Field(default=6, ge=1, le=720, description="Hours of a cache stage that raise an alert.")
    claim_percent: int = Field(default=90, ge=1, le=99, description="Fill of a training's claim that raises an alert.")
    queue_depth: int = Field(default=100, ge=1, description="Length of the operator's queue that raises an alert.")


class Dashboards(Model):
    enabled: bool = Field(default=False, description="Make the Grafana dashboards, as ConfigMaps for its sidecar.")
    labels: Texts = Field(default={"grafana_dashboard": "1"}, description="Labels that the sidecar looks for.")
    annotations: Texts = Field(default={}, description="Annotations, e.g. grafana_folder.")


class Metrics(Model):
    service_monitor: ServiceMonitor = Field(default=ServiceMonitor(), description="Prometheus Operator: the operator.")
    pod_monitor: PodMonitor = Field(default=PodMonitor(), description="Prometheus Operator: the jobs.")
    prometheus_rule: PrometheusRule = Field(default=PrometheusRule(), description="Prometheus Operator: alerts.")
    dashboards: Dashboards = Field(default=Dashboards(), description="Grafana.")


class JobPolicies(Model):
    enabled: bool = Field(
        default=False, description="Also make policies for the pods of trainings; needs networkPolicy.enabled."
    )
    namespaces: tuple[Label, ...] = Field(
        default=(), description="Where: a policy belongs to one namespace. Empty: watchNamespaces."
    )
    egress: tuple[Free, ...] = Field(
        default=({},), description="Egress rules of these pods; the default allows all (hub, object stores, peers)."
    )


class NetworkPolicy(Model):
    enabled: bool = Field(default=False, description="Make a NetworkPolicy for the operator.")
    api_server_cidrs: tuple[Cidr, ...] = Field(default=("0.0.0.0/0", "::/0"), description="Where the API server is.")
    api_server_ports: tuple[Port, ...] = Field(
        default=(443, 6443), min_length=1, description="Ports of the API server."
    )
    prometheus: tuple[Free, ...] = Field(
        default=({"namespaceSelector": {}},),
        description="Who may read metrics, as peers of an ingress rule; the default is every pod of the cluster.",
    )
    jobs: JobPolicies = Field(default=JobPolicies(), description="The pods of trainings.")


class Tests(Model):
    create: bool = Field(default=True, description="Make the pod of `helm test`.")


class Values(Model):
    """The chart's own values, in the order of values.yaml; those of Installation follow."""

    name_override: str = Field(default="", max_length=63, description="In place of the chart's name in names.")
    fullname_override: str = Field(default="", max_length=52, description="In place of the whole name of the objects.")
    common_labels: Texts = Field(default={}, description="Labels of every object of the chart.")
    image: Image = Field(default=Image(), description="The operator's image.")
    image_pull_secrets: tuple[Label, ...] = Field(
        default=(), description="Secrets for the operator's registry, by name. Those of jobs: jobs.imagePullSecrets."
    )
    crds: Crds = Field(default=Crds(), description="The definition of LTX2Training.")
    admission_policy: AdmissionPolicy = Field(default=AdmissionPolicy(), description="A ValidatingAdmissionPolicy.")
    rbac: Rbac = Field(default=Rbac(), description="Who may do what.")
    service_account: ServiceAccount = Field(default=ServiceAccount(), description="The operator's identity.")
    replica_count: int = Field(default=1, ge=0, le=16, description="Operators; one works, the others wait.")
    pod_disruption_budget: PodDisruptionBudget = Field(default=PodDisruptionBudget(), description="Drains.")
    resources: Free = Field(
        default={"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}},
        description="Of the operator's container. Memory grows with the number of trainings, pods and nodes it sees.",
    )
    pod_security_context: Free = Field(
        default={
            "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        },
        description="Of the operator's pod. OpenShift assigns users itself: set runAsUser and runAsGroup to null.",
    )  # fmt: skip
    container_security_context: Free = Field(
        default={
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        description="Of the operator's container.",
    )  # fmt: skip
    priority_class_name: str = Field(default="", description="Priority class of the operator's pod.")
    node_selector: Texts = Field(default={}, description="Nodes for the operator's pod.")
    tolerations: tuple[Free, ...] = Field(default=(), description="Taints that the operator's pod bears.")
    affinity: Free = Field(default={}, description="Affinity of the operator's pod.")
    topology_spread_constraints: tuple[Free, ...] = Field(
        default=(), description="Spread of the replicas. Empty: over nodes and zones where that can be had."
    )
    pod_annotations: Texts = Field(default={}, description="Annotations of the operator's pod.")
    pod_labels: Texts = Field(default={}, description="Further labels of the operator's pod.")
    extra_env: tuple[Free, ...] = Field(default=(), description="Further environment variables of the operator.")
    service_annotations: Texts = Field(default={}, description="Annotations of the operator's Service.")
    metrics: Metrics = Field(default=Metrics(), description="What Prometheus and Grafana get.")
    network_policy: NetworkPolicy = Field(default=NetworkPolicy(), description="Who may talk to whom.")
    tests: Tests = Field(default=Tests(), description="`helm test`.")


# Defaults that a chart writes otherwise than the operator: an empty text stands for "not set", since Helm drops null.
AS_VALUES: Final[dict[str, Any]] = {
    "jobs.images": {"cuda": "", "rocm": "", "cpu": ""},
    "jobs.ca": {},
    "leaderElection.leaseName": "",
}
DESCRIPTIONS: Final = {
    "leaderElection.leaseName": "Name of the Lease, in the operator's namespace; empty: the full name of the release.",
    "jobs.images": "Job images by flavour; empty: ltx2/job-<flavour>:<appVersion> from image.registry.",
    "jobs.ca": "Certificates to trust in place of the image's own: a whole bundle, the public authorities included, as "
    "{configMap: NAME, key: ca.crt}; the ConfigMap must exist in the namespace of each training.",
}

MODELS: Final[tuple[type[Model], ...]] = (Values, Installation)
