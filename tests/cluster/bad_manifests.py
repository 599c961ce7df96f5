"""Manifests with one mistake each, and what must be said about it by whom.

`by` says who is the first to speak when the chart is installed with its defaults: the definition's own schema and
rules ("schema"), the admission policy ("policy"), or the operator once the object is stored ("operator"). `says` are
parts of that first answer; `then` are parts of what the operator says where the policy is off.
"""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Obj = dict[str, Any]

SIZE = "write a quantity such as 200Gi"


@dataclass(frozen=True)
class Mistake:
    """One mistake. change: makes it in a good manifest. after: the good object exists and has begun (an update)."""

    name: str
    group: str
    by: Literal["schema", "policy", "operator"]
    change: Callable[[Obj], None]
    says: tuple[str, ...]
    then: tuple[str, ...] = ()
    after: bool = False

    def manifest(self, name: str) -> Obj:
        """The manifest with its mistake."""
        obj = good(name)
        self.change(obj)
        return obj


def good(name: str) -> Obj:
    """A manifest without mistakes."""
    return copy.deepcopy(
        {
            "apiVersion": "ltx2.dev/v1alpha1",
            "kind": "LTX2Training",
            "metadata": {"name": name},
            "spec": {
                "gpu": {"class": "cpu"},
                "storage": {"size": "1Gi"},
                "config": {
                    "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors",
                    "max_train_steps": 5,
                    "validation_disable": True,
                },
                "datasets": [
                    {
                        "id": "clips",
                        "type": "local",
                        "dataset_type": "video",
                        "instance_data_dir": "datasets/videos",
                        "caption_strategy": "textfile",
                        "video": {"num_frames": 17, "min_frames": 17},
                    }
                ],
            },
        }
    )


def put(path: str, value: Any) -> Callable[[Obj], None]:
    """A change that writes a value at a path such as spec.datasets.0.video.num_frames."""

    def change(obj: Obj) -> None:
        *parents, last = path.split(".")
        place: Any = obj
        for part in parents:
            place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
        place[last] = value

    return change


def drop(path: str) -> Callable[[Obj], None]:
    """A change that removes a key."""

    def change(obj: Obj) -> None:
        *parents, last = path.split(".")
        place: Any = obj
        for part in parents:
            place = place[int(part)] if part.isdigit() else place[part]
        del place[last]

    return change


def elsewhere(**keys: str) -> Callable[[Obj], None]:
    """A change that moves the clips from the volume to where these keys say."""

    def change(obj: Obj) -> None:
        (clips,) = obj["spec"]["datasets"]
        del clips["instance_data_dir"]
        clips.update(keys)

    return change


def several(*changes: Callable[[Obj], None]) -> Callable[[Obj], None]:
    """All of these changes."""

    def change(obj: Obj) -> None:
        for one in changes:
            one(obj)

    return change


def _schema(name: str, group: str, change: Callable[[Obj], None], *says: str) -> Mistake:
    return Mistake(name, group, "schema", change, says)


def _policy(name: str, group: str, change: Callable[[Obj], None], says: tuple[str, ...], *then: str) -> Mistake:
    return Mistake(name, group, "policy", change, says, then)


def _operator(name: str, group: str, change: Callable[[Obj], None], *says: str) -> Mistake:
    return Mistake(name, group, "operator", change, says)


def _fixed(name: str, change: Callable[[Obj], None], *says: str) -> Mistake:
    return Mistake(name, "immutability", "schema", change, says, after=True)


def refused(field: str, wrong: str, place: str) -> tuple[str, ...]:
    """The policy's whole message. place: the path of the key's own object, as kubectl writes it."""
    explain = ".".join(filter(None, ("kubectl explain ltx2training", place)))
    return (f"denied request: {field}: {wrong}; `ltx2 check FILE` says what to write, `{explain}` lists the keys",)


def form(field: str, value: str, remedy: str) -> tuple[str, ...]:
    """What the definition says of a text that is written otherwise than it must be."""
    return (f'{field}: Invalid value: "{value}": has another form; {remedy}',)


def unknown(field: str) -> tuple[str, ...]:
    """What the policy says of an unknown key."""
    return refused(field, "unknown key", re.sub(r"\[\d+\]", "", field).rpartition(".")[0])


