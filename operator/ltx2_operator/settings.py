"""What an installation decides, not the user of one run: the file that the chart writes and `ltx2 operator` reads.

`Settings` is about the pods of trainings and is all that reconcile sees; `Installation` adds how the operator itself
runs. A run on one machine uses the defaults. Keys are camelCase, as in the chart's values.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from ltx2_job.errors import ConfigError, Problem
from ltx2_operator import __version__
from ltx2_operator.fields import DnsName, Label, Model

Port = Annotated[int, Field(ge=1, le=65535)]
Flavour = Literal["cuda", "rocm", "cpu"]


def _default_images() -> dict[Flavour, str]:
    return {flavour: f"ltx2/job-{flavour}:{__version__}" for flavour in ("cuda", "rocm", "cpu")}


class Proxy(Model):
    """The way out of the cluster, given to pods under the usual names (HTTP_PROXY and so on, both cases)."""

    http: str | None = Field(default=None, description="Proxy for http, as a URL.")
    https: str | None = Field(default=None, description="Proxy for https, as a URL.")
    # Not "no": YAML reads that as false.
    no: str | None = Field(
        default=None, alias="noProxy", description="Hosts reached without it, with commas between them."
    )


class CertificateAuthority(Model):
    """A ConfigMap with the certificates to trust; it must exist in the namespace of each training.

    They take the place of those in the image: a bundle for the proxy of a company holds the public ones, too.
    """

    config_map: DnsName = Field(description="Name of the ConfigMap.")
    key: str = Field(default="ca.crt", min_length=1, max_length=253, description="Key with the PEM bundle.")


class PodTemplate(Model):
    """What spec.podTemplate may ask for. The operator makes pods with its own rights, so the default is: nothing."""

    allow_host_path: bool = Field(default=False, description="Volumes of the node's own disk.")
    allow_privileged: bool = Field(default=False, description="Privileged containers and added capabilities.")
    allow_service_account: bool = Field(default=False, description="A service account of one's own, with its token.")


class Settings(Model):
    """What the installation decides about the pods of trainings."""

    images: dict[Flavour, str] = Field(default_factory=_default_images, description="Job images by flavour.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="As in a pod."
    )
    image_pull_secrets: tuple[DnsName, ...] = Field(default=(), description="Secrets for the registry, by name.")
    metrics_port: Port = Field(default=9464, description="Port of a job's /metrics and /progress.")
    grace_seconds: int = Field(
        default=120, ge=1, le=86400, description="From SIGTERM until the launcher stops waiting for a checkpoint."
    )
    grace_margin_seconds: int = Field(
        default=30, ge=1, le=3600, description="For the launcher's own last word, before the kubelet's SIGKILL."
    )
    # Groups that own /dev/kfd and /dev/dri/renderD* on common hosts (video, render); the device plugin sets none.
    amd_device_groups: tuple[int, ...] = Field(default=(44, 109, 110), description="Groups that AMD devices belong to.")
    runtime_class_names: dict[Literal["nvidia", "amd"], DnsName] = Field(
        default_factory=dict, description="RuntimeClass of pods with GPUs, by vendor."
    )
    hub_endpoint: str | None = Field(default=None, description="HF_ENDPOINT of the pods: a mirror of the model hub.")
    hub_offline: bool = Field(default=False, description="Pods never ask the hub: models come from the volume.")
    proxy: Proxy = Field(default=Proxy(), description="The way out of the cluster.")
    ca: CertificateAuthority | None = Field(default=None, description="Certificates to trust.")
    pod_template: PodTemplate = Field(default=PodTemplate(), description="What spec.podTemplate may ask for.")


class LeaderElection(Model):
    """One replica works, the others wait: a Lease says which. Whoever loses it ends its process."""

    enabled: bool = Field(default=True, description="Off only where there is one replica and never two.")
    lease_name: Label = Field(default="ltx2-operator", description="Name of the Lease, in the operator's namespace.")
    lease_seconds: int = Field(default=15, ge=3, le=3600, description="How long a Lease holds without renewal.")
    renew_seconds: int = Field(default=10, ge=2, le=3600, description="Renewal must succeed within this time.")
    retry_seconds: int = Field(default=2, ge=1, le=3600, description="Between two tries.")


class Api(Model):
    """How hard the API server may be asked."""

    requests_per_second: float = Field(default=50.0, gt=0, description="Mean rate of requests, watches aside.")
    burst: int = Field(default=100, ge=1, description="Requests that may come at once after a quiet time.")
    timeout_seconds: int = Field(default=30, ge=1, le=600, description="For one request.")


class Installation(Model):
    """How one installation of the operator runs."""

    jobs: Settings = Field(default_factory=Settings, description="About the pods of trainings.")
    watch_namespaces: tuple[Label, ...] = Field(default=(), description="Namespaces to look at; empty: all.")
    node_reader: bool = Field(default=True, description="May read nodes: gpu.class auto, and who is short of GPUs.")
    secret_reader: bool = Field(default=True, description="May look whether a named Secret exists.")
    leader_election: LeaderElection = Field(default=LeaderElection(), description="Which replica works.")
    api: Api = Field(default=Api(), description="Requests to the API server.")
    workers: int = Field(default=4, ge=1, le=64, description="Trainings looked at side by side.")
    resync_seconds: int = Field(default=300, ge=10, le=3600, description="A watch lives so long, then lists anew.")
    stale_seconds: int = Field(
        default=600,
        ge=30,
        le=86400,
        description="Without a list or watch that succeeds for so long, the process is unwell.",
    )
    port: Port = Field(default=8080, description="Port of the operator's own /metrics, /healthz and /readyz.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")


SETTINGS_FILE: Final = "/etc/ltx2-operator/settings.yaml"  # where the chart mounts it


def read_installation(document: Mapping[str, Any] | None) -> Installation:
    """The installation that a settings file describes (None: an empty file). Raises ConfigError, naming every key."""
    try:
        return Installation.model_validate(document or {}, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            field = ".".join(str(part) for part in detail["loc"]) or "settings"
            unknown = detail["type"] == "extra_forbidden"
            problems.append(Problem(field, "unknown key" if unknown else f"{detail['input']!r}: {detail['msg']}"))
        raise ConfigError(problems) from None
