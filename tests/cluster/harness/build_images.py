"""The images, built from the shipped Dockerfile by podman and runc: no Docker daemon, no registry of images.

`python -m cluster.harness.build_images operator job-cpu` in the folder tests, or `make images`.
The layers lie in podman's storage, which is their cache: after a change to the code only the last layer is made anew.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from .base_image import base_image
from .binaries import Missing
from .podman import inspect, one_build_at_a_time, podman

ROOT = Path(__file__).resolve().parents[3]
TAG = os.environ.get("TEST_IMAGE_TAG", "test")  # another one for each of several checkouts on one machine
TARGETS = ("operator", "job-cpu", "job-cuda", "job-rocm")
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def image_name(target: str, tag: str = TAG) -> str:
    """What podman calls the image of a target: localhost/ltx2/operator:test."""
    return f"localhost/ltx2/{target}:{tag}"


def check_machine() -> None:
    """Raises Missing, with all that is to be installed, if images cannot be built here."""
    if os.geteuid() != 0:
        raise Missing("not root: building images needs it here")
    packages = [package for package in ("podman", "runc") if shutil.which(package) is None]
    if packages:
        raise Missing(f"images need the packages {' '.join(packages)}")


def build(target: str, tag: str = TAG, context: Path = ROOT, **arguments: str) -> str:
    """Build one target of the Dockerfile; returns the image's name.

    The base is made here (base_image.py), unless TEST_BASE_IMAGE names one.

    Args:
        target: one of TARGETS.
        tag: the image's tag.
        context: the checkout to build.
        arguments: more of the Dockerfile's arguments, by name.

    Raises:
        Missing: podman is not here, or no base image can be made.
        RuntimeError: the build failed; the message ends with the end of its output.
    """
    check_machine()
    name = image_name(target, tag)
    given = {"BASE_IMAGE": os.environ.get("TEST_BASE_IMAGE") or base_image(), **arguments}
    command = ["build", "--isolation=chroot", "--network=host", "--layers", "--target", target, "-t", name]
    command += [f"--build-arg={key}={value}" for key, value in sorted(given.items())]
    if _BUNDLE.exists():  # whom this machine trusts, the build trusts
        command += [f"--secret=id=ca,src={_BUNDLE}", "--build-arg=PIP_CERT=/run/secrets/ca"]
    with one_build_at_a_time():
        podman(*command, str(context))
    return name


def main() -> int:
    """Build the targets named; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.harness.build_images", description=__doc__)
    parser.add_argument("targets", nargs="+", choices=TARGETS)
    parser.add_argument("--tag", default=TAG, help="tag of the images (test)")
    arguments = parser.parse_args()
    try:
        for target in arguments.targets:
            name = build(target, arguments.tag)
            print(f"{name}: {inspect(name)['Size'] / 1e6:.0f} MB", flush=True)
    except Missing as why:
        print(f"images: {why}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
