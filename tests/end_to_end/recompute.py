"""Recompute a run's held-out loss from its exported files alone: a process of its own, stock diffusers, no ltx2 import.

    python recompute.py MODEL.safetensors RUN_FOLDER SEED  ->  one JSON line {"base", "official", "diffusers"}

Reads what a user has: the model file, index.json with the cache beside it, both LoRA files. The held-out question is
that of docs/training.md: noise levels 0.1, 0.3, 0.5, 0.7, 0.9, 0.97 alike for video and audio, noise from Philox
generators keyed by blake2b of "seed\\0held-out\\0clip id\\0" + "0\\0role". Every clip must have sound: stock diffusers
cannot mute one.
"""

import hashlib
import json
import math
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers.loaders.lora_pipeline import LTX2LoraLoaderMixin
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.utils import logging
from safetensors import safe_open
from safetensors.torch import load_file

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)


def stock_transformer(path: Path) -> LTX2VideoTransformer3DModel:
    """diffusers' own reader of a combined 2.0 file; its config written from the file's header by hand."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    config = json.loads(header["__metadata__"]["config"])["transformer"]
    kwargs = {
        "num_layers": config["num_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "attention_head_dim": config["attention_head_dim"],
        "cross_attention_dim": config["cross_attention_dim"],
        "audio_num_attention_heads": config["audio_num_attention_heads"],
        "audio_attention_head_dim": config["audio_attention_head_dim"],
        "audio_cross_attention_dim": config["audio_cross_attention_dim"],
        "caption_channels": config["caption_channels"],
        "rope_type": "split",
        "rope_double_precision": True,
        "cross_attn_timestep_scale_multiplier": 1000,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "transformer").mkdir()
        (Path(folder) / "transformer" / "config.json").write_text(
            json.dumps({"_class_name": "LTX2VideoTransformer3DModel", "_diffusers_version": "0.42.1", **kwargs})
        )
        return LTX2VideoTransformer3DModel.from_single_file(
            str(path), config=folder, subfolder="transformer", torch_dtype=torch.float32, local_files_only=True
        ).eval()


def noise(seed: int, clip: str, role: str, shape: tuple[int, int]) -> torch.Tensor:
    key = hashlib.blake2b(f"{seed}\0held-out\0{clip}\0{0}\0{role}".encode(), digest_size=16).digest()
    source = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return torch.from_numpy(source.standard_normal(shape, dtype=np.float32))[None]


def loss(model: LTX2VideoTransformer3DModel, run: Path, seed: int) -> float:
    index = json.loads((run / "index.json").read_text())
    cache = (run / index["cache_root"]).resolve()

    def read(kind: str, key: str) -> dict[str, torch.Tensor]:
        return load_file(cache / kind / key[:2] / f"{key}.safetensors")

    total = []
    for sample in index["samples"]:
        assert sample["sounding"], sample
        latents = read("video", sample["video_key"])["latents"].float()
        frames, height, width = latents.shape[1:]
        video = latents.flatten(1).T[None]
        audio = read("audio", sample["audio_key"])["latents"].float()[None]
        text = read("text", sample["text_keys"][0])
        video_noise = noise(seed, sample["id"], "video noise", (video.shape[1], video.shape[2]))
        audio_noise = noise(seed, sample["id"], "audio noise", (audio.shape[1], audio.shape[2]))
        for level in LEVELS:
            time = torch.tensor([1000.0 * level])
            with torch.no_grad():
                seen = model(
                    hidden_states=(1 - level) * video + level * video_noise,
                    audio_hidden_states=(1 - level) * audio + level * audio_noise,
                    encoder_hidden_states=text["video"].float()[None],
                    audio_encoder_hidden_states=text["audio"].float()[None],
                    timestep=time, sigma=time, num_frames=frames, height=height, width=width,
                    fps=sample["fps"], audio_num_frames=audio.shape[1],
                )  # fmt: skip
            total.append(
                ((seen.sample - (video_noise - video)) ** 2).mean().item()
                + ((seen.audio_sample - (audio_noise - audio)) ** 2).mean().item()
            )
    return math.fsum(total) / len(total)


def with_lora(model_file: Path, lora: Path) -> LTX2VideoTransformer3DModel:
    model = stock_transformer(model_file)
    state = LTX2LoraLoaderMixin.lora_state_dict(str(lora))
    with safe_open(lora, "pt") as file:
        settings = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "null"))
    model.load_lora_adapter(
        {key.removeprefix("transformer."): value for key, value in state.items()},
        prefix=None,
        metadata=settings and {key.removeprefix("transformer."): value for key, value in settings.items()},
    )
    return model


def main() -> None:
    logging.set_verbosity_error()
    model_file, run, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    print(
        json.dumps(
            {
                "base": loss(stock_transformer(model_file), run, seed),
                "official": loss(with_lora(model_file, run / "lora.safetensors"), run, seed),
                "diffusers": loss(with_lora(model_file, run / "lora.diffusers.safetensors"), run, seed),
            }
        )
    )


main()
