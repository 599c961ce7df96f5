"""The whole pod template: every modifier is applied, and what they make goes together."""

from pathlib import Path
from typing import Any

import pytest

from ltx2_operator import access, placement, pods, template
from ltx2_operator.settings import CertificateAuthority, Proxy, Settings
from ltx2_operator.sizing import look_plan
from ltx2_operator.template import MODIFIERS
from pod_parts import container, env, mounts
from trainings import amd_plan, context, cpu_plan, plan

ALL = Settings(
    image_pull_secrets=("registry",),
    hub_endpoint="https://hub.lan",
    hub_offline=True,
    proxy=Proxy(http="http://proxy", https="http://proxy", no=".lan"),
    ca=CertificateAuthority(config_map="ca"),
)
SECRETS = {"hubToken": {"name": "hub"}, "objectStore": "store"}


def test_every_modifier_is_in_the_list_once_and_tested() -> None:
    """Mutation caught: a modifier that is written and tested but never applied."""
    named = {
        name
        for room in (pods, placement, access)
        for name, value in vars(room).items()
        if list(getattr(value, "__annotations__", {})) == ["pod", "context", "return"]
    }
    assert named == {modify.__name__ for modify in MODIFIERS}
    assert len(MODIFIERS) == len(set(MODIFIERS))
    tests = "".join(Path(__file__).with_name(f"test_{room}.py").read_text() for room in ("pods", "placement", "access"))
    assert [modify.__name__ for modify in MODIFIERS if f"def test_{modify.__name__}" not in tests] == []


@pytest.mark.parametrize(
    "given", [plan(), plan(stage="cache"), plan(nodes=2), amd_plan(), cpu_plan(), look_plan(plan())]
)
def test_args_and_env_name_only_mount_paths(given: Any) -> None:
    """What a run on one machine relies on: it replaces the mount paths and nothing else."""
    pod = template.template(context(given, ALL, nodes=2))
    allowed = tuple(mounts(pod).values())
    paths = [text for text in [*container(pod)["args"], *map(str, env(pod).values())] if text.startswith("/")]
    assert paths
    strays = [path for path in paths if not path.startswith(allowed) and path != "/dev/termination-log"]
    assert strays == []


def test_env_names_are_unique() -> None:
    names = [
        entry["name"]
        for entry in container(template.template(context(plan(nodes=2), ALL, nodes=2, secrets=SECRETS)))["env"]
    ]
    assert len(names) == len(set(names))


def test_templates_do_not_share_parts() -> None:
    """Mutation caught: a constant dict put into two pods, so that changing one changes the other."""
    one, two = template.template(context(amd_plan())), template.template(context(amd_plan()))
    one["spec"]["securityContext"]["runAsUser"] = 0
    one["spec"]["affinity"]["nodeAffinity"].clear()
    assert two["spec"]["securityContext"]["runAsUser"] == 65532
    assert two["spec"]["affinity"]["nodeAffinity"]
