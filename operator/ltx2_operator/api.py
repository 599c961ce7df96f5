"""The resource LTX2Training as typed models: the spec here, the status in status.py.

The custom resource definition is generated from these models (crd.py), so what the API server checks and what the
operator reads cannot drift apart. JSON is camelCase; the two pasted files of the guide, `spec.config` and
`spec.datasets`, stay opaque here and are read by ltx2_job.config. Rules that join two fields are written twice, as CEL
for the API server and as a validator for manifests that never meet one (`ltx2 run`); a test puts the same objects
before both.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from ltx2_job.errors import ConfigError, Problem
from ltx2_operator.fields import (
    API_VERSION,
    GROUP,
    KIND,
    NAME_MAX,
    NAME_PATTERN,
    PLURAL,
    VERSION,
    DnsName,
    Int32,
    Label,
    Model,
    Opaque,
    Seconds,
    rule,
)
from ltx2_operator.status import (
    LAST_ATTEMPTS,
    CheckpointStatus,
    Condition,
    Plan,
    Progress,
    Rung,
    Status,
    Verdict,
)

__all__ = [
    "API_VERSION", "GROUP", "KIND", "LAST_ATTEMPTS", "NAME_MAX", "PLURAL", "VERSION",
    "Cache", "CheckpointStatus", "Condition", "ConfigFrom", "Gpu", "Images", "LTX2Training", "Metadata", "Plan",
    "Progress", "Rung", "SecretKey", "Secrets", "Spec", "Status", "Storage", "Verdict", "not_supported_yet", "parse",
]  # fmt: skip


class Gpu(Model):
    """Which GPUs one node of this run gets."""

    class_: Label = Field(
        default="auto", alias="class", description="A class of `ltx2 gpus`, or auto: the cheapest that fits."
    )
    count: Int32 = Field(default=1, ge=1, le=16, description="GPUs per node; for the class cpu: processes per node.")


STORAGE_RULES: Final[list[JsonValue]] = [
    rule(
        "!(has(self.claimName) && has(self.size))",
        expression="'size %s and claimName %s are both set; "
        "remove size to use the claim, or claimName to have one made'.format([self.size, self.claimName])",
    ),
    rule(
        "!(has(self.claimName) && has(self.storageClassName))",
        expression="'storageClassName %s has no effect on the existing claim %s; "
        "remove one of the two'.format([self.storageClassName, self.claimName])",
    ),
]


class Storage(Model):
    """The volume with data sets, models, cache and runs. A claim made here is kept when the object is deleted."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": STORAGE_RULES})

    size: str | None = Field(
        default=None,
        max_length=20,
        pattern=r"^[1-9][0-9]{0,11}(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
        description="Size of the claim to make, as a quantity (200Gi); the plan predicts it when left out.",
    )
    claim_name: DnsName | None = Field(default=None, description="An existing claim to use; none is made then.")
    storage_class_name: DnsName | None = Field(default=None, description="Storage class of the claim to make.")

    @model_validator(mode="after")
    def _one_claim(self) -> Self:
        if self.claim_name and self.size:
            raise ValueError(
                f"size {self.size} and claimName {self.claim_name} are both set; "
                "remove size to use the claim, or claimName to have one made"
            )
        if self.claim_name and self.storage_class_name:
            raise ValueError(
                f"storageClassName {self.storage_class_name} has no effect on the existing claim {self.claim_name}; "
                "remove one of the two"
            )
        return self


class Cache(Model):
    """How the cache stage runs, where it differs from training."""

    gpu: Gpu | None = Field(default=None, description="Another GPU class for the cache stage.")
    shards: Int32 = Field(default=1, ge=1, le=64, description="Pods that fill the cache side by side.")


class Images(Model):
    """Container images in place of the operator's own."""

    cache: str | None = Field(default=None, min_length=1, max_length=512, description="Image of the cache stage.")
    train: str | None = Field(default=None, min_length=1, max_length=512, description="Image of the train stage.")


class SecretKey(Model):
    """One key of a Secret in the same namespace. Values never stand in this object."""

    name: DnsName = Field(description="Name of the Secret.")
    key: str = Field(
        default="token", min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in the Secret."
    )


class Secrets(Model):
    """Where to find tokens."""

    hub_token: SecretKey | None = Field(default=None, description="Token of the model hub, for gated models.")
    tracker_key: SecretKey | None = Field(default=None, description="Key of the experiment tracker.")
    object_store: DnsName | None = Field(default=None, description="Secret with the credentials of an object store.")


