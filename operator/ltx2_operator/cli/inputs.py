"""From a file on the command line to an object that can be planned on this machine."""

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltx2_job import estimate
from ltx2_job.config import Resolved, resolve
from ltx2_job.errors import ConfigError, NoInputError, Problem
from ltx2_job.estimate import Model
from ltx2_job.hub.snapshot import NotDownloaded, Snapshots
from ltx2_job.models.sources import open_source
from ltx2_job.workspace import RunFolder, Workspace
from ltx2_operator import config_source, manifest, sizing, template
from ltx2_operator.accept import configuration, resolve_spec
from ltx2_operator.api import LTX2Training, not_supported_yet, parse
from ltx2_operator.fields import API_VERSION, KIND, NAME_MAX
from ltx2_operator.gpus import AUTO
from ltx2_operator.machine import LocalGpu, classes
from ltx2_operator.settings import Settings


@dataclass(frozen=True)
class Order:
    """What shall be trained: the object as a manifest, its typed form, its resolved configuration, and where.

    corrections: what was changed on the way, in words. model: the checkpoint's sizes, None if it is not on this
    machine.
    """

    body: dict[str, Any]
    training: LTX2Training
    resolved: Resolved
    corrections: tuple[str, ...]
    workspace: Workspace
    model: Model | None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.training.metadata.name

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return self.workspace.run(self.name, self.resolved.training.output_dir)


def from_manifest(document: manifest.Document, workspace: Path) -> Order:
    """An order from an LTX2Training.

    Where spec.datasets is missing, the file that data_backend_config names in the workspace is read, as the job would
    on the volume. Raises ConfigError, NoInputError.
    """
    body = copy.deepcopy(document.body)
    body.pop("status", None)
    training = parse(body)
    problems = not_supported_yet(training.spec)
    if problems:
        raise ConfigError(problems)
    template.check(training, Settings())
    resolved = resolve(configuration(training), training.spec.datasets, workspace=workspace)
    resolved.require_supported()
    if training.spec.datasets is None:
        body["spec"] |= resolved.dump()
    return _order(body, resolved, workspace)


def from_config(
    path: Path, workspace: Path, flags: tuple[str, ...] = (), environ: Mapping[str, str] | None = None
) -> Order:
    """An order from the guide's config.json and the datasets that it names.

    A failed attempt is not tried again by itself (retries 0): whoever types the command sees the error at once.
    Raises ConfigError, NoInputError, manifest.ManifestError.
    """
    if not path.exists():
        raise NoInputError(f"{path}: there is no such file; put the guide's config.json there, or give --config FILE")
    documents = manifest.load(path)
    if documents[0].kind == KIND:
        raise manifest.ManifestError(
            f"{documents[0].where}: this is a manifest (kind {KIND}), no config.json; use `ltx2 run {path}`"
        )
    resolved = resolve(documents[0].body, environ=environ or {}, flags=flags, workspace=workspace)
    resolved.require_supported()
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name_of(resolved, workspace)},
        "spec": {"retries": 0, **resolved.dump()},
    }
    return _order(body, resolved, workspace)


def read(path: Path, workspace: Path) -> Order:
    """An order from a manifest or from a config.json, told apart by what they hold."""
    documents = manifest.load(path)
    if "kind" not in documents[0].body and "apiVersion" not in documents[0].body:
        return from_config(path, workspace, environ=os.environ)
    return from_manifest(training_of(documents), workspace)


def training_of(documents: list[manifest.Document]) -> manifest.Document:
    """The one LTX2Training among the documents, with the files that its configFrom names in another document.

    Raises manifest.ManifestError, ConfigError.
    """
    document = manifest.training(documents)
    configmaps = [one.body for one in documents if one.kind == "ConfigMap"]
    try:
        return replace(document, body=config_source.inlined(document.body, configmaps))
    except config_source.NotThere as error:
        remedy = "put it as a document of its own into this file (--- between two)"
        raise ConfigError([replace(problem, remedy=remedy) for problem in error.problems]) from None


def name_of(resolved: Resolved, workspace: Path) -> str:
    """A run's name where no manifest gives one: the last part of output_dir, else the workspace's name."""
    source = Path(resolved.training.output_dir or workspace.resolve().name).name
    return as_name(source) or "training"


def as_name(text: str) -> str:
    """A text as the name of a run: small letters, digits and dashes, a letter first; empty where none is in it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-0123456789")[:NAME_MAX].rstrip("-")


def _order(body: dict[str, Any], resolved: Resolved, workspace: Path) -> Order:
    place = Workspace(workspace)
    training = parse(body)
    corrections = tuple(str(correction) for correction in resolved.corrections)
    return Order(body, training, resolved, corrections, place, read_model(resolved, place))


def read_model(resolved: Resolved, workspace: Workspace) -> Model | None:
    """The sizes of the checkpoint if it is in the workspace, None if it is still to be downloaded.

    Raises NoInputError if it names a path that does not exist, CheckpointError if it is none of LTX-2, ConfigError for
    a name that is neither a path nor a repository.
    """
    snapshots = Snapshots(workspace)
    try:
        model = snapshots.find_model(resolved.training)
        open_source(model)  # says what a file is that is no LTX-2; the look for sizes would only miss them
        gemma = _text_encoder(snapshots, resolved)
    except NotDownloaded:
        return None
    inner = gemma / "text_encoder" if gemma is not None else None
    return estimate.read_model(model, inner if inner is not None and inner.is_dir() else gemma)


def _text_encoder(snapshots: Snapshots, resolved: Resolved) -> Path | None:
    """Its folder; None where it lies beside the model, or is missing, which the preflight of a run says."""
    try:
        return snapshots.find(resolved.training).gemma
    except NotDownloaded:
        raise
    except NoInputError:
        return None


def choose(order: Order, found: list[LocalGpu]) -> Order:
    """The order with the GPU classes of this machine written into its spec.

    Raises ConfigError, sizing.NoFit.
    """
    body = copy.deepcopy(order.body)
    spec = order.training.spec
    for stage in ("train", "cache"):
        wanted = sizing.gpu_of(spec, stage)
        count, field = wanted.count if stage == "train" else 1, sizing.class_field(spec, stage)
        offered = classes(found, count, field) if wanted.class_ == AUTO else []
        chosen = sizing.class_of_machine(spec, order.resolved, offered, stage, order.model)
        if stage == "train":
            body["spec"]["gpu"] = {**(body["spec"].get("gpu") or {}), "class": chosen.name}
        elif chosen.name != body["spec"]["gpu"]["class"] or spec.cache.gpu is not None:
            body["spec"]["cache"] = {
                **(body["spec"].get("cache") or {}),
                "gpu": {**wanted.dump(), "class": chosen.name},
            }
    training = parse(body)
    resolved = resolve_spec(training)
    if resolved.digest != order.resolved.digest:
        raise ConfigError(Problem("spec.config", "means something else when read again", "report this with the file"))
    return Order(body, training, resolved, order.corrections, order.workspace, order.model)
