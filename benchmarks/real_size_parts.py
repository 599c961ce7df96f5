"""The parts of real_size.py that are processes of their own: the checkpoint, this trainer's steps, the baseline's."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Shape = tuple[int, int, int, int]  # batch, frames, height, width


@dataclass(frozen=True)
class Scale:
    """The sizes of a run."""

    device: str
    form: Literal["bf16", "fp32"]
    base: Shape
    others: tuple[tuple[Shape, int], ...]  # further shapes, each with the blocks that are not recomputed
    text_tokens: int
    rank: int
    steps: int
    warm: int
    timed: int

    @property
    def plan(self) -> str:
        """The memory plan with every block recomputed."""
        return f"{self.form}/resident/keep:0"


BASE, LONG = (2, 17, 480, 832), (1, 121, 512, 768)
REAL = Scale("cuda", "bf16", BASE, ((BASE, 48), (LONG, 0), (BASE, 24), (LONG, 24)), 1024, 16, 20, 3, 7)
TINY = Scale("cpu", "fp32", (2, 9, 64, 64), (((2, 9, 64, 64), 2),), 16, 4, 4, 1, 2)


def model_file(workspace: Path) -> Path:
    """The combined file of a run's workspace."""
    return workspace / "models" / "random.safetensors"


def architecture(scale: Scale) -> Any:
    """The published architecture, or the tiny one."""
    from gpu.full_size import PUBLISHED
    from ltx2_job.models.tiny import tiny_architecture

    return tiny_architecture("2.0", 2) if scale is TINY else PUBLISHED


def samples(scale: Scale, shape: Shape | None = None) -> list[Any]:
    """Clips of a shape: four to train on and, at the base shape, two that are held out."""
    from gpu.full_size import sample

    size = (shape or scale.base)[1:]
    tag = "x".join(map(str, size))
    clips = [sample(f"{tag}-{n}", size) for n in range(4)]
    return clips if shape else [*clips, *(sample(f"{tag}-held-{n}", size, held_out=True) for n in range(2))]


def write(scale: Scale, workspace: Path, until: float) -> None:
    """The checkpoint and the store."""
    import torch

    from gpu.full_size import fill_store, write_checkpoint
    from ltx2_job.store import Store

    arch, began = architecture(scale), time.monotonic()
    written = write_checkpoint(model_file(workspace), arch, device=scale.device)
    report("written", gigabytes=written / 1e9, seconds=round(time.monotonic() - began, 1))
    shapes = dict.fromkeys(shape for shape, _ in scale.others)
    clips = samples(scale) + [clip for shape in shapes if shape != scale.base for clip in samples(scale, shape)]
    fill_store(Store(workspace / "cache"), clips, arch, scale.text_tokens)
    if scale.device == "cuda":
        report("gpu", name=torch.cuda.get_device_name(), torch=torch.__version__, tflops=matmul_rate())


def matmul_rate() -> float:
    """TFLOP/s of a large bf16 product of random matrices on this GPU."""
    import torch

    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(30):
        a @ b
    torch.cuda.synchronize()
    return 30 * 2 * 8192**3 / (time.perf_counter() - began) / 1e12


