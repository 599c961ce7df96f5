"""One status, two managers: nothing is lost, nothing is written twice."""

from ltx2_operator.runtime.splitting import deciding, flipped, passing

STEPPING = {"type": "Progressing", "status": "True", "reason": "Stepping"}
RUNNING = {"type": "Running", "status": "True", "reason": "Training"}
STATUS = {
    "attempt": 2,
    "state": "Running",
    "checkpoint": {"step": 500},
    "conditions": [RUNNING, STEPPING],
    "progress": {"step": 510, "maxSteps": 2000},
    "progressText": "510/2000",
    "eta": "40m",
    "etaTime": "2026-11-22T11:00:00Z",
}


def test_every_field_has_exactly_one_manager():
    one, other = deciding(STATUS), passing(STATUS)
    assert set(one) & set(other) == {"conditions"}
    assert {**one, **other, "conditions": one["conditions"] + other["conditions"]} == STATUS
    assert (one["conditions"], other["conditions"]) == ([RUNNING], [STEPPING])


def test_the_checkpoint_decides_so_it_is_fenced():
    assert deciding(STATUS)["checkpoint"] == {"step": 500}


def test_a_status_without_numbers_has_nothing_that_passes():
    assert passing({"attempt": 0, "conditions": [RUNNING]}) == {}


def test_a_flip_is_a_change_of_status_or_reason_not_of_words():
    def say(**change):
        return {"conditions": [{**STEPPING, **change}]}

    assert not flipped(STATUS, say(message="another"))
    assert flipped(STATUS, say(status="False", reason="Stalled"))
    assert flipped(STATUS, say(reason="Other"))
    assert flipped({}, STATUS)
