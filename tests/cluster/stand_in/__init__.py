"""An image for jobs that end as a test wants: the shipped job around bodies of stages that do nothing."""

from pathlib import Path

from cluster.harness import build_images
from cluster.harness.podman import one_build_at_a_time, podman

IMAGE = build_images.image_name("stand-in")


def build() -> str:
    """Build it on the operator's image, which holds all of the job but torch. Raises as build_images.build."""
    operator = build_images.build("operator")
    with one_build_at_a_time():
        podman("build", "--isolation=chroot", "--network=host", f"--build-arg=OPERATOR={operator}", "-t", IMAGE,
               str(Path(__file__).parent))  # fmt: skip
    return IMAGE