def ours(scale: Scale, workspace: Path, until: float) -> None:
    """Single steps of this trainer, synchronised, for the base shape and, while there is time, for the others."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ltx2_job.memory.plan import MemoryPlan
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.training.adapters import AdapterSet
    from ltx2_job.training.optimizers import FusedAdamW
    from ltx2_job.training.processes import Processes
    from ltx2_job.training.step import Step

    device, began = torch.device(scale.device), time.monotonic()
    model = Checkpoint.open(model_file(workspace)).transformer(MemoryPlan.parse(scale.plan), device)
    adapters = AdapterSet.create(model, rank=scale.rank, alpha=float(scale.rank), seed=42)
    optimizer = FusedAdamW(adapters, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01)
    report("load", program="ours", seconds=round(time.monotonic() - began, 1))
    step = Step(model, adapters, optimizer, Processes(0, 1, device), audio_loss_weight=1.0, clip=("norm", 1.0))
    model.train()
    for shape, keep in ((scale.base, 0), *scale.others):
        model.runner.keep = keep
        work = inputs(scale, workspace, shape)
        number = 0

        def once(work: list[Any] = work) -> Any:
            nonlocal number
            number += 1
            return step(number, 1e-4, [work[number % len(work)]])[:2].sum()

        if not timed("ours", f"{scale.form}, keep:{keep}", scale, shape, once, until):
            return
        if not room_to_count(scale, shape):
            report("not counted", shape=shape, keep=keep)
            continue
        with FlopCounterMode(display=False) as counter:
            once()
        report("flops", shape=shape, keep=keep, tflop=counter.get_total_flops() / 1e12)


def room_to_count(scale: Scale, shape: Shape) -> bool:
    """Whether the device has the memory of a step without recomputation: under the counter what is recomputed stays."""
    import torch

    from ltx2_job import estimate

    if scale.device == "cpu":
        return True
    batch, frames, height, width = shape
    clip = estimate.shape(width, height, frames, batch)
    terms = estimate.training_terms(estimate.known_model("2.0"), clip, form="bf16", keep=48, rank=scale.rank)
    return sum(terms.values()) < torch.cuda.get_device_properties(0).total_memory


def baseline(scale: Scale, workspace: Path, until: float) -> None:
    """Single steps of diffusers' transformer with peft's LoRA: the usual eager loop."""
    import torch
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
    from peft import LoraConfig

    from ltx2_job.memory.plan import Form
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.models.materialise import build
    from ltx2_job.training.adapters import TARGETS

    device, began = torch.device(scale.device), time.monotonic()
    source = Checkpoint.open(model_file(workspace)).source.part("transformer")
    model = build(LTX2VideoTransformer3DModel, source, lambda _: Form(torch.bfloat16, device))
    model.add_adapter(LoraConfig(r=scale.rank, lora_alpha=scale.rank, target_modules=list(TARGETS)))
    model.enable_gradient_checkpointing()
    model.train()
    report("load", program="diffusers + peft", seconds=round(time.monotonic() - began, 1))
    trained = [value for value in model.parameters() if value.requires_grad]
    work = inputs(scale, workspace, scale.base)
    for name, dtype, per_token in (
        ("all bf16", torch.bfloat16, False),
        ("fp32 LoRA, our settings", torch.float32, True),
    ):
        for value in trained:
            value.data, value.grad = value.data.to(dtype), None
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        turn = iter(range(10**6))

        def once(dtype: Any = dtype, per_token: bool = per_token, optimizer: Any = optimizer, turn: Any = turn) -> Any:
            batch, chance = work[next(turn) % len(work)]
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.float32):
                video, audio = model(**call(model, batch, chance, per_token))
            loss = (video.float() - (chance.video_noise - batch.video)).square().mean()
            loss = loss + (audio.float() - (chance.audio_noise - batch.audio)).square().mean()
            loss.backward()
            if per_token:
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        if not timed("diffusers + peft", name, scale, scale.base, once, until):
            return


def call(model: Any, batch: Any, chance: Any, per_token: bool) -> dict[str, Any]:
    """Arguments of diffusers' forward for a batch: noised latents, and timesteps per sample or per token."""
    import torch

    video_level, audio_level = chance.video_sigma * 1000, chance.audio_sigma * 1000
    video_sigma = chance.video_sigma[:, None].expand(batch.video.shape[:2])
    if per_token:
        video_sigma = torch.where(chance.clean, 0.0, video_sigma)
    audio_sigma = chance.audio_sigma[:, None].expand(batch.audio.shape[:2])
    dtype = model.proj_in.weight.dtype

    def noised(latent: Any, noise: Any, sigma: Any) -> Any:
        return ((1 - sigma[..., None]) * latent + sigma[..., None] * noise).to(dtype)

    frames, height, width = batch.grid
    return {
        "hidden_states": noised(batch.video, chance.video_noise, video_sigma),
        "audio_hidden_states": noised(batch.audio, chance.audio_noise, audio_sigma),
        "encoder_hidden_states": batch.video_text.to(dtype),
        "audio_encoder_hidden_states": batch.audio_text.to(dtype),
        "timestep": video_sigma * 1000 if per_token else video_level,
        "audio_timestep": audio_sigma * 1000 if per_token else audio_level,
        "sigma": video_level,
        "audio_sigma": audio_level,
        "use_cross_timestep": per_token,
        "num_frames": frames,
        "height": height,
        "width": width,
        "fps": batch.fps,
        "audio_num_frames": batch.audio.shape[1],
        "return_dict": False,
    }


def inputs(scale: Scale, workspace: Path, shape: Shape) -> list[Any]:
    """Two micro-batches with their draws, from the store to the device; first frame on in half the samples."""
    import torch

    from ltx2_job.data.plan import Pick
    from ltx2_job.store import Store
    from ltx2_job.training.batches import Reader
    from ltx2_job.training.draw import draw

    count, device = shape[0], torch.device(scale.device)
    clips = samples(scale, shape)
    reader, work = Reader(Store(workspace / "cache")), []
    for turn in range(2):
        picks = [Pick(clip, 0, position) for position, clip in enumerate(clips[turn * count : (turn + 1) * count])]
        batch = reader.batch(picks, samples=count, sounding=count)
        chance = draw(42, turn, picks, batch.grid, batch.audio.shape[1], first_frame_probability=0.5)
        work.append((batch.to(device), chance.to(device)))
    return work


def timed(program: str, what: str, scale: Scale, shape: Shape, once: Callable[[], Any], until: float) -> bool:
    """Time steps, with the device synchronised around each; False, with nothing reported, when time runs out.

    Peak memory is what torch's allocator had in use, of the timed steps alone.
    """
    import torch

    cuda = scale.device == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    seconds, losses = [], []
    if cuda:
        torch.cuda.empty_cache()  # what the shape before had reserved is not this one's
    for turn in range(scale.warm + scale.timed):
        if cuda and turn == scale.warm:
            torch.cuda.reset_peak_memory_stats()
        wait()
        began = time.perf_counter()
        loss = once()
        wait()
        seconds.append(time.perf_counter() - began)
        losses.append(float(loss))
        if time.monotonic() + 2 * seconds[-1] > until:
            return False
    peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if cuda else (0, 0)
    counted = seconds[scale.warm :]
    report(
        "steps", program=program, what=what, shape=shape, median=statistics.median(counted), least=min(counted),
        most=max(counted), peak=peaks[0], reserved=peaks[1], losses=losses,
    )  # fmt: skip
    return True


def report(kind: str, **values: Any) -> None:
    """One line for the parent."""
    print(f"RESULT {kind} {json.dumps(values)}", flush=True)


PARTS: dict[str, Callable[[Scale, Path, float], None]] = {"write": write, "ours": ours, "baseline": baseline}
