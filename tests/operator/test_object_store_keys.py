"""`ltx2 run` hands the object store's keys of this machine to the job, as a Secret, and nobody writes them down."""

import copy
from pathlib import Path

import pytest

from ltx2_operator.cli import inputs, training
from ltx2_operator.manifest import Document
from ltx2_operator.processes import MACHINE_ENV

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
BUCKET = {"id": "clips", "type": "aws", "aws_bucket_name": "footage"}
LOCAL = {"id": "clips", "type": "local", "instance_data_dir": "clips"}


@pytest.fixture
def order(tmp_path: Path):
    """The order of a manifest with this dataset and these secrets."""

    def make(dataset: dict[str, str], **secrets: str) -> inputs.Order:
        body = {
            "apiVersion": "ltx2.dev/v1alpha1", "kind": "LTX2Training", "metadata": {"name": "fox"},
            "spec": {"gpu": {"class": "cpu"}, "secrets": secrets, "datasets": [dataset],
                     "config": {"pretrained_model_name_or_path": "me/model", "max_train_steps": 1}},
        }  # fmt: skip
        return inputs.from_manifest(Document(body, tmp_path / "fox.yaml", 1), tmp_path)

    return make


def test_keys_of_the_environment_become_a_secret_of_the_run_where_clips_lie_in_a_store(order) -> None:
    asked = order(BUCKET)
    before = copy.deepcopy(asked.body)
    found = training.with_object_store(asked, KEYS)
    assert found.training.spec.secrets.object_store == found.body["spec"]["secrets"]["objectStore"]
    assert found.training.spec.secrets.object_store == "object-store-of-this-machine"
    assert "AKIA" not in str(found.body) and asked.body == before
    assert training.with_object_store(asked, {}) is asked  # a profile, a file or the machine gives them
    local, named = order(LOCAL), order(BUCKET, objectStore="mine")
    assert training.with_object_store(local, KEYS) is local
    assert training.with_object_store(named, KEYS) is named


def test_what_leads_to_keys_passes_and_keys_do_not() -> None:
    passing = {"AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "AWS_REGION",
               "AWS_ENDPOINT_URL", "AWS_WEB_IDENTITY_TOKEN_FILE"}  # fmt: skip
    assert passing <= MACHINE_ENV
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} & MACHINE_ENV
