"""A file for those who only look: `ltx2 check` and `ltx2 estimate` read what a run would refuse, and say why."""

import os
from pathlib import Path
from typing import Any

from ltx2_job.config import resolve
from ltx2_job.errors import ConfigError, NoInputError
from ltx2_job.workspace import Workspace
from ltx2_operator import manifest, template
from ltx2_operator.accept import configuration
from ltx2_operator.api import API_VERSION, KIND, LTX2Training, not_supported_yet, parse
from ltx2_operator.cli import inputs
from ltx2_operator.settings import PodTemplate, Settings


def readable(path: Path, workspace: Path, *, estimating: bool = False) -> tuple[inputs.Order, list[str]]:
    """The order of a file even if it asks for what is not supported yet, and notes about corrections and that.

    estimating: what only a run needs may be missing: a data set file is then taken from beside the config.json, and a
    checkpoint counts as one of its flavour. Raises ConfigError, manifest.ManifestError, NoInputError.
    """
    documents = manifest.load(path)
    body = documents[0].body
    notes: list[str] = []
    if "kind" in body or "apiVersion" in body:
        body = inputs.training_of(documents).body
        training = parse({key: value for key, value in body.items() if key != "status"})
        notes += [
            f"not supported yet: {problem.field}; {problem.remedy}" for problem in not_supported_yet(training.spec)
        ]
        notes += _pod_template(training)
        resolved = resolve(configuration(training), training.spec.datasets, workspace=workspace)
    else:
        if estimating:
            body, moved = _datasets_beside(body, path, workspace)
            notes += moved
        resolved = resolve(body, environ=os.environ, workspace=workspace)
        made = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": inputs.name_of(resolved, workspace)},
        }
        training = parse({**made, "spec": resolved.dump()})
        body = {**made, "spec": resolved.dump()}
    notes += [f"not supported yet: {item.field}: {item.value} ({item.why})" for item in resolved.unsupported]
    notes += [f"corrected: {correction}" for correction in resolved.corrections]
    place = Workspace(workspace)
    try:
        model = inputs.read_model(resolved, place)
    except NoInputError:
        if not estimating:
            raise
        model = None
        name, flavour = resolved.training.pretrained_model_name_or_path, resolved.training.model_flavour
        notes.append(
            f"{name} is not in this workspace: GPU classes are sized for {flavour}, the class cpu for a tiny one"
        )
    return inputs.Order(body, training, resolved, tuple(str(one) for one in resolved.corrections), place, model), notes


def _datasets_beside(body: dict[str, Any], path: Path, workspace: Path) -> tuple[dict[str, Any], list[str]]:
    """A config.json whose data set file is missing in the workspace, with the file of that name beside it.

    Beside config.json.example that file ends in .example as well.
    """
    named = body.get("data_backend_config")
    if not isinstance(named, str) or (workspace / named).exists():
        return body, []
    ending = ".example" if path.suffix == ".example" else ""
    beside = path.parent / (Path(named).name + ending)
    if not beside.is_file():
        return body, []
    note = f"data_backend_config: {named} is not in this workspace; read {beside} instead"
    return {**body, "data_backend_config": str(beside.resolve())}, [note]


def _pod_template(training: LTX2Training) -> list[str]:
    """What of spec.podTemplate only some installations take. Raises ConfigError for what none takes."""
    everything = PodTemplate(allow_host_path=True, allow_privileged=True, allow_service_account=True)
    template.check(training, Settings(pod_template=everything))
    try:
        template.check(training, Settings())
    except ConfigError as error:
        return [f"not everywhere: {problem}" for problem in error.problems]
    return []
