"""`ltx2 render`: what a cluster would get, as YAML; nothing is created."""

import copy
import sys
import uuid
from argparse import Namespace
from typing import Any

from ltx2_operator import children, manifest
from ltx2_operator.accept import plan_stage
from ltx2_operator.cli import inputs
from ltx2_operator.machine import detect
from ltx2_operator.settings import Settings


def render(args: Namespace) -> int:
    """Print ConfigMaps, claim, Service and the first attempt's Jobs. `auto` looks at this machine."""
    order = inputs.from_manifest(inputs.training_of(manifest.load(args.file)), args.workspace)
    for correction in order.corrections:
        print(f"corrected: {correction}", file=sys.stderr)
    sys.stdout.write(manifest.dump(documents(inputs.choose(order, detect()), Settings())))
    return 0


def documents(order: inputs.Order, settings: Settings, uid: str | None = None) -> list[dict[str, Any]]:
    """Every object of the first attempt, in the order in which it is created.

    Without a cluster there is no owner: its uid is made of the name, and ownerReferences (which would have everything
    collected at once) are left out.
    """
    obj = copy.deepcopy(order.body)
    namespace = str(obj["metadata"].get("namespace") or "default")
    obj["metadata"] |= {
        "uid": uid or str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{order.name}.{namespace}.ltx2.dev")),
        "namespace": namespace,
    }
    found: list[dict[str, Any]] = []
    jobs = []
    for stage in ("cache", "train"):
        plan = plan_stage(order.training, order.resolved, stage, 0, None, model=order.model)
        found.append(children.configmap(obj, order.resolved, plan))
        jobs.append(children.job(obj, plan, stage, 1, settings, digest=order.resolved.digest))
        if stage == "train":
            claim = children.claim(obj, plan)
            found += [claim] if claim else []
            found += [children.service(obj)] if plan.nodes > 1 else []
    for body in (*found, *jobs):
        body["metadata"].pop("ownerReferences", None)
    return [*found, *jobs]
