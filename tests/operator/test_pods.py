"""Each modifier of the pod template alone: what it adds, and that it follows a second value."""

from typing import Any

import pytest

from ltx2_job import history
from ltx2_operator import pods
from ltx2_operator.settings import Settings
from pod_parts import applied, container, env, mounts
from trainings import amd_plan, context, plan


@pytest.mark.parametrize(
    ("size", "text"), [(2**30, "1Gi"), (3 * 2**29, "1536Mi"), (2**41, "2Ti"), (1000, "1000"), (0, "0"), (2**10, "1Ki")]
)
def test_quantity_is_exact(size: int, text: str) -> None:
    assert pods.quantity(size) == text


def test_metadata() -> None:
    one = applied(pods.metadata, context())["metadata"]
    two = applied(pods.metadata, context(plan(stage="cache"), attempt=7))["metadata"]
    assert one["labels"]["ltx2.dev/training"] == "my-style"
    assert one["labels"]["ltx2.dev/uid"] == "0a1b-2c3d"
    assert (one["labels"]["ltx2.dev/stage"], one["labels"]["ltx2.dev/attempt"]) == ("train", "1")
    assert (two["labels"]["ltx2.dev/stage"], two["labels"]["ltx2.dev/attempt"]) == ("cache", "7")
    assert two["labels"]["app.kubernetes.io/component"] == "cache"
    assert one["annotations"] == {"ltx2.dev/spec-hash": "d" * 64}


def test_command() -> None:
    one, two = applied(pods.command, context()), applied(pods.command, context(plan(stage="cache"), attempt=3))
    assert container(one)["command"] == ["ltx2-job"]
    fixed = ["--files", "/etc/ltx2", "--workspace", "/workspace", "--run", "my-style", "--attempt"]
    assert container(one)["args"] == ["train", *fixed, "1"]
    assert container(two)["args"] == ["cache", *fixed, "3"]


def test_image_is_the_users_then_the_installations() -> None:
    settings = Settings(
        images={"cuda": "mine/cuda:2", "rocm": "mine/rocm:2", "cpu": "mine/cpu:2"}, image_pull_policy="Never"
    )
    assert container(applied(pods.command, context(settings=settings)))["image"] == "mine/cuda:2"
    assert container(applied(pods.command, context(amd_plan(), settings)))["image"] == "mine/rocm:2"
    assert container(applied(pods.command, context(settings=settings)))["imagePullPolicy"] == "Never"
    users = {"images": {"cache": "user/cache:1"}}
    assert container(applied(pods.command, context(plan(stage="cache"), settings, **users)))["image"] == "user/cache:1"
    assert container(applied(pods.command, context(settings=settings, **users)))["image"] == "mine/cuda:2"


def test_default_images_have_no_host_and_carry_the_version() -> None:
    assert set(Settings().images) == {"cuda", "rocm", "cpu"}
    assert Settings().images["rocm"].startswith("ltx2/job-rocm:")


def test_identity() -> None:
    one, two = env(applied(pods.identity, context())), env(applied(pods.identity, context(plan(nodes=2))))
    assert one["LTX2JOB_UID"] == "0a1b-2c3d"
    assert one["LTX2JOB_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert (one["LTX2JOB_NODES"], two["LTX2JOB_NODES"]) == ("1", "2")


def ended(*reasons: str) -> dict[str, Any]:
    """The status of a training whose attempts ended for these reasons."""
    fixed = {"stage": "Train", "action": "Retry", "time": "2026-11-22T10:00:00Z"}
    told = [{"attempt": at, "reason": one, "message": f"why {one}", **fixed} for at, one in enumerate(reasons, 1)]
    return {"attempts": told}


def test_verdicts() -> None:
    """The stages that write on the volume are told how the attempts before ended; a first one has nothing to tell."""
    assert applied(pods.verdicts, context()) == {"spec": {"containers": [{"name": "job"}]}}
    for reasons in (("Killed",), ("Killed", "Preempted")):
        for stage in ("cache", "train"):
            found = env(applied(pods.verdicts, context(plan(stage=stage), status=ended(*reasons))))
            told = history.handed(found["LTX2JOB_VERDICTS"], "uid-1")
            assert [(one["attempt"], one["stage"], one["action"], one["reason"]) for one in told] == [
                (at, "train", "Retry", reason) for at, reason in enumerate(reasons, 1)
            ]
            assert [one["message"] for one in told] == [f"why {reason}" for reason in reasons]
        assert env(applied(pods.verdicts, context(plan(stage="look"), status=ended(*reasons)))) == {}


def test_no_api_access() -> None:
    spec = applied(pods.no_api_access, context())["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_restricted_pod_security() -> None:
    """The whole list of the "restricted" standard: mutation caught, any one of them dropped."""
    pod = applied(pods.restricted, context())
    assert pod["spec"]["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_resources() -> None:
    one = applied(pods.resources, context())
    two = applied(
        pods.resources, context(plan(cpu_milli=12500, processes=4, memory_bytes=2**36, ephemeral_bytes=2**31))
    )
    limits = container(one)["resources"]["limits"]
    assert limits == {"memory": "14Gi", "ephemeral-storage": "10Gi"}
    assert container(one)["resources"]["requests"] == {"cpu": "6000m", **limits}
    assert container(two)["resources"]["limits"] == {"memory": "64Gi", "ephemeral-storage": "2Gi"}
    assert container(two)["resources"]["requests"]["cpu"] == "12500m"
    assert "cpu" not in container(two)["resources"]["limits"], "a CPU limit throttles the thread that launches kernels"
    assert (env(one)["OMP_NUM_THREADS"], env(two)["OMP_NUM_THREADS"]) == ("6", "3")
    assert env(applied(pods.resources, context(plan(cpu_milli=500))))["OMP_NUM_THREADS"] == "1"


def test_shared_memory() -> None:
    for size, text in ((2**28, "256Mi"), (2**32, "4Gi")):
        pod = applied(pods.shared_memory, context(plan(shm_bytes=size)))
        assert pod["spec"]["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": text}}]
        assert mounts(pod) == {"shm": "/dev/shm"}


def test_scratch() -> None:
    for size, text in ((2**30, "1Gi"), (5 * 2**30, "5Gi")):
        pod = applied(pods.scratch, context(plan(ephemeral_bytes=size)))
        assert pod["spec"]["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": text}}]
        assert mounts(pod) == {"tmp": "/tmp"}
        assert env(pod) == {"TMPDIR": "/tmp", "XDG_CACHE_HOME": "/tmp/cache", "MPLCONFIGDIR": "/tmp/matplotlib"}


