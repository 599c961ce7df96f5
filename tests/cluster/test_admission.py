"""The chart's admission policy on a real API server: what it names, for which client, and what it lets pass."""

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from pydantic import TypeAdapter, ValidationError

from clients import CHART, run_helm
from cluster.harness.client import established
from ltx2_job.config import layers
from ltx2_job.config.layers import DATASET, TRAINING, VIDEO, Names
from ltx2_operator import admission
from ltx2_operator.api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from patience import until

pytestmark = pytest.mark.cluster

GUIDE = Path(__file__).resolve().parents[2] / "configs" / "guide"
CHECK = "`ltx2 check FILE` says what to write, "


def remedy(said: list[str]) -> str:
    """What must follow these sentences: the objects whose keys they are about, each once, as kubectl writes them."""
    places = dict.fromkeys(re.sub(r"[.]?[^.]+$|\[\d+\]", "", one.partition(": ")[0]) for one in said)
    commands = [f"`kubectl explain ltx2training{place and '.'}{place}`" for place in places]
    return f"{CHECK}{', '.join(commands)} {'lists' if len(commands) == 1 else 'list'} the keys"


def training(config: Any, datasets: Any = None, **spec: Any) -> dict[str, Any]:
    if datasets is not None:
        spec["datasets"] = datasets
    metadata = {"name": "oops", "namespace": "default"}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {"config": config, **spec}}


class Judge:
    """The server's word on an object that is never stored."""

    def __init__(self, plane: Any) -> None:
        self.kubectl = plane.kubectl
        self.api = kubernetes.client.CustomObjectsApi(plane.api())

    def __call__(self, obj: dict[str, Any]) -> list[str]:
        """What the policy says to a plain POST: its sentences, none where the object is taken."""
        try:
            self.api.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, obj, dry_run="All")
        except kubernetes.client.ApiException as refused:
            message = json.loads(refused.body)["message"]
            assert refused.status == 422 and admission.NAME in message, message
            said = message.partition("denied request: ")[2]
            sentences, _, then = said.partition(f"; {CHECK}")
            named = list(sentences.split(" | "))
            if named != ["unknown or mistyped keys"]:
                assert CHECK + then == remedy(named), said
            return named
        return []


@pytest.fixture(scope="module")
def judge(fresh_control_plane: Any) -> Iterator[Judge]:
    where = ["--namespace", "ltx2-system", "--create-namespace", "--kubeconfig", str(fresh_control_plane.kubeconfig)]
    run_helm(4, "install", "ltx2-operator", str(CHART), *where, values={"replicaCount": 0})
    established(fresh_control_plane.kubectl, "ltx2trainings.ltx2.dev")
    made = Judge(fresh_control_plane)
    deadline = time.monotonic() + 30
    while not made(training({"no_such_key": 1})):  # a policy comes into force within seconds
        assert time.monotonic() < deadline, "the policy refuses nothing"
        time.sleep(0.1)
    yield made


# -------------------------------------------------------------------------------------------------------- what it says


