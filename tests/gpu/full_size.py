"""Makes what a GPU run at real size needs: a random LTX-2.0 of 19 G parameters in the official layout, and cached data.

The file has every tensor of a published one, at the published sizes. Only the transformer has values, which is what the
train stage reads; the other parts are holes in the file, and read as zeros.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ltx2_job.config import resolve
from ltx2_job.data.index import Index, Sample
from ltx2_job.models import layout, tiny_header
from ltx2_job.models.header import Header, TensorEntry, encode_header, read_header
from ltx2_job.models.layout import Architecture, AudioVAE, Connector, Generator, Text, Transformer, VideoVAE, Vocoder
from ltx2_job.models.names import place
from ltx2_job.models.tiny_file import TYPES, seeded
from ltx2_job.store import AUDIO, TEXT, VIDEO, Store

PUBLISHED = Architecture(
    version="2.0",
    transformer=Transformer(48, heads=32, head_dim=128, audio_head_dim=64, channels=128, audio_channels=128),
    text=Text(3840, 49, Connector(30, 128, 2), Connector(30, 128, 2)),
    vae=VideoVAE(128, (128, 256, 512, 1024, 2048), (4, 6, 6, 2, 2), (1024, 512, 256, 128), (5, 5, 5, 5)),
    audio_vae=AudioVAE(base=128, multipliers=(1, 2, 4), blocks=2, latent_channels=8),
    vocoder=Vocoder(Generator(1024, (6, 5, 2, 2, 2), (16, 15, 8, 4, 4))),
)
"""LTX-2.0 as published."""

GEMMA: dict[str, Any] = {
    "model_type": "gemma3_text", "vocab_size": 262_208, "hidden_size": 3840, "intermediate_size": 15_360,
    "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256,
    "query_pre_attn_scalar": 256, "sliding_window": 1024, "max_position_embeddings": 131_072,
}  # fmt: skip
"""Gemma 3 12B's language model as published."""

WRITERS = 8  # threads: drawing, converting and writing overlap


def reserve(path: Path, arch: Architecture = PUBLISHED) -> Header:
    """Write the header of a combined file and make the file as long as it says; no tensor has values yet."""
    shapes = dict(layout.tensors(arch)) | dict.fromkeys(layout.UNUSED, (arch.vae.latent_channels,))
    wide_first = sorted(shapes, key=lambda name: (layout.dtype_of(name) != "F32", name))
    entries = {name: (layout.dtype_of(name), shapes[name]) for name in wide_first}
    raw = encode_header(entries, tiny_header.metadata(arch))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        data = sum(TYPES[layout.dtype_of(name)].itemsize * math.prod(shape) for name, shape in shapes.items())
        file.truncate(8 + len(raw) + data)
    return read_header(path)