def test_configuration_is_mounted_read_only() -> None:
    pod = applied(pods.configuration, context())
    (volume,) = pod["spec"]["volumes"]
    assert volume["configMap"]["name"] == "my-style-12345678"
    assert [item["key"] for item in volume["configMap"]["items"]] == ["config.json", "datasets.json", "plan.json"]
    assert container(pod)["volumeMounts"] == [{"name": "config", "mountPath": "/etc/ltx2", "readOnly": True}]


def test_workspace() -> None:
    pod = applied(pods.workspace, context())
    assert pod["spec"]["volumes"] == [{"name": "workspace", "persistentVolumeClaim": {"claimName": "my-style-data"}}]
    assert mounts(pod) == {"workspace": "/workspace"}


def test_ending() -> None:
    one = applied(pods.ending, context())
    two = applied(pods.ending, context(settings=Settings(grace_seconds=300, grace_margin_seconds=15)))
    assert one["spec"]["restartPolicy"] == "Never"
    assert one["spec"]["terminationGracePeriodSeconds"] == 150
    assert two["spec"]["terminationGracePeriodSeconds"] == 315
    assert (env(one)["LTX2JOB_GRACE_SECONDS"], env(two)["LTX2JOB_GRACE_SECONDS"]) == ("120", "300")
    assert container(one)["terminationMessagePath"] == env(one)["LTX2JOB_TERMINATION_LOG"] == "/dev/termination-log"
    assert container(one)["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_metrics() -> None:
    for port in (9464, 8080):
        pod = applied(pods.metrics, context(settings=Settings(metrics_port=port)))
        assert container(pod)["ports"] == [{"name": "metrics", "containerPort": port, "protocol": "TCP"}]
        assert env(pod) == {"LTX2JOB_PORT": str(port)}


def test_rendezvous() -> None:
    assert applied(pods.rendezvous, context()) == {"spec": {"containers": [{"name": "job"}]}}
    for attempt in (1, 12):
        pod = applied(pods.rendezvous, context(plan(nodes=2), attempt=attempt, nodes=2))
        assert pod["spec"]["subdomain"] == "my-style-peers"
        assert env(pod) == {"LTX2JOB_MASTER_ADDR": f"my-style-train-{attempt}-0.my-style-peers"}


def test_ending_gives_a_checkpoint_its_time() -> None:
    """A step of 100 s is awaited twice, and 5 GB to a volume of 10 MB/s take 500 s; the cache stage has no checkpoint.

    Mutation caught: the floor in place of the larger of the two.
    """
    slow = {"predicted_seconds_per_step": 100, "terms": {"weights": 2**36, "lora": 10**9, "optimizer": 4 * 10**9}}
    settings = Settings(grace_seconds=60, grace_margin_seconds=15)
    pod = applied(pods.ending, context(plan(**slow), settings))
    assert env(pod)["LTX2JOB_GRACE_SECONDS"] == "700"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 715
    assert env(applied(pods.ending, context(plan(stage="cache", **slow), settings)))["LTX2JOB_GRACE_SECONDS"] == "60"