def test_the_server_finds_no_fault_with_the_policy(judge: Judge) -> None:
    """Type checks of its expressions against the definition come as warnings in its status.

    A fault in a variable is told to nobody and costs the controllers seconds, so one of each kind is checked as what
    is validated.
    """
    spec = admission.policy()["spec"]
    kinds = ("said", "said_spec", "said_spec_gpu", "said_spec_config", "said_spec_datasets", "said_spec_datasets_video")
    texts = {one["name"]: one["expression"] for one in spec["variables"]}
    validations = [*spec["validations"], *({"expression": f"({texts[kind]}) == ''"} for kind in kinds)]
    meta = {"name": "variables.of.the.policy"}
    checked = {**admission.policy(), "metadata": meta, "spec": {**spec, "validations": validations}}
    judge.kubectl("create", "-f", "-", manifest=checked)
    for name in (meta["name"], admission.NAME):
        get = partial(judge.kubectl.get, "validatingadmissionpolicy", name)
        until(lambda get=get: "typeChecking" in get().get("status", {}), "the type check")
        assert get()["status"]["typeChecking"].get("expressionWarnings", []) == []


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (training({"max_train_stepz": 5}), ["spec.config.max_train_stepz: unknown key"]),
        (training({"learning_rate": "fast"}), ["spec.config.learning_rate: must be a number"]),
        (training({"max_train_steps": True}), ["spec.config.max_train_steps: must be a number"]),
        (training({"train_text_encoders": {}}), ["spec.config.train_text_encoders: unknown key"]),
        (training({"output_dir": ["a"]}), ["spec.config.output_dir: must be text"]),
        (training({"optimizer": "adamx"}), ["spec.config.optimizer: unknown value adamx"]),
        (training({"--seeed": 1}), ["spec.config.--seeed: unknown key"]),
        (
            training({"sead": 1, "lora_rank": "big"}),
            ["spec.config.sead: unknown key", "spec.config.lora_rank: must be a number"],
        ),
        (training({}, [{"id": "a"}, {"id": "b", "repeatz": 1}]), ["spec.datasets[1].repeatz: unknown key"]),
        (training({}, [{"repeats": "often"}]), ["spec.datasets[0].repeats: must be a number"]),
        (training({}, [{"video": {"num_framez": 49}}]), ["spec.datasets[0].video.num_framez: unknown key"]),
        (training({}, [{"video": {"num_frames": []}}]), ["spec.datasets[0].video.num_frames: must be a number"]),
        (training({}, [{"video": "wide"}]), ["spec.datasets[0].video: must be an object"]),
        (training({}, [{"audio": {"auto_spilt": True}}]), ["spec.datasets[0].audio.auto_spilt: unknown key"]),
        (
            training({}, [{"audio": {"auto_split": "maybe"}}]),
            ["spec.datasets[0].audio.auto_split: must be true or false"],
        ),
        (training({}, [{"crop_style": "middle"}]), ["spec.datasets[0].crop_style: unknown value middle"]),
        (
            training({"sead": 1}, [{"x": 1, "video": {"y": 1}}]),
            [
                "spec.config.sead: unknown key",
                "spec.datasets[0].x: unknown key",
                "spec.datasets[0].video.y: unknown key",
            ],
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_place(judge: Judge, obj: dict[str, Any], said: list[str]) -> None:
    assert judge(obj) == said


def test_the_last_dataset_is_looked_at_like_the_first(judge: Judge) -> None:
    """Mutation caught: a list of places shorter than what the definition allows."""
    entries: list[dict[str, Any]] = [{"id": f"clips-{n}"} for n in range(64)]
    assert judge(training({}, entries)) == []
    entries[-1]["repeatz"] = 1
    assert judge(training({}, entries)) == ["spec.datasets[63].repeatz: unknown key"]


def test_more_mistakes_than_a_message_holds_still_get_the_remedy(judge: Judge) -> None:
    said = judge(training({f"no_such_key_{n:03}_{'x' * 40}": 1 for n in range(200)}))
    assert said == ["unknown or mistyped keys"]


def test_the_typed_half_is_looked_at_at_every_depth(judge: Judge) -> None:
    """The definition keeps unknown keys; mutation caught: a block of the definition that the policy does not know."""
    obj = training({})
    obj["spec"] |= {"gpus": 1, "secrets": {"hubToken": {"name": "hf", "kee": "x"}}, "cache": {"gpu": {"clas": "cpu"}}}
    assert judge(obj | {"specs": {}}) == [
        "specs: unknown key",
        "spec.gpus: unknown key",
        "spec.cache.gpu.clas: unknown key",
        "spec.secrets.hubToken.kee: unknown key",
    ]


def test_the_command_that_it_names_lists_the_keys_of_that_object(judge: Judge) -> None:
    """For every object that has keys; mutation caught: a remedy that names another object, or one without keys."""
    entry = {"id": "a", "b": 1, "video": {"c": 1}, "audio": {"d": 1}}
    obj = training({"a": 1}, [entry], e=1, gpu={"class": "cpu", "f": 1}, cache={"g": 1, "gpu": {"h": 1}})
    obj["spec"] |= {"storage": {"size": "1Gi", "i": 1}, "images": {"j": 1}, "k": 1}
    obj["spec"] |= {"secrets": {"l": 1, "hubToken": {"name": "hub", "m": 1}}}
    places = {"": "spec", "spec": "gpu", "spec.gpu": "class", "spec.storage": "claimName", "spec.cache": "shards",
              "spec.cache.gpu": "class", "spec.images": "train", "spec.secrets": "hubToken", "spec.config": "lora_rank",
              "spec.secrets.hubToken": "key", "spec.datasets": "instance_data_dir",
              "spec.datasets.video": "min_frames", "spec.datasets.audio": "auto_split"}  # fmt: skip
    said = judge({**obj, "n": 1})
    for place, key in places.items():
        path = ".".join(filter(None, ("ltx2training", place)))
        assert f"`kubectl explain {path}`" in remedy(said)
        listed = judge.kubectl("explain", path).partition("FIELDS:")[2]
        assert re.search(rf"^  {key}\t<", listed, re.MULTILINE), (path, listed)


# --------------------------------------------------------------------------------------------------- what it lets pass


def test_the_guides_files_pass_as_they_stand(judge: Judge) -> None:
    configs = [path for path in GUIDE.glob("*.json") if path.name != "multidatabackend.json"]
    datasets = json.loads((GUIDE / "multidatabackend.json").read_text())
    assert len(configs) >= 3
    for path in configs:
        assert judge(training(json.loads(path.read_text()), datasets)) == [], path.name


@pytest.mark.parametrize(
    "config",
    [
        {"learning_rate": 6e-05, "lora_rank": 32, "gradient_checkpointing": True, "seed": 42.0},
        {"learning_rate": "1e-4", "lora_rank": "32", "gradient_checkpointing": "true", "seed": " 42 "},
        {"learning_rate": "", "lora_rank": None, "gradient_checkpointing": "", "optimizer": None, "output_dir": None},
        {"model_flavour": 2.3, "gradient_checkpointing": 1, "--max_train_steps": 5, "frame_rate": 25},
    ],
)
def test_every_way_to_write_a_value_passes(judge: Judge, config: dict[str, Any]) -> None:
    assert judge(training(config, [{"repeats": "", "video": None}])) == []


def test_a_disabled_dataset_may_say_anything(judge: Judge) -> None:
    """As `ltx2 check`, which does not read it."""
    for word in (True, 1, "true", " Yes "):
        assert judge(training({}, [{"id": "a", "disabled": word, "x": 1}, {"disable": word, "y": 1}])) == []
    assert judge(training({}, [{"disabled": False, "x": 1}])) == ["spec.datasets[0].x: unknown key"]


VALUES = [
    True, False, 0, 1, -3, 0.5, 1e-9, "1", "1.5", " 2 ", "1_000", ".5", "5.", "1e3", "+1e-4", "0x10", "inf", "nan",
    "1e", "yes", "No", "on", "off", "t", "maybe", "none", "abc", "a b", "1 2", [], [1], {}, {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_policy_refuses_nothing_that_the_operator_takes(judge: Judge, value: Any) -> None:
    """Every judged key with this value, at each level. Mutation caught: a form narrower than our own reading."""
    for names, wrap in (
        (TRAINING, lambda part: training(part)),
        (DATASET, lambda part: training({}, [{k: v for k, v in part.items() if k not in ("disabled", "disable")}])),
        (VIDEO, lambda part: training({}, [{"video": part}])),
    ):
        judged = {key for keys in admission.known(names).forms.values() for key in keys}
        said = judge(wrap(dict.fromkeys(sorted(judged), value)))
        refused = {sentence.partition(": ")[0].rpartition(".")[2] for sentence in said}
        for key in refused:
            assert not taken(key, value, names), (key, value)


def taken(key: str, value: Any, names: Names) -> bool:
    """Whether the operator reads this value of this key."""
    layer = layers.read([(key, value)], names, str)
    if layer.problems:
        return False
    for name, read in layer.values.items():
        try:
            TypeAdapter(names.model.model_fields[name].rebuild_annotation()).validate_python(read)
        except ValidationError:
            return False
    return True


@pytest.mark.parametrize(("value", "forms"), [
    ({"a": 1}, {"number", "boolean", "text"}), ("abc", {"number", "boolean"}), ([], {"number", "boolean", "text"}),
    (True, {"number", "text"}),
])  # fmt: skip
def test_the_policy_refuses_what_has_another_form(judge: Judge, value: Any, forms: set[str]) -> None:
    """Mutation caught: a form whose test is never reached."""
    found = admission.known(TRAINING).forms
    keys = {key for form in forms for key in found[form]}
    said = {
        sentence.partition(": ")[0].removeprefix("spec.config.")
        for sentence in judge(training(dict.fromkeys(keys, value)))
    }
    assert said == keys


# ---------------------------------------------------------------------------------------------------------- each client

CLIENTS = {
    "create --validate=false": ("create", "--validate=false"),
    "create": ("create",),
    "apply": ("apply",),
    "apply --server-side": ("apply", "--server-side"),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_kubectl_says_it(judge: Judge, client: str) -> None:
    done = judge.kubectl.run(*CLIENTS[client], "-f", "-", manifest=training({"sead": 1}))
    said = "spec.config.sead: unknown key"
    assert done.returncode == 1 and f"{said}; {remedy([said])}" in done.stderr, done.stderr


@pytest.mark.parametrize("major", [3, 4], ids=["helm3", "helm4"])
def test_helm_says_it(judge: Judge, fresh_control_plane: Any, tmp_path: Path, major: int) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: mine\nversion: 1.0.0\n")
    (tmp_path / "templates" / "training.yaml").write_text(json.dumps(training({"sead": 1})))
    where = ("--kubeconfig", str(fresh_control_plane.kubeconfig), "--namespace", "default")
    done = run_helm(major, "install", f"mine-{major}", str(tmp_path), *where, check=False)
    said = "spec.config.sead: unknown key"
    assert done.returncode != 0 and f"{said}; {remedy([said])}" in done.stderr, done.stderr
    assert not judge.kubectl.get("ltx2trainings", "-n", "default")["items"]


def test_what_is_stored_is_not_judged_again(judge: Judge) -> None:
    """An object from before the policy can be labelled, suspended objects aside; a new spec must be right."""
    kubectl = judge.kubectl
    policy = kubectl("get", "validatingadmissionpolicybinding", admission.NAME, "-o", "json")
    kubectl("delete", "validatingadmissionpolicybinding", admission.NAME)
    obj = training({"sead": 1})
    obj["metadata"]["name"] = "old"
    deadline = time.monotonic() + 30
    while kubectl.run("create", "-f", "-", manifest=obj).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    binding = {key: value for key, value in json.loads(policy).items() if key != "metadata"}
    kubectl("create", "-f", "-", manifest={**binding, "metadata": {"name": admission.NAME}})
    while not judge(training({"sead": 1})):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kubectl("label", "ltx2training", "old", "a=b")
    patch = {"spec": {"retries": 5}}
    refused = kubectl.run("patch", "ltx2training", "old", "--type=merge", "-p", json.dumps(patch))
    assert "spec.config.sead: unknown key" in refused.stderr
    patch["spec"]["config"] = {"sead": None, "seed": 1}  # type: ignore[assignment]
    kubectl("patch", "ltx2training", "old", "--type=merge", "-p", json.dumps(patch))
    kubectl("delete", "ltx2training", "old")
