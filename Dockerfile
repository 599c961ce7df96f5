# The four images, one target each:
#   operator   the operator and the user's command `ltx2`; holds no torch
#   job-cuda   what pods with NVIDIA GPUs run    job-rocm   with AMD GPUs    job-cpu   with neither (tiny models, tests)
# docs/images.md has the commands, the mirrors and the sizes. Layers, the rarest change first: base, the packages of
# uv.lock without torch, torch of the flavour, this project.
# Libraries of CUDA and ROCm come with torch's wheels, so the same small base carries every flavour.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS base
ENV VIRTUAL_ENV=/opt/ltx2 PATH=/opt/ltx2/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A user with a name: libraries look their user up, and numeric for Kubernetes to see that it is not root.
RUN python3.12 -m venv --without-pip "${VIRTUAL_ENV}" \
    && groupadd --gid 65532 nonroot \
    && useradd --no-log-init --uid 65532 --gid 65532 -K UID_MAX=65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nonroot \
    && install --directory --owner=65532 --group=65532 /workspace
WORKDIR /workspace

# What builds, and stays out of every image.
FROM base AS tools
ARG PYTHON_INDEX=https://pypi.org/simple
ARG PIP_CERT
COPY images/build.txt /build/
RUN --mount=type=secret,id=ca \
    pip install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
       --index-url "${PYTHON_INDEX}" -r /build/build.txt

# One list of pinned packages a layer: a layer is built anew when its list changes, whatever else uv.lock holds.
FROM tools AS requirements
WORKDIR /build
COPY pyproject.toml uv.lock ./
COPY images/cuda.txt images/rocm.txt /requirements/
# hadolint ignore=SC2086
RUN export="uv export --quiet --frozen --no-emit-project --no-annotate --no-header" \
    && device=$(sed -nE 's/^name = "(torch|triton|nvidia-[^"]*|cuda-[^"]*)"$/--no-emit-package \1/p' uv.lock) \
    && $export --output-file /requirements/operator.txt \
    && $export --extra job --output-file /requirements/cpu.txt \
    && $export --extra job $device --output-file /requirements/job.txt

FROM tools AS code
WORKDIR /build
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY operator operator
COPY job job
RUN pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && pip --python "${VIRTUAL_ENV}" install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM base AS operator
ARG PYTHON_INDEX=https://pypi.org/simple
ARG PIP_CERT
COPY --from=requirements /requirements/operator.txt /opt/ltx2/requirements/
RUN --mount=type=secret,id=ca \
    pip --python "${VIRTUAL_ENV}" install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
       --index-url "${PYTHON_INDEX}" -r /opt/ltx2/requirements/operator.txt
COPY --from=code /opt/ltx2 /opt/ltx2
USER 65532:65532
CMD ["ltx2", "operator"]
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="LTX-2 training operator" \
      org.opencontainers.image.description="Trains LoRAs of the LTX-2 audio-video model on a Kubernetes cluster" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"

# All of a job but torch and what its wheels bring: the same layer below the three flavours.
FROM base AS job
ARG PYTHON_INDEX=https://pypi.org/simple
ARG PIP_CERT
COPY --from=requirements /requirements/job.txt /opt/ltx2/requirements/
RUN --mount=type=secret,id=ca \
    pip --python "${VIRTUAL_ENV}" install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
       --index-url "${PYTHON_INDEX}" -r /opt/ltx2/requirements/job.txt

FROM job AS job-cpu
ARG PYTHON_INDEX=https://pypi.org/simple
ARG PIP_CERT
# Torch's index of CPU wheels (https://download.pytorch.org/whl/cpu) makes an image of a quarter of the size. Without
# it the torch of uv.lock is installed, which is built for CUDA and runs on a CPU too.
ARG CPU_INDEX=
COPY --from=requirements /requirements/cpu.txt /opt/ltx2/requirements/
RUN --mount=type=secret,id=ca \
    pip="pip --python ${VIRTUAL_ENV}" \
    && if [ -n "${CPU_INDEX}" ]; then set -- --index-url "${CPU_INDEX}" \
           "$(sed -nE 's/^(torch==[0-9.]+).*/\1+cpu/p' /opt/ltx2/requirements/cpu.txt)"; \
       else set -- --index-url "${PYTHON_INDEX}" --require-hashes -r /opt/ltx2/requirements/cpu.txt; fi \
    && $pip install --no-cache-dir --no-deps --only-binary=:all: "$@" \
    && $pip check
COPY --from=code /opt/ltx2 /opt/ltx2
USER 65532:65532
CMD ["ltx2-job", "--help"]
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="LTX-2 training job (CPU)" \
      org.opencontainers.image.description="Caches, trains and validates LoRAs of LTX-2; for tiny models without a GPU" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM job AS job-cuda
ARG PYTHON_INDEX=https://pypi.org/simple
ARG PIP_CERT
ARG CUDA_VERSION=13.0
COPY --from=requirements /requirements/cuda.txt /opt/ltx2/requirements/
# The last line holds torch to what the label says, and to Blackwell: B200 is sm_100, RTX 50 and RTX PRO 6000 sm_120.
RUN --mount=type=secret,id=ca \
    pip --python "${VIRTUAL_ENV}" install --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
       --index-url "${PYTHON_INDEX}" -r /opt/ltx2/requirements/cuda.txt \
    && pip --python "${VIRTUAL_ENV}" check \
    && python -c "import sys, torch; built = torch.version.cuda, *torch._C._cuda_getArchFlags().split(); print(*built); \
sys.exit(built[0] != '${CUDA_VERSION}' or not {'sm_80', 'sm_90', 'sm_100', 'sm_120'} <= {*built})"
COPY --from=code /opt/ltx2 /opt/ltx2
# The container toolkit gives no more of the driver than this. Which GPUs a pod sees is left to the device plugin:
# NVIDIA_VISIBLE_DEVICES in an image would show all of them to pods that asked for none.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
CMD ["ltx2-job", "--help"]
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="LTX-2 training job (CUDA ${CUDA_VERSION})" \
      org.opencontainers.image.description="Caches, trains and validates LoRAs of LTX-2 on NVIDIA GPUs, Blackwell included" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      dev.ltx2.cuda="${CUDA_VERSION}"

FROM job AS job-rocm
ARG PYTHON_INDEX=https://pypi.org/simple
ARG PIP_CERT
ARG ROCM_VERSION=7.2
ARG ROCM_INDEX=https://download.pytorch.org/whl/rocm${ROCM_VERSION}
COPY --from=requirements /requirements/rocm.txt /opt/ltx2/requirements/
# Exact versions with torch's local suffix: only ROCM_INDEX can have them, whichever index is asked first.
RUN --mount=type=secret,id=ca \
    pip --python "${VIRTUAL_ENV}" install --no-cache-dir --no-deps --only-binary=:all: \
       --index-url "${PYTHON_INDEX}" --extra-index-url "${ROCM_INDEX}" -r /opt/ltx2/requirements/rocm.txt \
    && pip --python "${VIRTUAL_ENV}" check \
    && python -c "import sys, torch; print(torch.version.hip); \
sys.exit(not str(torch.version.hip).startswith('${ROCM_VERSION}.'))"
COPY --from=code /opt/ltx2 /opt/ltx2
USER 65532:65532
CMD ["ltx2-job", "--help"]
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="LTX-2 training job (ROCm ${ROCM_VERSION})" \
      org.opencontainers.image.description="Caches, trains and validates LoRAs of LTX-2 on AMD GPUs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      dev.ltx2.rocm="${ROCM_VERSION}"
