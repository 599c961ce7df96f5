#!/bin/sh
# Writes images/build.txt and images/cuda.txt anew: what the Dockerfile installs beside uv.lock, with every hash.
# `make lock` calls it. The versions of torch are chosen here and in images/rocm.txt: those that were run on GPUs.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
torch=2.11.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2046 # a list of options
"$uv" export --quiet --frozen --extra job --no-emit-project --no-hashes --no-annotate --no-header \
    $(sed -nE 's/^name = "(torch|triton|setuptools|nvidia-[^"]*|cuda-[^"]*)"$/--no-emit-package \1/p' uv.lock) \
    --output-file "$work/job.txt"
compile() {
    "$uv" pip compile --quiet --no-header --no-annotate --generate-hashes --universal --python-version 3.12 "$@"
}
# Packages that torch shares with the rest of a job keep the versions of uv.lock and are not listed a second time.
shared=$(sed -nE 's/^([a-z0-9.-]+)==.*/--no-emit-package \1/p' "$work/job.txt")
echo "torch==$torch ; sys_platform == 'linux'" >"$work/torch.in"
# shellcheck disable=SC2086
{
    echo "# torch for NVIDIA GPUs with all that its wheels bring, from PyPI; written by scripts/pin_images.sh."
    compile -c "$work/job.txt" $shared "$work/torch.in"
} >"$work/cuda.txt"
{
    echo "# What the Dockerfile builds with; written by scripts/pin_images.sh."
    printf 'uv==%s\nhatchling\n' "$("$uv" --version | cut -d' ' -f2)" | compile -
} >"$work/build.txt"
mv "$work/cuda.txt" "$work/build.txt" images/ # here, so that a failure leaves the old ones
