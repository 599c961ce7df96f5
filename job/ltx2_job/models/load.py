"""A checkpoint of LTX-2 and everything that can be loaded from it.

Two layouts are read: the official combined .safetensors file (transformer, connectors, both autoencoders and vocoder in
one file, Gemma 3 in a folder beside it) and folders in diffusers' layout. Opening reads headers only. Modules import
their libraries when they are asked for: a training process never imports an autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2_job.hub.snapshot import Snapshots
from ltx2_job.models.gemma import GemmaFolder, find_gemma
from ltx2_job.models.header import fault
from ltx2_job.models.layout import Version
from ltx2_job.models.names import PARTS, Part
from ltx2_job.models.sources import CombinedFile, DiffusersFolder, content_hash, open_source

if TYPE_CHECKING:
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
    from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

    from ltx2_job.config import TrainingConfig
    from ltx2_job.memory.plan import Form, MemoryPlan
    from ltx2_job.models.text import TextEncoder
    from ltx2_job.models.transformer import LTX2Transformer
    from ltx2_job.workspace import RunFolder, Workspace

TEXT_ENCODER = "text_encoder"


@dataclass(frozen=True)
class Checkpoint:
    """An opened and checked model. `gemma` is None where no text encoder was found: only `text_encoder` needs it."""

    source: CombinedFile | DiffusersFolder
    gemma: GemmaFolder | None

    @staticmethod
    def open(path: Path, gemma: Path | None = None) -> Checkpoint:
        """Open a combined file or a folder in diffusers' layout, checking headers only.

        gemma: a folder with Gemma 3 and its tokenizer; None looks beside the file (`gemma/`) or in the folder
        (`text_encoder/`, `tokenizer/`). Raises CheckpointError listing every tensor that does not fit, and for files
        that are not supported yet.
        """
        return Checkpoint(open_source(path), find_gemma(path, gemma))

    @staticmethod
    def find(config: TrainingConfig, workspace: Workspace, run: RunFolder) -> Checkpoint:
        """The model of a run whose cache stage is done, without the network and without a chosen text encoder.

        Raises as Checkpoint.open, and NoInputError if it is not in the workspace.
        """
        return Checkpoint.open(Snapshots(workspace, run).find_model(config))

    @property
    def path(self) -> Path:
        """The combined file, or the folder."""
        return self.source.path

    @property
    def version(self) -> Version:
        """The generation: "2.0" or "2.3"."""
        return self.source.version

    @property
    def text_tokens(self) -> int:
        """Tokens of a caption, and of the connectors' outputs: 1,024 in the published models."""
        return self._gemma().tokens

    def files(self, part: str) -> tuple[Path, ...]:
        """The files that `fingerprint(part)` reads: a remembered hash is valid while none of them has changed."""
        if part == TEXT_ENCODER:
            return self._gemma().files
        return self.source.part(_known(part)).files

    def fingerprint(self, part: str) -> str:
        """sha256 (hex) of the weights of a part (names.PARTS, or "text_encoder" for Gemma and its tokenizer).

        What a caption becomes depends on "text_encoder" and "connectors", a video latent on "vae", an audio latent on
        "audio_vae". Reads all bytes of that part: the caller remembers the result for files that have not changed.
        """
        if part == TEXT_ENCODER:
            return self._gemma().content_hash()
        return content_hash(self.source.part(_known(part)))

    def transformer(self, plan: MemoryPlan, device: torch.device | str) -> LTX2Transformer:
        """The transformer: each tensor in the plan's form on `device`, as many blocks recomputed as the plan says."""
        from ltx2_job.models.materialise import build
        from ltx2_job.models.transformer import LTX2Transformer

        model = build(LTX2Transformer, self.source.part("transformer"), lambda name: plan.form_of(name, device))
        model.runner.keep = plan.keep
        return model

    def video_vae(self, device: torch.device | str, dtype: torch.dtype) -> AutoencoderKLLTX2Video:
        """The video autoencoder in `dtype`; the latents' statistics stay in fp32."""
        from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video

        from ltx2_job.models.materialise import build

        return build(AutoencoderKLLTX2Video, self.source.part("vae"), _statistics_fp32(device, dtype))

    def audio_vae(self, device: torch.device | str) -> AutoencoderKLLTX2Audio:
        """The audio autoencoder, in fp32 as the official trainer runs it."""
        import torch
        from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio

        from ltx2_job.models.materialise import build

        return build(AutoencoderKLLTX2Audio, self.source.part("audio_vae"), _everything(device, torch.float32))

    def connectors(self, device: torch.device | str, dtype: torch.dtype) -> LTX2TextConnectors:
        """The text projections and connectors in `dtype`."""
        from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

        from ltx2_job.models.materialise import build

        return build(LTX2TextConnectors, self.source.part("connectors"), _everything(device, dtype))

    def vocoder(self, device: torch.device | str) -> LTX2Vocoder | LTX2VocoderWithBWE:
        """The vocoder in fp32: 24 kHz in 2.0, 48 kHz by bandwidth extension in 2.3."""
        import torch
        from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

        from ltx2_job.models.materialise import build

        cls = LTX2VocoderWithBWE if self.version == "2.3" else LTX2Vocoder
        return build(cls, self.source.part("vocoder"), _everything(device, torch.float32))

    def text_encoder(self, device: torch.device | str, dtype: torch.dtype) -> TextEncoder:
        """Gemma 3 and the connectors behind it, both in `dtype`. Raises CheckpointError if there is no Gemma."""
        from ltx2_job.models.text import load_text_encoder

        return load_text_encoder(self._gemma(), self.connectors(device, dtype), device, dtype)

    def require_text_encoder(self) -> None:
        """Raise CheckpointError if there is no Gemma 3 that captions can be encoded with; from headers alone."""
        gemma = self._gemma()
        _ = gemma.config, gemma.tokens, gemma.tensors

    def _gemma(self) -> GemmaFolder:
        if self.gemma is None:
            raise fault(
                f"there is no Gemma 3 beside {self.path}",
                "set pretrained_gemma_model_name_or_path to its folder, or put it into a folder `gemma` there",
            )
        return self.gemma


def fingerprint(path: Path, part: str, gemma: Path | None = None) -> str:
    """sha256 (hex) of a part's weights: Checkpoint.open(path, gemma).fingerprint(part)."""
    return Checkpoint.open(path, gemma).fingerprint(part)


def _known(part: str) -> Part:
    for known in PARTS:
        if part == known:
            return known
    raise ValueError(f"unknown part {part!r}; parts are {', '.join(PARTS)}, {TEXT_ENCODER}")


def _everything(device: torch.device | str, dtype: torch.dtype) -> Callable[[str], Form]:
    import torch

    from ltx2_job.memory.plan import Form

    form = Form(dtype, torch.device(device))
    return lambda _: form


def _statistics_fp32(device: torch.device | str, dtype: torch.dtype) -> Callable[[str], Form]:
    """Normalising is done in fp32 (the latents are rounded once, when they are stored)."""
    import torch

    from ltx2_job.memory.plan import Form

    weights, statistics = Form(dtype, torch.device(device)), Form(torch.float32, torch.device(device))
    return lambda name: statistics if name in ("latents_mean", "latents_std") else weights