def reserve_gemma(folder: Path) -> None:
    """Write a folder of Gemma 3 12B without values: its language model reads as zeros. The tokenizer is a small one."""
    from accelerate import init_empty_weights
    from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
    from transformers.models.gemma3.modeling_gemma3 import Gemma3TextModel

    from ltx2_job.models.gemma import MAX_TOKENS
    from ltx2_job.models.tiny_gemma import tokenizer

    with init_empty_weights():
        model = Gemma3TextModel(Gemma3TextConfig(**GEMMA))
    shapes = {f"language_model.model.{name}": tuple(tensor.shape) for name, tensor in model.named_parameters()}
    entries = {name: ("BF16", shape) for name, shape in shapes.items()}
    raw = encode_header(entries, {"format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + 2 * sum(map(math.prod, shapes.values())))
    small = tokenizer()
    small.model_max_length = MAX_TOKENS
    small.save_pretrained(str(folder))
    described = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": GEMMA}
    (folder / "config.json").write_text(json.dumps(described))


def write_checkpoint(path: Path, arch: Architecture = PUBLISHED, seed: int = 0, device: str = "cpu") -> int:
    """Write a combined file whose transformer is random; returns the bytes that have values.

    Each tensor is drawn on `device` from its name and the seed, so that no two blocks are alike. Every layer keeps the
    scale of what goes through it (standard deviation 1 / sqrt(3 x inputs), as torch's own initialisation), and the
    residual stream grows with the root of the number of blocks at most: activations stay finite at any depth.
    """
    header = reserve(path, arch)
    entries = [entry for name, entry in header.tensors.items() if (at := place(name)) and at.part == "transformer"]
    descriptor = os.open(path, os.O_WRONLY)
    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            return sum(pool.map(lambda entry: _write(descriptor, entry, seed, device), entries))
    finally:
        os.close(descriptor)


def _write(descriptor: int, entry: TensorEntry, seed: int, device: str) -> int:
    values = _values(entry, seed, device).cpu().contiguous().view(torch.uint8).numpy().reshape(-1)
    left = memoryview(values)
    position = entry.begin
    while left:
        written = os.pwrite(descriptor, left, position)
        left, position = left[written:], position + written
    return entry.nbytes


def _values(entry: TensorEntry, seed: int, device: str) -> torch.Tensor:
    source = torch.Generator(device).manual_seed(seeded(entry.name, seed).initial_seed())
    noise = torch.randn(entry.shape, generator=source, dtype=TYPES[entry.dtype], device=device)
    if entry.name.endswith("_norm.weight"):
        return 1 + 0.1 * noise
    if "scale_shift_table" in entry.name:
        return noise / math.sqrt(entry.shape[-1])
    return 0.05 * noise if len(entry.shape) == 1 else noise / math.sqrt(3 * math.prod(entry.shape[1:]))


def sample(name: str, shape: tuple[int, int, int], *, held_out: bool = False) -> Sample:
    """A sounding sample of the index with `shape` = (frames, height, width) at 25 frames per second."""
    frames, height, width = shape
    return Sample(
        id=f"clips/{name}", dataset="clips", path=f"clips/{name}", width=width, height=height, frames=frames, fps=25.0,
        audio_latents=frames, sounding=True, video_key=f"{name}v", audio_key=f"{name}a", text_keys=(f"{name}t",),
        repeats=0, probability=1.0, held_out=held_out,
    )  # fmt: skip


def fill_store(store: Store, samples: Sequence[Sample], arch: Architecture, text_tokens: int) -> None:
    """Put random items of unit scale for the samples into the store: latents, sound and connector outputs.

    A few directions carry most of the latents, so that a LoRA has something to learn within twenty steps.
    """
    for each in samples:
        source = torch.Generator().manual_seed(seeded(each.id, 0).initial_seed())

        def normal(*shape: int, source: torch.Generator = source) -> torch.Tensor:
            return torch.randn(shape, generator=source)

        grid = (each.frames - 1) // 8 + 1, each.height // 32, each.width // 32
        video = 0.9 * normal(arch.transformer.channels, 1, 1, 1) + 0.4 * normal(arch.transformer.channels, *grid)
        sound = 0.9 * normal(1, arch.transformer.audio_channels)
        sound = sound + 0.4 * normal(each.audio_latents, arch.transformer.audio_channels)
        widths = {"video": arch.text.video.width, "audio": arch.text.audio.width}
        text = {modality: normal(text_tokens, width).to(torch.bfloat16) for modality, width in widths.items()}
        store.put(VIDEO, each.video_key, {"latents": video.to(torch.bfloat16)}, {})
        store.put(AUDIO, str(each.audio_key), {"latents": sound}, {})
        store.put(TEXT, each.text_keys[0], text, {})


def prepare_run(
    workspace: Path, name: str, model: Path, samples: Sequence[Sample], plan: Mapping[str, Any], **config: Any
) -> Path:
    """Write what `ltx2-job train --files` reads (config, datasets, plan) and the run's index; returns that folder.

    The store of the samples lies in workspace/cache. `plan` adds to a plan for one process on this machine.
    """
    dataset = {"id": "clips", "type": "local", "dataset_type": "video", "instance_data_dir": "clips"}
    settings = {
        "pretrained_model_name_or_path": str(model),
        "validation_disable": True,
        "checkpoint_step_interval": 0,
        "eval_steps_interval": 0,
    }
    resolved = resolve({**settings, **config}, [dataset])
    resolved.require_supported()
    dump = resolved.dump()
    page = {"gpuClass": "test", "device": "cuda", "nodes": 1, "processes": 1, "cacheMemory": "device", **plan}
    files = workspace / "files" / name
    files.mkdir(parents=True, exist_ok=True)
    for file, content in (("config", dump["config"]), ("datasets", dump["datasets"]), ("plan", page)):
        (files / f"{file}.json").write_text(json.dumps(content))
    Index(tuple(samples), {}, str(workspace / "cache")).save(workspace / "runs" / name / "index.json")
    return files
