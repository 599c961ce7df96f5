"""Recorded ends of attempts, as tests/operator/data/verdicts keeps them: every version of a Job and its pods.

Tests on the cluster write one for each row into the folder that TEST_SEQUENCES_OUT names; names, uids and addresses
are replaced, times are as they were.
"""

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ltx2_operator.classify import classify, is_alive
from ltx2_operator.runtime.kinds import PODS

from .recording import Recorder

_METADATA = ("name", "namespace", "uid", "labels", "deletionTimestamp", "deletionGracePeriodSeconds")
_POD_STATUS = ("phase", "reason", "message", "conditions", "initContainerStatuses", "containerStatuses")
_CONTAINER = ("name", "state")
_KEPT = 5  # versions before the last one, beside the first
_SUFFIXES = ("x7k2p", "q4r8m")  # of the pods of two nodes


def write_sequence(recorder: Recorder, training: str, stage: str, note: str) -> None:
    """Write the first attempt's end, if somebody asks for it and its Job and pods gave the verdict."""
    folder, verdict = os.environ.get("TEST_SEQUENCES_OUT"), recorder.verdict(training, 1, stage)
    if not folder or not verdict:
        return
    now = datetime.fromisoformat(verdict["time"])
    steps: list[dict[str, Any]] = []
    found = None
    for job, pods in _versions(recorder, training, stage):
        step = {"job": job, "pods": pods}
        if not steps or step != steps[-1]:
            steps.append(step)
        found = classify(job, pods, now)
        if found is not None:
            break
    if found is None or (found.action, found.reason) != (verdict["action"], verdict["reason"]):
        return  # a deadline or a pause, which no Job tells of
    page = {
        "note": note,
        "now": verdict["time"],
        "sequence": steps[: -_KEPT - 1][:1] + steps[-_KEPT - 1 :],
        "verdict": {
            "action": verdict["action"], "exitCode": verdict.get("exitCode"), "reason": verdict["reason"],
        },
    }  # fmt: skip
    text = _renamed(json.dumps(page, indent=1, sort_keys=True), training, steps)
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / f"{training}.json").write_text(text + "\n")


def _versions(recorder: Recorder, training: str, stage: str) -> list[tuple[Any, list[Any]]]:
    """Job and pods after each change; a pod that had ended is known on while its Job is."""
    job: dict[str, Any] | None = None
    pods: dict[str, dict[str, Any]] = {}
    found = []
    for happened, one in recorder.changes(training, stage, 1):
        if one["kind"] == "Job":
            job = None if happened == "DELETED" else _trimmed(one)
        elif happened == "DELETED" and is_alive(one):
            pods.pop(one["metadata"]["uid"], None)
        else:
            pods[one["metadata"]["uid"]] = _trimmed(one)
        if job is not None or pods:
            found.append((job, list(pods.values())))
    return found


def _trimmed(one: Mapping[str, Any]) -> dict[str, Any]:
    """What the operator keeps of an object, without what differs from one cluster to the next."""
    body: dict[str, Any] = json.loads(json.dumps(one))
    if one["kind"] == "Pod":
        body["spec"] = PODS.kept(body)["spec"]
    body["metadata"] = {key: body["metadata"][key] for key in _METADATA if key in body["metadata"]}
    labels = body["metadata"]["labels"]
    body["metadata"]["labels"] = {key: labels[key] for key in labels if key.startswith("ltx2.dev/")}
    if one["kind"] == "Job":
        body["spec"] = {key: body["spec"][key] for key in ("backoffLimit", "completions", "parallelism")}
    else:
        status = body["status"] = {key: body["status"][key] for key in _POD_STATUS if key in body["status"]}
        status["conditions"] = [one for one in status.get("conditions") or [] if one["type"] == "DisruptionTarget"]
        for part in ("initContainerStatuses", "containerStatuses"):
            status[part] = [{key: each[key] for key in _CONTAINER} for each in status.get(part) or []]
            for container in status[part]:
                for state in container["state"].values():
                    state.pop("containerID", None)
        body["status"] = {key: value for key, value in status.items() if value}
        for container in body["spec"]["containers"]:
            container["resources"].pop("requests", None)
    (body.get("status") or {}).pop("uncountedTerminatedPods", None)
    return body


def _renamed(text: str, training: str, steps: list[dict[str, Any]]) -> str:
    """The same words for every recording."""
    jobs = [step["job"] for step in steps if step["job"]]
    first = jobs[0] if jobs else steps[0]["pods"][0]
    uids = {first["metadata"]["labels"]["ltx2.dev/uid"]: "0f0c"} | {job["metadata"]["uid"]: "a1" for job in jobs}
    names = {}
    for step in steps:
        for pod in step["pods"]:
            uids.setdefault(pod["metadata"]["uid"], f"p{len(names)}")
            names.setdefault(pod["metadata"]["name"].rpartition("-")[2], _SUFFIXES[len(names) % 2])
    for old, new in (uids | names).items():
        text = text.replace(old, new)
    text = text.replace(first["metadata"]["namespace"], "ml")
    text = re.sub(rf"(?<![\w-]){training}-(look|cache|train)-", r"fox-\1-", text)
    return re.sub(rf'("|runs/){training}("|\\"|/)', r"\1fox\2", text)
