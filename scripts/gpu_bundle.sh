#!/bin/sh
# Packs the wheels that the GPU tests and benchmarks need on a machine without network into .gpu/wheels (git-ignored).
# That machine has Python 3.12, torch, transformers, safetensors, matplotlib and pytest of its own; taken along are the
# packages that are missing or older there. av stays behind: nothing that runs on the GPU decodes a clip.
# There: scripts/on_gpu.sh installs them.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
version() { "$python" -c "import importlib.metadata as m; print(m.version('$1'))"; }
wanted=
for name in diffusers peft accelerate transformers tokenizers pydantic pydantic-core pydantic-settings python-dotenv \
    annotated-types typing-inspection typing-extensions importlib-metadata zipp; do
    wanted="$wanted $name==$(version "$name")"
done
rm -rf .gpu/wheels
mkdir -p .gpu/wheels
# shellcheck disable=SC2086 # a list of requirements
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -d .gpu/wheels $wanted
size=$(du -sm .gpu | cut -f1)
echo ".gpu/wheels: $(ls .gpu/wheels | wc -l) wheels, $size MiB"
[ "$size" -lt 50 ] || { echo "more than 50 MiB: leave something behind" >&2; exit 1; }
