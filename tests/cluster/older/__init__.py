"""Images as an older release would have them: their `ltx2-job` lacks a verb."""

from pathlib import Path

from cluster.harness import build_images
from cluster.harness.podman import one_build_at_a_time, podman


def build(unknown: str) -> str:
    """Build one without the verb `unknown`; returns its name. Raises as build_images.build."""
    operator, name = build_images.build("operator"), build_images.image_name(f"without-{unknown}")
    with one_build_at_a_time():
        podman("build", "--isolation=chroot", "--network=host", f"--build-arg=OPERATOR={operator}",
               f"--build-arg=UNKNOWN={unknown}", "-t", name, str(Path(__file__).parent))  # fmt: skip
    return name
