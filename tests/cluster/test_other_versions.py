"""The program on a desk and the image on the cluster are of different releases."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import older
from cluster.harness.cluster import Cluster
from cluster.installed import Installed
from cluster.volumes import Volume
from ltx2_job.exitcodes import CONFIG
from ltx2_operator import __version__

pytestmark = pytest.mark.cluster

LTX2 = str(Path(sys.executable).with_name("ltx2"))


@pytest.mark.parametrize("verb", ["hold", "send"])
def test_an_image_that_lacks_a_verb_is_named_with_both_versions(
    cluster: Cluster, operator: Installed, restricted: str, volume: Volume, tmp_path: Path, verb: str
) -> None:
    """hold: the pod ends at once. send: it lives, and the command in it does not begin."""
    image = older.build(verb)
    cluster.load_image(image, image)
    where = ["--kubeconfig", str(cluster.kubeconfig), "--namespace", restricted]
    done = subprocess.run(
        [LTX2, "fetch", "fox", str(tmp_path / "fox"), "--claim", volume.claim, "--image", image, *where],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CONFIG, done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith(f"ltx2: --image: {image} is of another version than this ltx2, which is {__version__} (")
    assert f"{verb}: no such verb" in said and f"name an image of {__version__}" in said
    operator.wait_for(lambda: operator.names("pods", restricted) == [], "the pod goes")
    assert not (tmp_path / "fox").exists()
