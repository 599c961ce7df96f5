"""GPU memory of what runs beside the training steps, at real size: VAE encode and decode, sound, captions.

    PYTHONPATH=operator:job:tests python benchmarks/cache_memory.py --workspace /tmp/real --results benchmarks/results

The models have their published shapes and no values (holes in sparse files, read as zeros): memory does not depend on
values. Each row is the peak that torch has in use and has reserved, without the training's own weights; beside it
stands what estimate.py predicts. `--tiny` is the same run on a CPU with tiny models, for trying it out: no memory is
measured there.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu.full_size import PUBLISHED, reserve, reserve_gemma
from ltx2_job import estimate
from ltx2_job.models.autoencoders import decode_audio, decode_video, encode_audio, encode_video
from ltx2_job.models.load import Checkpoint
from ltx2_job.models.tiny import tiny_architecture
from ltx2_job.models.tiny_gemma import write_gemma

GIB = 2**30
# frames, height, width; the later ones may not fit a card, which is a result too
SHAPES = ((17, 480, 832), (49, 512, 768), (121, 512, 768), (49, 704, 1280), (121, 704, 1280))
TINY_SHAPES = ((9, 64, 64), (17, 64, 96))
CAPTION = "a red fox runs over fresh snow, the camera pans right " * 120  # more than 1,024 tokens


class Meter:
    """Runs one thing after another on a device and keeps the peak of each."""

    def __init__(self, device: str):
        import torch

        self.torch, self.device, self.rows = torch, torch.device(device), []

    def measure(self, what: str, predicted: int | None, work: Callable[[], Any], **facts: Any) -> None:
        """Run `work` and keep its peak. What stays on the device from before (`weights`) counts in."""
        torch, cuda = self.torch, self.device.type == "cuda"
        row: dict[str, Any] = {"what": what, **facts}
        if cuda:
            torch.cuda.empty_cache()
            row["weights"] = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        began = time.monotonic()
        try:
            work()
            if cuda:
                torch.cuda.synchronize()
                row["allocated"], row["reserved"] = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        except torch.OutOfMemoryError as error:
            row["out_of_memory"] = str(error).splitlines()[0]
        row |= {"seconds": round(time.monotonic() - began, 3), "predicted": predicted}
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def main() -> int:
    """Measure, print, and write cache_memory.md and .log."""
    parser = argparse.ArgumentParser(description="GPU memory of the cache stage and of sample clips, at real size.")
    parser.add_argument("--workspace", type=Path, required=True, help="a folder whose file system keeps holes in files")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="where the table goes")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    args = parser.parse_args()
    meter = Meter("cpu" if args.tiny else "cuda")
    model = args.workspace / "models" / "hollow.safetensors"
    reserve(model, tiny_architecture("2.0", 2) if args.tiny else PUBLISHED)
    gemma = args.workspace / "models" / "gemma"
    write_gemma(gemma, 0) if args.tiny else reserve_gemma(gemma)
    checkpoint = Checkpoint.open(model, gemma)
    sizes = estimate.read_model(model, gemma)
    shapes = TINY_SHAPES if args.tiny else SHAPES
    videos(meter, checkpoint, sizes, shapes)
    sounds(meter, checkpoint, shapes)
    captions(meter, checkpoint, sizes)
    if args.tiny:
        return 0
    text = table(meter.rows, *card(meter))
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "cache_memory.log").write_text("".join(json.dumps(row) + "\n" for row in meter.rows))
    (args.results / "cache_memory.md").write_text(text)
    print(text)
    return 0


def videos(meter: Meter, checkpoint: Checkpoint, sizes: estimate.Model, shapes: Any) -> None:
    """Encoding and decoding clips of each shape with the video VAE, as the cache stage and validation do."""
    torch, cuda = meter.torch, meter.device.type == "cuda"
    dtype, form = (torch.bfloat16, "bf16") if cuda else (torch.float32, "fp32")
    vae = checkpoint.video_vae(meter.device, dtype)
    channels = vae.config["latent_channels"]
    for frames, height, width in shapes:
        clip = estimate.shape(width, height, frames)
        facts = {"frames": frames, "height": height, "width": width, "pixels": frames * height * width}
        pixels = (torch.rand(1, 3, frames, height, width) * 2 - 1).to(dtype)
        latents = torch.randn(1, channels, (frames - 1) // 8 + 1, height // 32, width // 32)
        passes = estimate.cache_passes(sizes, clip, form=form, device=meter.device.type)
        meter.measure(
            "encode", estimate.allocated(passes["video"]), lambda pixels=pixels: encode_video(vae, pixels), **facts
        )
        terms = estimate.validation_terms(sizes, clip, form=form, rank=32, device=meter.device.type)
        decoding = terms["decoders"] + terms["decoding"]
        meter.measure("decode", decoding, lambda latents=latents: decode_video(vae, latents).cpu(), **facts)


def sounds(meter: Meter, checkpoint: Checkpoint, shapes: Any) -> None:
    """Encoding and decoding the sound of the longest clip."""
    torch, frames = meter.torch, max(frames for frames, _, _ in shapes)
    audio_vae, vocoder = checkpoint.audio_vae(meter.device), checkpoint.vocoder(meter.device)
    length = estimate.audio_latents(frames)
    mel = torch.randn(1, 2, 4 * length, 64, device=meter.device)
    meter.measure("encode sound", None, lambda: encode_audio(audio_vae, mel, length), frames=frames)
    latents = torch.randn(1, length, audio_vae.latents_mean.numel())
    meter.measure("decode sound", None, lambda: decode_audio(audio_vae, vocoder, latents), frames=frames)


def captions(meter: Meter, checkpoint: Checkpoint, sizes: estimate.Model) -> None:
    """Encoding one caption of full length: Gemma, its states, projection and connectors."""
    torch, cuda = meter.torch, meter.device.type == "cuda"
    encoder = checkpoint.text_encoder(meter.device, torch.bfloat16 if cuda else torch.float32)
    form = "bf16" if cuda else "fp32"
    smallest = estimate.shape(32, 32, 1)
    passes = estimate.cache_passes(sizes, smallest, form=form, device=meter.device.type)
    tokens = len(encoder.token_ids(CAPTION))
    meter.measure("caption", estimate.allocated(passes["text"]), lambda: encoder.encode([CAPTION]), tokens=tokens)


def card(meter: Meter) -> tuple[str, str]:
    """The card's and torch's names."""
    return meter.torch.cuda.get_device_name(), meter.torch.__version__


def table(rows: list[dict[str, Any]], name: str, torch_version: str) -> str:
    """The rows as Markdown, with bytes per pixel above the weights."""
    lines = [
        "# GPU memory of the cache stage and of sample clips",
        "",
        "Command: `python benchmarks/cache_memory.py --workspace /tmp/real --results benchmarks/results`",
        "",
        f"{name}, torch {torch_version}, bf16 (sound: fp32), models of the published 2.0 shapes without values.",
        "",
        "| what | size | models GiB | peak in use GiB | reserved GiB | predicted GiB | bytes a pixel above | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = f"{row['frames']} x {row['height']} x {row['width']}" if "pixels" in row else ""
        size = size or (f"{row['tokens']} tokens" if "tokens" in row else f"{row.get('frames', '')} frames")
        weights = f"{row['weights'] / GIB:.2f}"
        predicted = f"{row['predicted'] / GIB:.2f}" if row["predicted"] else ""
        if "out_of_memory" in row:
            lines.append(f"| {row['what']} | {size} | {weights} | out of memory | | {predicted} | | |")
            continue
        each = f"{(row['allocated'] - row['weights']) / row['pixels']:.1f}" if "pixels" in row else ""
        lines.append(
            f"| {row['what']} | {size} | {weights} | {row['allocated'] / GIB:.2f} | {row['reserved'] / GIB:.2f} "
            f"| {predicted} | {each} | {row['seconds']} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())
