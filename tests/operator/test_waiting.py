"""Why no pod runs, of the events about a Job and its pods: what is over is not told as what is wrong now."""

import pytest

from ltx2_operator.waiting import why_waiting, with_remedy

SCHEDULED = [{"type": "PodScheduled", "status": "True"}]
STARTING = ("Starting", "the pods are being started")
QUOTA = 'pods "fox-train-1-0" is forbidden: exceeded quota: gpus'
MOUNT = 'MountVolume.SetUp failed for volume "files": failed to sync configmap cache: timed out waiting'


def job(parallelism=None):
    return {"metadata": {"name": "fox-train-1"}, "spec": {"parallelism": parallelism} if parallelism else {}}


def pods(count):
    """Pods whose containers are being made."""
    waiting = [{"name": "job", "image": "i", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    status = {"phase": "Pending", "conditions": SCHEDULED, "containerStatuses": waiting}
    return [{"metadata": {"name": f"fox-train-1-{number}"}, "status": status} for number in range(count)]


def event(reason, about="fox-train-1-0", message=""):
    return {"involvedObject": {"name": about}, "reason": reason, "message": message}


def why(events, count, parallelism=None):
    return why_waiting(job(parallelism), pods(count), events, None, None)


@pytest.mark.parametrize("later", ["Scheduled", "Pulling", "Pulled", "Created", "Started"])
def test_a_mount_that_failed_in_the_first_second_is_not_told_while_the_image_is_pulled(later):
    assert why([event("FailedMount", message=MOUNT), event(later)], 1) == STARTING
    assert why([event(later), event("FailedMount", message=MOUNT)], 1)[1].startswith(f"FailedMount: {MOUNT}; see `kube")


def test_a_pod_settles_its_own_trouble_only():
    events = [event("FailedMount", message=MOUNT), event("FailedAttachVolume", message="Multi-Attach error")]
    other = event("Pulling", about="fox-train-1-1")
    assert why([*events, other], 2, 2)[1].startswith("FailedAttachVolume: Multi-Attach error; another node still")
    assert why([*events, other, event("Pulled")], 2, 2) == STARTING
    assert why([*events, event("Pulling", about="bear-train-1-0")], 1)[0] == "WaitingForPods"


def test_a_quota_that_refused_a_pod_which_has_come_since_is_over():
    """Catches: minutes of "exceeded quota" while the image is pulled."""
    refused = event("FailedCreate", "fox-train-1", QUOTA)
    made = event("SuccessfulCreate", "fox-train-1", "Created pod: fox-train-1-0")
    assert why([refused], 0)[1].startswith("FailedCreate: pods")
    assert why([refused, made, event("Scheduled"), event("Pulling")], 1) == STARTING
    assert why([refused, made], 1) == STARTING


@pytest.mark.parametrize("order", [1, -1])
def test_a_quota_that_lets_one_pod_of_two_in_still_refuses_the_other(order):
    """Both events may be of one second, in which either may come first."""
    events = [event("FailedCreate", "fox-train-1", QUOTA), event("SuccessfulCreate", "fox-train-1")][::order]
    reason, message = why([*events, event("Pulling")], 1, 2)
    assert (reason, "exceeded quota: gpus" in message) == ("WaitingForPods", True)
    assert why([*events, event("Pulling")], 2, 2) == STARTING


@pytest.mark.parametrize(
    ("words", "helps", "not_"),
    [
        ('persistentvolumeclaim "films" not found', "create the claim that spec.storage.claimName names", "anew"),
        ('persistentvolumeclaim "films" is being deleted', "once it is gone, create it anew", "spec.storage.claimName"),
        ('persistentvolumeclaim "films" bound to non-existent persistentvolume "pv-1"',
         "the claim's volume is gone, and what lay on it", "spec.storage.claimName"),
        ("pod has unbound immediate PersistentVolumeClaims", "a storage class or volume is missing", "create"),
    ],
)  # fmt: skip
def test_each_trouble_of_a_claim_has_its_own_remedy(words, helps, not_):
    text = f"0/2 nodes are available: {words}. preemption: 0/2 nodes are available"
    entry = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
    pod = {"metadata": {"name": "p"}, "status": {"phase": "Pending", "conditions": [entry]}}
    reason, message = why_waiting(job(), [pod], [], [], {"gpuClass": "h100-80g", "resourceName": "nvidia.com/gpu"})
    assert reason == "WaitingForPods"
    assert helps in message and words in message and not_ not in message.partition(words)[2]


def test_a_claim_of_an_ephemeral_volume_that_is_still_to_be_made_is_nobodys_to_create():
    text = 'waiting for ephemeral volume controller to create the persistentvolumeclaim "fox-scratch"'
    assert with_remedy(text) == text