class ConfigFrom(Model):
    """A ConfigMap that holds the guide's files, for those who keep files."""

    name: DnsName = Field(description="Name of the ConfigMap.")
    key: str = Field(
        default="config.json",
        min_length=1,
        max_length=253,
        pattern=r"^[-._a-zA-Z0-9]+$",
        description="Key of config.json.",
    )
    datasets_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=r"^[-._a-zA-Z0-9]+$",
        description="Key of multidatabackend.json.",
    )


SPEC_RULES: Final[list[JsonValue]] = [
    rule(
        "has(self.config) != has(self.configFrom)",
        message="exactly one of config and configFrom must be set; paste the guide's config.json under config",
    ),
]


class Spec(Model):
    """What to train, on which GPUs, and where it is kept."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": SPEC_RULES})

    gpu: Gpu = Field(default=Gpu(), description="GPUs of one node.")
    nodes: Int32 = Field(
        default=1, ge=1, le=64, description="Nodes; more than one needs a volume that many nodes can write."
    )
    storage: Storage = Field(default=Storage(), description="The volume.")
    cache: Cache = Field(default=Cache(), description="The cache stage, where it differs.")
    memory: str = Field(
        default="auto",
        max_length=64,
        pattern=r"^(auto|[a-z0-9]+/[a-z0-9]+(:[0-9]+)?/keep:[0-9]+)$",
        description="Memory plan: auto, or one by name, such as bf16/resident/keep:24 (24 blocks are not recomputed).",
    )
    flavour: Literal["cuda", "rocm", "cpu"] | None = Field(
        default=None, description="Image flavour; the GPU class decides when left out."
    )
    images: Images = Field(default=Images(), description="Images per stage.")
    secrets: Secrets = Field(default=Secrets(), description="Names of Secrets.")
    suspend: bool = Field(
        default=False, strict=True, description="Pause: pods end with a checkpoint; false resumes from it."
    )
    queue_name: Label | None = Field(default=None, description="Kueue queue that admits the Jobs.")
    priority_class_name: DnsName | None = Field(default=None, description="Priority class of the pods.")
    active_deadline_seconds: Seconds | None = Field(
        default=None, description="Seconds of running, over all attempts, before the run fails."
    )
    start_deadline_seconds: Seconds = Field(
        default=3600,
        description="Seconds an attempt may wait for its pods; time in a queue or waiting for data does not count.",
    )
    ttl_seconds_after_finished: Annotated[Int32, Field(ge=0, le=10**9)] | None = Field(
        default=None,
        description="Seconds after the end when this object is deleted; never when left out. Claims are kept.",
    )
    retries: Annotated[Int32, Field(ge=0, le=1000)] = Field(
        default=3, description="Failed attempts that are tried again; raising it gives a failed run another attempt."
    )
    resume_from: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
        description="Another run by its name, or a checkpoint's folder under the workspace, to train on from.",
    )
    pod_template: Opaque | None = Field(default=None, description="Strategic merge patch for the pods.")
    config_from: ConfigFrom | None = Field(
        default=None, description="ConfigMap with the guide's files, in place of config."
    )
    config: Opaque | None = Field(default=None, description="The guide's config.json, pasted.")
    datasets: list[Opaque] | None = Field(
        default=None,
        max_length=64,
        description="The guide's multidatabackend.json, pasted.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )

    @model_validator(mode="after")
    def _one_config(self) -> Self:
        if (self.config is None) == (self.config_from is None):
            raise ValueError(
                "exactly one of config and configFrom must be set; paste the guide's config.json under config"
            )
        return self

    @property
    def cache_gpu(self) -> Gpu:
        """The GPU choice of the cache stage: its own, else the one of training."""
        return self.cache.gpu or self.gpu


# ------------------------------------------------------------------------------------------------------------- reading


class Metadata(BaseModel):
    """What the operator reads of an object's metadata."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: str = Field(min_length=1, max_length=NAME_MAX, pattern=NAME_PATTERN)
    namespace: str = "default"
    uid: str = ""
    generation: int = 0