MISTAKES = (
    # ---- types
    _schema("retries in words", "types", put("spec.retries", "three"), "spec.retries", "must be of type integer"),
    _schema("half a node", "types", put("spec.nodes", 1.5), "spec.nodes", "must be of type integer"),
    _schema("suspend as text", "types", put("spec.suspend", "yes"), "spec.suspend", "must be of type boolean"),
    _schema("gpu as a word", "types", put("spec.gpu", "h100"), "spec.gpu", "must be of type object"),
    _policy(
        "steps in words", "types", put("spec.config.max_train_steps", "many"),
        refused("spec.config.max_train_steps", "must be a number", "spec.config"),
        "spec.config.max_train_steps: must be a whole number, not 'many'",
    ),
    _policy(
        "a switch in words", "types", put("spec.config.validation_disable", ["perhaps"]),
        refused("spec.config.validation_disable", "must be true or false", "spec.config"),
        "spec.config.validation_disable", "true or false",
    ),
    # ---- unknown keys, at each depth
    _policy("beside spec", "unknown keys", put("specs", 1), unknown("specs"), "specs: unknown key; did you mean spec?"),
    _policy("in spec", "unknown keys", put("spec.gpus", 1), unknown("spec.gpus"), "spec.gpus: unknown key; did you mean gpu?"),
    _policy(
        "in spec.gpu", "unknown keys", put("spec.gpu.clas", "cpu"), unknown("spec.gpu.clas"),
        "spec.gpu.clas: unknown key; did you mean class?",
    ),
    _policy(
        "in spec.storage", "unknown keys", put("spec.storage.claim", "x"), unknown("spec.storage.claim"),
        "spec.storage.claim: unknown key; did you mean claimName?",
    ),
    _policy(
        "in spec.config", "unknown keys", put("spec.config.max_train_step", 5), unknown("spec.config.max_train_step"),
        "spec.config.max_train_step: unknown key; did you mean max_train_steps?",
    ),
    _policy(
        "in a data set", "unknown keys", put("spec.datasets.0.instance_dir", "x"), unknown("spec.datasets[0].instance_dir"),
        "spec.datasets[0].instance_dir: unknown key; did you mean instance_data_dir?",
    ),
    _policy(
        "in a data set's video", "unknown keys", put("spec.datasets.0.video.num_framez", 17), unknown("spec.datasets[0].video.num_framez"),
        "spec.datasets[0].video.num_framez: unknown key; did you mean num_frames?",
    ),
    # ---- two fields that do not go together
    _schema(
        "size and claimName", "cross-field", put("spec.storage.claimName", "mine"), "spec.storage",
        "size 1Gi and claimName mine are both set; remove size to use the claim, or claimName to have one made",
    ),
    _schema(
        "config and configFrom", "cross-field", put("spec.configFrom", {"name": "files"}), "spec",
        "exactly one of config and configFrom must be set; paste the guide's config.json under config",
    ),
    _operator(
        "steps and epochs", "cross-field", put("spec.config.num_train_epochs", 2),
        "spec.config: max_train_steps and num_train_epochs are both set; set one of them to 0",
    ),
    _operator(
        "frames that no clip has", "cross-field", put("spec.datasets.0.video.max_frames", 9),
        "spec.datasets[0].video.max_frames: is 9, min_frames is 17: no clip fits; raise max_frames or lower",
    ),
    _operator(
        "two ways to move weights", "cross-field",
        several(put("spec.config.ramtorch", True), put("spec.config.musubi_blocks_to_swap", 3)),
        "spec.config: ramtorch and musubi_blocks_to_swap exclude each other", "keep one of them",
    ),
    # ---- clips that lie elsewhere
    _operator(
        "a bucket with its scheme", "clips elsewhere", elsewhere(type="aws", aws_bucket_name="s3://fox/clips"),
        "spec.datasets[0].aws_bucket_name: 's3://fox/clips' is no name of a bucket", "without s3://",
    ),
    _operator(
        "a folder beside a repository", "clips elsewhere",
        several(put("spec.datasets.0.type", "huggingface"), put("spec.datasets.0.dataset_name", "me/fox")),
        "spec.datasets[0].instance_data_dir: is 'datasets/videos', but the type is huggingface; remove it",
    ),
    _operator(
        "keys in the manifest", "clips elsewhere",
        elsewhere(type="aws", aws_bucket_name="fox", aws_secret_access_key="x"),
        "spec.datasets[0].aws_secret_access_key: known, not offered: keys of an object store stand in no file",
        "spec.secrets.objectStore",
    ),
    # ---- what the first attempt has fixed
    _fixed("another configuration", put("spec.config.max_train_steps", 6), "spec.config is fixed once the first attempt"),
    _fixed("another data set", put("spec.datasets.0.id", "more"), "spec.datasets is fixed once", "make a new object"),
    _fixed("another GPU", put("spec.gpu.class", "h200"), "spec.gpu is fixed once", "make a new object"),
    _fixed("another volume", put("spec.storage.size", "2Gi"), "spec.storage is fixed once", "the volume keeps everything"),
    _fixed("another queue", put("spec.queueName", "other"), "spec.queueName changes only while", "set suspend: true first"),
    # ---- names
    _schema("41 characters", "names", put("metadata.name", "x" * 41), "metadata.name: 41 characters, at most 40"),
    _schema("a digit first", "names", put("metadata.name", "7fox"), "metadata.name", "small letters, digits and dashes only"),
    _schema("a dot", "names", put("metadata.name", "my.fox"), "metadata.name", "small letters, digits and dashes only"),
    # ---- Secrets and claims
    _schema(
        "a token in the manifest", "secrets and claims", put("spec.secrets", {"hubToken": "hf_abcdef"}),
        "spec.secrets.hubToken", "must be of type object",
    ),
    _schema(
        "a Secret's name with capitals", "secrets and claims", put("spec.secrets", {"hubToken": {"name": "No_Name"}}),
        *form("spec.secrets.hubToken.name", "No_Name", "small letters, digits and dashes only"),
    ),
    _operator(
        "no such Secret", "secrets and claims", put("spec.secrets", {"hubToken": {"name": "nowhere"}}),
        "spec.secrets.hubToken.name: no Secret nowhere in this namespace; create it with key token",
    ),
    _operator(
        "a claim that one node writes, for two", "secrets and claims",
        several(drop("spec.storage.size"), put("spec.storage.claimName", "one-node"), put("spec.nodes", 2)),
        "spec.storage.claimName: one-node has access modes ReadWriteOnce; 2 nodes share it",
        "use a ReadWriteMany claim or set nodes: 1",
    ),
    # ---- the patch for the pods
    _schema(
        "a patch that is text", "podTemplate", put("spec.podTemplate", "hostNetwork"), "spec.podTemplate",
        "must be of type object",
    ),
    _operator(
        "another restart policy", "podTemplate", put("spec.podTemplate", {"spec": {"restartPolicy": "OnFailure"}}),
        "spec.podTemplate.spec.restartPolicy",
    ),
    _operator(
        "a folder of the node", "podTemplate",
        put("spec.podTemplate", {"spec": {"volumes": [{"name": "etc", "hostPath": {"path": "/etc"}}]}}),
        "spec.podTemplate.spec.volumes", "hostPath",
    ),
    _operator(
        "a field that no pod has", "podTemplate", put("spec.podTemplate", {"spec": {"nodeSelektor": {"a": "b"}}}),
        "spec.podTemplate", "nodeSelektor",
    ),
    # ---- GPUs
    _operator(
        "half a name", "gpu", put("spec.gpu.class", "h100"),
        "spec.gpu.class: h100 is no GPU class; did you mean h100-pcie or h100-80g or h100-nvl?",
    ),
    _operator("too old", "gpu", put("spec.gpu.class", "t4"), "spec.gpu.class: t4 does not compute in bf16", "rtx-3090"),
    _operator(
        "too small", "gpu",
        several(put("spec.gpu.class", "l4"), put("spec.config.pretrained_model_name_or_path", "Lightricks/LTX-2")),
        "l4 has 21.8 GiB", "what would fit: gpu.class: a40",
    ),
    _schema("no GPU at all", "gpu", put("spec.gpu.count", 0), "spec.gpu.count", "should be greater than or equal to 1"),
    # ---- storage and memory
    _schema("a size in words", "storage", put("spec.storage.size", "plenty"), *form("spec.storage.size", "plenty", SIZE)),
    _schema("a negative size", "storage", put("spec.storage.size", "-5Gi"), *form("spec.storage.size", "-5Gi", SIZE)),
    _schema(
        "a class for a claim that exists", "storage",
        several(drop("spec.storage.size"), put("spec.storage.claimName", "mine"), put("spec.storage.storageClassName", "fast")),
        "storageClassName fast has no effect on the existing claim mine; remove one of the two",
    ),
    _operator(
        "a plan that is not built", "storage", put("spec.memory", "int8/resident/keep:0"),
        "spec.memory: int8/resident/keep:0 is not supported yet; write",
    ),
    # ---- deadlines
    _schema(
        "no time at all", "deadlines", put("spec.activeDeadlineSeconds", 0), "spec.activeDeadlineSeconds",
        "should be greater than or equal to 1",
    ),
    _schema(
        "an hour in words", "deadlines", put("spec.startDeadlineSeconds", "1h"), "spec.startDeadlineSeconds",
        "must be of type integer",
    ),
    _schema(
        "gone before its end", "deadlines", put("spec.ttlSecondsAfterFinished", -1), "spec.ttlSecondsAfterFinished",
        "should be greater than or equal to 0",
    ),
)  # fmt: skip
