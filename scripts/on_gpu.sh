#!/bin/sh
# Runs Python with this project on a GPU machine without network: first installs the wheels that gpu_bundle.sh packed
# there, beside the torch of that machine.
#   scripts/on_gpu.sh -m pytest -q -m gpu tests/gpu
#   scripts/on_gpu.sh benchmarks/real_size.py --workspace /tmp/real
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
site=${TMPDIR:-/tmp}/ltx2-site
if [ ! -d "$site" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-cache-dir --target "$site" .gpu/wheels/*.whl
fi
root=$(pwd)
export PYTHONPATH="$site:$root/operator:$root/job:$root/tests" PYTHONUNBUFFERED=1
exec "$python" "$@"