class LTX2Training(BaseModel):
    """One object: what a user wants and what became of it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    metadata: Metadata
    spec: Spec
    status: Status = Status()


def parse(obj: Mapping[str, Any]) -> LTX2Training:
    """Read an object or a manifest.

    Raises ConfigError with every mistake: field, what is wrong with which value, and the nearest known key for a typo.
    """
    problems = []
    if (kind := (obj.get("apiVersion"), obj.get("kind"))) != (API_VERSION, KIND):
        problems.append(Problem("apiVersion, kind", f"{kind[0]}, {kind[1]} is not {API_VERSION}, {KIND}"))
    problems += [Problem(key, "unknown key", _nearest(key, _OBJECT)) for key in obj if key not in _OBJECT]
    if problems and not obj.get("spec"):
        raise ConfigError(problems)  # that nothing stands in it follows from those
    try:
        training = LTX2Training.model_validate(
            {"metadata": obj.get("metadata") or {}, "spec": obj.get("spec") or {}, "status": obj.get("status") or {}},
            by_alias=True,
            by_name=False,  # as the API server: a key has one way to be written
        )
    except ValidationError as error:
        raise ConfigError([*problems, *(_problem(detail) for detail in error.errors(include_url=False))]) from None
    if problems:
        raise ConfigError(problems)
    return training


_OBJECT: Final = ("apiVersion", "kind", "metadata", "spec", "status")
# What to write where a text does not match its pattern.
NAME_REMEDY: Final = "small letters, digits and dashes only, beginning and ending with a letter or digit"
KEY_REMEDY: Final = "letters, digits, dots, dashes and underscores only"
PATTERN_REMEDIES: Final = {
    "metadata.name": "small letters, digits and dashes only, beginning with a letter",
    "spec.storage.size": "write a quantity such as 200Gi",
    "spec.memory": "write auto, or a plan's name such as bf16/resident/keep:24",
    "spec.resumeFrom": "write another run's name, or a path inside the workspace such as "
    "runs/fox/checkpoints/step-0000500",
    "spec.secrets.hubToken.key": KEY_REMEDY,
    "spec.configFrom.key": KEY_REMEDY,
    "spec.configFrom.datasetsKey": KEY_REMEDY,
}


def pattern_remedy(field: str) -> str:
    """What to write where the text of a field (spec.storage.size) does not match its pattern."""
    return PATTERN_REMEDIES.get(field, NAME_REMEDY)


def _problem(detail: Mapping[str, Any]) -> Problem:
    """One of pydantic's findings as a line for users."""
    location = detail["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if field == "metadata.name" and detail["type"] == "string_too_long":
        return Problem(field, f"{len(detail['input'])} characters, at most {NAME_MAX}", "choose a shorter name")
    if detail["type"] == "extra_forbidden":
        return Problem(field, "unknown key", _nearest(str(location[-1]), _keys_at(location[:-1])))
    message = detail["msg"].removeprefix("Value error, ")
    value = repr(detail["input"])
    value = value if len(value) <= 60 else f"{value[:59]}…"
    if detail["type"] in ("missing", "value_error"):
        return Problem(field, message, "" if detail["type"] == "value_error" else "write it")
    if detail["type"] == "string_pattern_mismatch":
        return Problem(field, f"{value} has another form", pattern_remedy(field))
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        keys = _keys_at(location)
        remedy = f"write keys and values under it ({', '.join(keys)})" if keys else "write keys and values under it"
        if keys and isinstance(detail["input"], str):
            remedy = f"write {{{keys[0]}: {detail['input']}}}"
        return Problem(field, f"{value} is no mapping", remedy)
    if detail["type"] == "list_type":
        return Problem(field, f"{value} is no list", "begin each entry with a dash (- )")
    return Problem(field, f"{value}: {message.replace('Input should be', 'must be')}")


def _nearest(key: str, known: Sequence[str]) -> str:
    """What to write for an unknown key."""
    near = get_close_matches(to_camel(key), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    """The keys, as a manifest writes them, of the model at a place of the object."""
    model: Any = LTX2Training
    for part in location:
        by_alias = {info.alias or name: info for name, info in model.model_fields.items()}
        info = by_alias.get(str(part))
        candidates = [] if info is None else [info.annotation, *getattr(info.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return [info.alias or name for name, info in model.model_fields.items()]


def not_supported_yet(spec: Spec) -> list[Problem]:
    """Fields that the definition knows and this version does not act on: named, never silently ignored."""
    found = []
    if spec.cache.shards > 1:
        found.append(Problem("spec.cache.shards", f"{spec.cache.shards} is not supported yet", "set it to 1"))
    for field, value in {
        "spec.secrets.trackerKey": spec.secrets.tracker_key,
    }.items():
        if value is not None:
            found.append(Problem(field, "not supported yet", "remove it"))
    return found
