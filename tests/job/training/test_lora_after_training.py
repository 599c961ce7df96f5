"""A LoRA of 20 real steps, alpha three times the rank, in stock diffusers: both files, through a whole LTX2Pipeline."""

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from diffusers.pipelines.ltx2.pipeline_ltx2 import LTX2Pipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from ltx2_job import checkpoint
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models.load import Checkpoint
from ltx2_job.stage import Stage
from ltx2_job.training.adapters import AdapterSet
from ltx2_job.training.trainer import run_training
from training_runs import clip, make_stage

RANK, ALPHA = 4, 12.0


@pytest.fixture(scope="module")
def base(tiny20: Path) -> Checkpoint:
    return Checkpoint.open(tiny20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny20: Path) -> Stage:
    """The finished run: 20 steps over two sounding clips and a silent one."""
    clips = [clip("a"), clip("b", sounding=False), clip("c", frames=17, audio=17)]
    settings = {"max_train_steps": 20, "learning_rate": 5e-3, "lora_rank": RANK, "lora_alpha": ALPHA}
    stage = make_stage(tmp_path_factory.mktemp("trained"), tiny20, clips, **settings)
    run_training(stage, None)
    return stage


def sampled(base: Checkpoint, transformer: LTX2VideoTransformer3DModel, lora: Path | None = None) -> torch.Tensor:
    """Latents of video and sound that a pipeline samples in three guided steps, from fixed random states of text."""
    connectors = base.connectors("cpu", torch.float32)
    pipeline = LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=base.video_vae("cpu", torch.float32),
        audio_vae=base.audio_vae("cpu"),
        text_encoder=None,
        tokenizer=None,
        connectors=connectors,
        transformer=transformer,
        vocoder=base.vocoder("cpu"),
    )
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(str(lora))
    random = torch.Generator().manual_seed(5)
    width = connectors.config["caption_channels"] * connectors.config["text_proj_in_factor"]
    prompt, negative = (torch.randn(1, 128, width, generator=random) for _ in range(2))
    mask = torch.ones(1, 128, dtype=torch.int64)
    video, audio = pipeline(
        prompt_embeds=prompt,
        prompt_attention_mask=mask,
        negative_prompt_embeds=negative,
        negative_prompt_attention_mask=mask,
        height=64,
        width=96,
        num_frames=17,
        frame_rate=25.0,
        num_inference_steps=3,
        stg_scale=0.0,
        audio_stg_scale=0.0,
        spatio_temporal_guidance_blocks=None,
        generator=random,
        output_type="latent",
        return_dict=False,
    )
    return torch.cat([video.flatten(), audio.flatten()])


def stock(base: Checkpoint) -> LTX2VideoTransformer3DModel:
    """diffusers' own class with the base's weights."""
    ours = base.transformer(MemoryPlan("fp32"), "cpu")
    model = LTX2VideoTransformer3DModel(**ours.config).eval()
    model.load_state_dict(ours.state_dict())
    return model


def test_both_files_give_diffusers_the_trained_model(trained: Stage, base: Checkpoint) -> None:
    """Catches alpha lost by one of the files (the factor is 3), a file of the start instead of the end, keys that are
    silently skipped, and a training that is too weak for this test to mean anything."""
    plain = sampled(base, stock(base))
    official, renamed = (sampled(base, stock(base), file) for file in (trained.run.lora, trained.run.lora_diffusers))
    model = base.transformer(MemoryPlan("fp32"), "cpu")
    adapters = AdapterSet.create(model, rank=RANK, alpha=ALPHA, seed=0)
    newest = checkpoint.newest_complete(trained.run.checkpoints)
    assert newest is not None and newest.name == "step-0000020"
    adapters.load(checkpoint.load(newest).adapter, "test")
    assert (official - plain).abs().max() > 1e-2
    torch.testing.assert_close(renamed, official, rtol=1e-5, atol=1e-5)
    # Our forward at equal noise levels without clean tokens is diffusers': the trained model itself, no file between.
    torch.testing.assert_close(sampled(base, model), official, rtol=1e-4, atol=1e-4)
