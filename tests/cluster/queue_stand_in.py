"""What a queue such as Kueue does to Jobs of its label, through the API and nothing else.

Kueue's webhook suspends a Job when it is made: here a MutatingAdmissionPolicy does. Its controller then adds node
selectors to the template of the suspended Job, unsuspends it, and suspends it again to give its place to another.
"""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from ltx2_operator.children import QUEUE_LABEL

from .harness.client import Kubectl
from .world import World

_NAME = "queue-stand-in"


@contextlib.contextmanager
def suspending(kubectl: Kubectl, namespace: str) -> Iterator[None]:
    """Every Job with the queue's label that is made in a namespace begins suspended."""
    api, rules = (
        "admissionregistration.k8s.io/v1",
        {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"]},
    )
    policy = {
        "apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": {"name": _NAME},
        "spec": {
            "matchConstraints": {"resourceRules": [{**rules, "operations": ["CREATE"]}]},
            "matchConditions": [
                {
                    "name": "queued",
                    "expression": f"has(object.metadata.labels) && '{QUEUE_LABEL}' in object.metadata.labels",
                }
            ],
            "reinvocationPolicy": "Never", "failurePolicy": "Fail",
            "mutations": [
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{spec: Object.spec{suspend: true}}"},
                }
            ],
        },
    }  # fmt: skip
    binding = {
        "apiVersion": api, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": _NAME},
        "spec": {
            "policyName": _NAME,
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    }  # fmt: skip
    kubectl("apply", "-f", "-", manifest=[policy, binding])
    try:
        yield
    finally:
        kubectl("delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", _NAME)


class Queue:
    """The controller's half, for the Jobs of one training."""

    def __init__(self, world: World, training: str) -> None:
        self._world, self._training = world, training

    def admit(self, stage: str, selector: dict[str, str]) -> None:
        """Wait for the stage's Job, inject the selector of its flavour, and let it go."""
        name = f"{self._training}-{stage}-1"
        self._world.wait(self._training, lambda: self._suspended(name), f"{name}, suspended")
        # A template is open while the Job has not started: a queue takes the start time back first.
        self._patch(name, {"status": {"startTime": None}}, "--subresource=status")
        self._patch(name, {"spec": {"template": {"spec": {"nodeSelector": selector}}}})
        self._patch(name, {"spec": {"suspend": False}})

    def preempt(self, stage: str) -> None:
        """Take the place back, and wait until the pods have left it."""
        name = f"{self._training}-{stage}-1"
        self._patch(name, {"spec": {"suspend": True}})
        pods = partial(
            self._world.operator.objects, "pods", self._world.namespace, f"batch.kubernetes.io/job-name={name}"
        )
        self._world.wait(self._training, lambda: not pods(), "no pod is left")

    def _suspended(self, name: str) -> bool:
        return any(
            job["metadata"]["name"] == name and job["spec"]["suspend"] for job in self._world.jobs(self._training)
        )

    def _patch(self, name: str, change: dict[str, Any], *flags: str) -> None:
        self._world.kubectl("patch", "job", name, "--type=merge", "-p", json.dumps(change), *flags)
