"""The main story on real nodes: chart, manifest, cache pod, train pod, LoRA; the same bytes as `ltx2 run` makes."""

import copy
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cluster.harness.cluster import Cluster
from cluster.installed import Installed
from cluster.volumes import Volume
from patience import until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("job_image")]

STEPS = 6


def manifest(volume: Volume, name: str = "fox", **spec: Any) -> dict[str, Any]:
    """A tiny training on the CPU, in float32, of the clips that `volume` holds."""
    return {
        "apiVersion": "ltx2.dev/v1alpha1",
        "kind": "LTX2Training",
        "metadata": {"name": name},
        "spec": {
            "gpu": {"class": "cpu"},
            "storage": {"claimName": volume.claim},
            "config": {
                "pretrained_model_name_or_path": "models/ltx-2-tiny.safetensors",
                "seed": 7,
                "resolution": 64,
                "max_train_steps": STEPS,
                "checkpoint_step_interval": 3,
                "lora_rank": 4,
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
            **spec,
        },
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_here(obj: dict[str, Any], workspace: Path) -> Path:
    """`ltx2 run` of the same manifest on this machine; the LoRA's path."""
    here = copy.deepcopy(obj)
    file = workspace / "training.yaml"
    file.write_text(yaml.safe_dump(here))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ltx2")), "run", str(file), "--workspace", str(workspace)],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return workspace / "runs" / obj["metadata"]["name"] / "lora.safetensors"


def test_a_manifest_becomes_the_lora_that_ltx2_run_makes(
    operator: Installed, restricted: str, volume: Volume, tmp_path: Path
) -> None:
    obj = manifest(volume)
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=obj)
    operator.condition("fox", restricted, "Succeeded")
    status = operator.status("fox", restricted)
    assert (status["attempt"], status["stage"], status["progressText"]) == (1, "Train", f"{STEPS}/{STEPS}")
    assert {"fox-cache-1", "fox-train-1"} <= set(operator.names("jobs", restricted))
    told = operator.events("fox", restricted)
    for reason in ("Accepted", "CacheStarted", "CacheReady", "TrainingStarted", "Succeeded"):
        assert reason in told, f"{reason} is not among {told}"
    volume.copy_inputs(tmp_path)
    assert sha256(volume.folder / "runs/fox/lora.safetensors") == sha256(run_here(obj, tmp_path))


STORE = "http://10.97.0.1:9000"  # an address of the cluster's network that pods reach
FILL = """
import sys, pathlib, boto3
client = boto3.client("s3", endpoint_url=sys.argv[1], aws_access_key_id="a", aws_secret_access_key="b", region_name="x")
client.create_bucket(Bucket="footage", CreateBucketConfiguration={"LocationConstraint": "x"})
for path in pathlib.Path(sys.argv[2]).iterdir():
    client.upload_file(str(path), "footage", f"foxes/{path.name}")
"""


@pytest.fixture
def store(cluster: Cluster, inputs: Path, tmp_path: Path) -> Iterator[str]:
    """An S3-compatible store (moto's) beside the nodes, with the clips of the inputs in the bucket footage."""
    where = urlsplit(STORE)
    command = [sys.executable, "-m", "moto.server", "-H", str(where.hostname), "-p", str(where.port)]
    process = cluster.namespace.start("objects", command, tmp_path / "store.log")
    until(lambda: cluster.namespace.answers(f"{STORE}/moto-api/"), "the store")
    cluster.namespace.must(sys.executable, "-c", FILL, STORE, str(inputs / "datasets/videos"))
    yield STORE
    process.kill()


@pytest.mark.full
def test_clips_of_an_object_store_make_the_lora_of_those_on_the_volume(
    operator: Installed, restricted: str, volume: Volume, store: str, tmp_path: Path
) -> None:
    """The pods have the keys of the Secret and the address; the volume has no clips, and nobody waits for them."""
    volume.copy_inputs(tmp_path)
    shutil.rmtree(volume.folder / "datasets")
    obj = manifest(volume, secrets={"objectStore": "keys"})
    here = manifest(volume)
    place = {"type": "aws", "aws_bucket_name": "footage", "aws_data_prefix": "foxes", "aws_endpoint_url": store}
    del obj["spec"]["datasets"][0]["instance_data_dir"]
    obj["spec"]["datasets"][0] |= place
    keys = ("--from-literal=AWS_ACCESS_KEY_ID=a", "--from-literal=AWS_SECRET_ACCESS_KEY=b")
    operator.kubectl("create", "secret", "generic", "keys", *keys, "-n", restricted)
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=obj)
    operator.condition("fox", restricted, "Succeeded")
    assert operator.status("fox", restricted)["attempt"] == 1
    found, wanted = load_file(volume.folder / "runs/fox/lora.safetensors"), load_file(run_here(here, tmp_path))
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert not (volume.folder / "datasets").exists()


@pytest.mark.full
def test_two_nodes_train_one_lora(operator: Installed, restricted: str, volume: Volume) -> None:
    """They meet by the first pod's name; two processes of batch 1 are one of batch 2."""
    alone, both = manifest(volume, "one"), manifest(volume, "two", nodes=2)
    alone["spec"]["config"]["train_batch_size"] = 2
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=alone)
    operator.condition("one", restricted, "Succeeded")
    operator.kubectl("apply", "-n", restricted, "-f", "-", manifest=both)
    operator.condition("two", restricted, "Succeeded")
    pods = operator.objects("pods", restricted, "ltx2.dev/training=two,ltx2.dev/stage=train")
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1", "node-2"}
    loras = [load_file(volume.folder / f"runs/{name}/lora.safetensors") for name in ("one", "two")]
    assert loras[0].keys() == loras[1].keys()
    for key, value in loras[0].items():
        torch.testing.assert_close(
            loras[1][key], value, rtol=1e-3, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
