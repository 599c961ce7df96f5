"""What a pod needs beside the device: CPU, memory, /dev/shm, scratch disk; and the volume. Bytes, by named terms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ltx2_job.estimate.constants import figure
from ltx2_job.estimate.models import Model
from ltx2_job.estimate.plans import Form, activation_bytes
from ltx2_job.estimate.shapes import LATENT_CHANNELS, Shape

GIB: Final = 2**30
VOLUME_SPARE: Final = 1.2


@dataclass(frozen=True)
class Host:
    """What a pod needs beside the device, for all processes of one node. Bytes; CPU in thousandths of a core.

    terms: the parts of `memory`, which is their sum rounded up to a GiB.
    """

    cpu_milli: int
    memory: int
    shm: int
    scratch: int
    terms: dict[str, int]


def host(device: Literal["cuda", "cpu"], processes: int, extra: Mapping[str, int]) -> Host:
    """Resources of a pod.

    extra: bytes by name that each process holds in host memory beside its own start: pinned weights, copies for a
    checkpoint, decoded clips; on a CPU all that would lie on the device.
    """
    kind = "cpu" if device == "cpu" else "gpu"
    shm = round(figure("host", "shm_bytes" if processes > 1 else "shm_bytes_single") * processes)
    each = {"process": round(figure("host", f"{kind}_process_bytes"))}
    if device != "cpu":
        each["spare"] = round(figure("host", "spare_bytes"))
    terms = {name: processes * size for name, size in {**each, **extra}.items()} | {"/dev/shm": shm}
    return Host(
        cpu_milli=round(figure("host", f"{kind}_cpu_milli")) * processes,
        memory=round_up(sum(terms.values()), GIB),
        shm=shm,
        scratch=round(figure("host", f"{kind}_scratch_bytes")),
        terms=terms,
    )


def media_terms(device: Literal["cuda", "cpu"], clip: Shape, form: Form) -> dict[str, int]:
    """Host bytes of decoding in the cache stage, by part.

    A media worker for each planned core (caching/survey.py), and the clips decoded ahead of the video encoder, one for
    each worker and the one being encoded: 3 values a pixel.
    """
    workers = host(device, 1, {}).cpu_milli // 1000
    return {
        "media workers": workers * round(figure("host", "media_worker_bytes")),
        "clips decoded ahead": round((workers + 1) * clip.pixels * 3 * activation_bytes(form)),
    }


def volume_terms(model: Model, clip: Shape, *, rank: int, checkpoints: int, downloads: bool) -> dict[str, int]:
    """Bytes on the volume by part: downloads, sources, cache, checkpoints, samples.

    The number of clips is not known before the volume is mounted; estimate_constants.json says what is assumed.
    """
    clips = figure("disk", "clips")
    latents = clip.video_tokens * LATENT_CHANNELS * 2 + clip.audio_latents * LATENT_CHANNELS * 4
    return {
        "downloads": sum(download_bytes(model)) if downloads else 0,
        "source clips": round(clips * figure("disk", "source_bytes_per_clip")),
        "cached latents": round(clips * latents),
        "cached captions": round(clips * figure("disk", "caption_bytes")),
        "checkpoints": (checkpoints + 2) * 12 * model.adapter(rank),
        "samples": round(figure("disk", "samples_bytes")),
    }


def download_bytes(model: Model) -> tuple[int, int]:
    """Bytes of the combined file, and of the text encoder's weights, as they are published: in bf16."""
    parts = model.transformer + model.connectors + model.video_encoder + model.video_decoder + model.audio
    return 2 * parts, 2 * model.text_encoder


def with_spare(terms: Mapping[str, int]) -> int:
    """The size of a volume for such terms: a fifth to spare, rounded up to 10 GiB."""
    return round_up(VOLUME_SPARE * sum(terms.values()), 10 * GIB)


def round_up(value: float, unit: int) -> int:
    """The next multiple of a unit."""
    return math.ceil(value / unit) * unit
