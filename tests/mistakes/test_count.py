"""How many mistakes are tried: at least ten of each kind, more than a hundred in all, none twice."""

from mistakes import (
    test_checkpoints,
    test_clips,
    test_configs,
    test_datasets,
    test_environments,
    test_flags,
    test_manifests,
)

KINDS = {
    "manifests": test_manifests.MISTAKES,
    "configs": test_configs.MISTAKES,
    "dataset files": test_datasets.MISTAKES,
    "clips": [one for _, one in test_clips.BAD],
    "checkpoints": test_checkpoints.MISTAKES,
    "environments": test_environments.MISTAKES,
    "flags": test_flags.MISTAKES,
}


def test_every_kind_has_ten_and_all_have_a_hundred():
    names = {kind: {one.name for one in mistakes} for kind, mistakes in KINDS.items()}
    assert all(len(names[kind]) == len(mistakes) >= 10 for kind, mistakes in KINDS.items()), names
    assert sum(map(len, names.values())) > 100
