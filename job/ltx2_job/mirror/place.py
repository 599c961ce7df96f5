"""Where a dataset's clips are read: its own folder, or what is mirrored of an object store or the Hub. Torch-free.

downloads/
  footage-1a2b3c4d5e6f/           one source, shared by all runs and datasets that name it
    source.json                   what it mirrors, and the files that were here after the last update
    fetched.jsonl                 files that were fetched since then
    partial/…                     what a download that was cut has fetched so far
    files/…                       the clips and captions, with the source's own folders
"""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2_job.workspace import Workspace

if TYPE_CHECKING:
    from ltx2_job.config import DatasetConfig


def is_remote(dataset: "DatasetConfig") -> bool:
    """Whether the clips lie elsewhere and are mirrored."""
    return dataset.type != "local"


def prefix_of(dataset: "DatasetConfig") -> str:
    """The folder inside the bucket or repository, with a slash at its end; empty for all of it."""
    prefix = (dataset.aws_data_prefix if dataset.type == "aws" else dataset.data_prefix).strip("/")
    return f"{prefix}/" if prefix else ""


def named(dataset: "DatasetConfig") -> str:
    """The place of the clips as messages name it."""
    if dataset.type == "aws":
        return f"s3://{dataset.aws_bucket_name}/{prefix_of(dataset)}"
    if dataset.type == "huggingface":
        at = "" if dataset.revision == "main" else f"@{dataset.revision}"
        return f"hf://datasets/{dataset.dataset_name}{at}/{prefix_of(dataset)}"
    return str(dataset.instance_data_dir or "")


def home(workspace: Workspace, dataset: "DatasetConfig") -> Path:
    """The folder of a remote dataset's mirror: a readable name, and a digest of all that tells the source."""
    owner = dataset.aws_bucket_name if dataset.type == "aws" else dataset.dataset_name
    source = [dataset.type, dataset.aws_endpoint_url, owner, dataset.revision, prefix_of(dataset)]
    digest = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9.-]+", "--", str(owner)).strip(".-")
    return Path(workspace.downloads) / f"{readable}-{digest}"


def folder(workspace: Workspace, dataset: "DatasetConfig") -> Path:
    """The folder that the clips are read from."""
    if is_remote(dataset):
        return home(workspace, dataset) / "files"
    return workspace.resolve(dataset.instance_data_dir or "")
