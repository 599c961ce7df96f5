"""Full-size published files, planned from their header alone: every tensor lands, and nothing else is accepted.

The lists under tests/data come from the published description (tests/reference/official_names.py), not from the reader.
"""

import math

import pytest

from ltx2_job.errors import CheckpointError
from ltx2_job.models import layout, names
from ltx2_job.models.planner import plan_load
from reference import official_names

P = "model.diffusion_model."
VERSIONS = ("2.0", "2.3")

# Published or counted sizes: tensors in the file and under P, elements per part, bytes of the file and of its header.
FACTS = {
    "2.0": {
        "tensors": 4052, "transformer_prefix": 3568, "file_bytes": 43_285_058_242, "header_bytes": 603_120,
        "parts": {"transformer": (3510, 18_876_174_592), "connectors": (59, 708_940_800 + 722_534_400),
                  "vae": (184, 1_222_479_857), "audio_vae": (102, 53_248_402), "vocoder": (194, 55_592_802)},
    },
    "2.3": {
        "tensors": 5947, "transformer_prefix": 4444, "file_bytes": 46_149_345_334, "header_bytes": 872_792,
        "parts": {"transformer": (4186, 18_988_838_144), "connectors": (262, 2_016_166_400 + 1_156_061_184),
                  "vae": (170, 726_106_225), "audio_vae": (102, 53_248_402), "vocoder": (1227, 129_085_032)},
    },
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_checked_in_list_is_what_the_generator_writes(version):
    assert official_names.read(version) == official_names.tensors(version)


@pytest.mark.parametrize("version", VERSIONS)
def test_list_meets_the_published_counts_to_the_byte(version):
    facts, listed = FACTS[version], official_names.read(version)
    assert len(listed) == len({name for name, *_ in listed}) == facts["tensors"]
    assert sum(name.startswith(P) for name, *_ in listed) == facts["transformer_prefix"]
    tables = sum(name.startswith(P) and dtype == "F32" for name, dtype, *_ in listed)
    assert tables == {"2.0": 194, "2.3": 290}[version]
    data = sum(math.prod(shape) * (4 if dtype == "F32" else 2) for _, dtype, shape, _, _ in listed)
    assert 8 + facts["header_bytes"] + data == facts["file_bytes"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_tensor_lands_where_the_description_says(version, published):
    plan = plan_load(published(version))
    landed = {
        (entry.name, entry.shape, part, name)
        for part, part_plan in plan.parts.items()
        for name, entry in part_plan.tensors.items()
    }
    listed = official_names.read(version)
    assert landed == {(name, shape, part, other) for name, _, shape, part, other in listed if part != "-"}
    assert sorted(plan.unused) == [name for name, _, _, part, _ in listed if part == "-"]
    assert len(plan.unused) == (3 if version == "2.0" else 0)
    counted = {
        part: (len(part_plan.tensors), sum(entry.elements for entry in part_plan.tensors.values()))
        for part, part_plan in plan.parts.items()
    }
    assert counted == FACTS[version]["parts"]
    assert plan.version == version


@pytest.mark.parametrize("version", VERSIONS)
def test_types_of_the_published_files(version):
    """The tiny writer takes its dtypes from here."""
    for name, dtype, *_ in official_names.read(version):
        assert layout.dtype_of(name) == dtype, name


def test_renaming_by_whole_segments():
    """Mutation: replacing substrings makes `av_ca_video_scale_shift_time_embed` of this one."""
    place = names.place(f"{P}av_ca_video_scale_shift_adaln_single.linear.weight")
    assert place == ("transformer", "av_cross_attn_video_scale_shift.linear.weight")
    assert names.place("audio_vae.encoder.conv_in.conv.bias") == ("audio_vae", "encoder.conv_in.conv.bias")
    assert names.place("cond_stage_model.x") is None


def refused(header):
    with pytest.raises(CheckpointError) as caught:
        plan_load(header)
    return [str(problem) for problem in caught.value.problems]


def test_wrong_shape_is_named_with_both_shapes(published):
    def narrow(tensors):
        tensors[f"{P}transformer_blocks.0.attn1.to_q.weight"] = ("BF16", (2048, 2048))

    assert refused(published("2.0", narrow)) == [
        "model: tensor transformer_blocks.0.attn1.to_q.weight has shape [2048, 2048], LTX-2 wants [4096, 4096]; "
        "is this file LTX-Video 0.9?"
    ]


def test_missing_tensors_are_listed(published):
    def drop(tensors):
        del tensors["vocoder.ups.3.bias"], tensors[f"{P}transformer_blocks.47.audio_ff.net.2.weight"]

    lines = refused(published("2.0", drop))
    assert len(lines) == 2
    assert any("tensor vocoder.ups.3.bias [64] is missing" in line for line in lines)
    assert any("tensor transformer_blocks.47.audio_ff.net.2.weight [2048, 8192] is missing" in line for line in lines)


def test_a_whole_part_missing_is_summed_up(published):
    def drop(tensors):
        for name in [name for name in tensors if name.startswith("audio_vae.")]:
            del tensors[name]

    lines = refused(published("2.3", drop))
    assert "102 tensors are missing; the first 12 are listed" in lines[-1]
    assert len(lines) == 13


def test_unknown_tensors_fail_and_the_unused_ones_do_not(published):
    def add(tensors):
        tensors["vae.per_channel_statistics.mean-of-stds-2"] = ("BF16", (128,))
        tensors["model_ema.decay"] = ("F32", ())

    lines = refused(published("2.0", add))
    assert lines == [
        "model: tensor vae.per_channel_statistics.mean-of-stds-2 is not part of LTX-2",
        "model: tensor model_ema.decay is not part of LTX-2",
    ]


def test_two_tensors_for_one_place_fail(published):
    def add(tensors):
        tensors[f"{P}proj_in.bias"] = ("BF16", (4096,))

    assert refused(published("2.0", add)) == [
        "model: tensors proj_in.bias and patchify_proj.bias would both be transformer.proj_in.bias"
    ]


def test_a_gap_inside_a_stage_is_seen(published):
    """Mutation: counting the blocks that are there instead of the highest index accepts a file with a gap."""

    def drop(tensors):
        for name in [name for name in tensors if name.startswith("vae.encoder.down_blocks.2.res_blocks.3.")]:
            del tensors[name]

    lines = refused(published("2.0", drop))
    assert len(lines) == 4
    assert all("down_blocks.2.res_blocks.3." in line and "is missing" in line for line in lines)


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("transformer", "num_layers", 28, "transformer.num_layers = 28, the tensors say 48"),
        (
            "transformer",
            "audio_num_attention_heads",
            16,
            "transformer.audio_num_attention_heads = 16, the tensors say 32",
        ),
        ("transformer", "cross_attention_dim", 2048, "transformer.cross_attention_dim = 2048, the tensors say 4096"),
        ("transformer", "apply_gated_attention", True, "apply_gated_attention = True, the tensors say False"),
        ("transformer", "caption_channels", 4096, "caption_channels = 4096, the tensors say 3840"),
        ("transformer", "connector_num_layers", 8, "connector_num_layers = 8, the tensors say 2"),
        ("transformer", "qk_norm", "layer_norm", "qk_norm = layer_norm, LTX-2 wants rms_norm"),
        ("transformer", "share_ff", True, "share_ff = True, LTX-2 wants False"),
        ("transformer", "rope_type", "interleaved", "rope_type = interleaved"),
        ("transformer", "ff_bias", False, "ff_bias = False, the tensors say True"),
        ("vae", "latent_channels", 16, "vae.latent_channels = 16, the tensors say 128"),
        ("vae", "timestep_conditioning", True, "vae.timestep_conditioning = True"),
        ("vae", "decoder_base_channels", 64, "vae.decoder_base_channels = 64"),
        ("vocoder", "upsample_initial_channel", 512, "vocoder.upsample_initial_channel = 512, the tensors say 1024"),
        ("vocoder", "stereo", False, "vocoder.stereo = False"),
        ("vocoder", "resblock", "2", "vocoder.resblock = 2"),
    ],
)
def test_config_that_contradicts_the_tensors(published, section, key, value, said):
    def change(sections):
        sections[section][key] = value

    lines = refused(published("2.0", config=change))
    assert len(lines) == 1
    assert said in lines[0]


def test_block_lists_of_the_video_autoencoder_are_checked(published):
    def fewer(sections):
        sections["vae"]["encoder_blocks"][0][1]["num_layers"] = 3

    def not_residual(sections):
        sections["vae"]["decoder_blocks"][1][1]["residual"] = False

    assert "vae.encoder_blocks" in refused(published("2.0", config=fewer))[0]
    assert "vae.decoder_blocks" in refused(published("2.0", config=not_residual))[0]

    def short_spelling(sections):  # the official code reads an integer as the number of layers
        sections["vae"]["encoder_blocks"][0][1] = 4

    assert plan_load(published("2.0", config=short_spelling)).version == "2.0"


def test_audio_sizes_in_the_config_are_checked(published):
    def change(sections):
        sections["audio_vae"]["model"]["params"]["ddconfig"]["mid_block_add_attention"] = True
        sections["audio_vae"]["preprocessing"]["stft"]["hop_length"] = 256

    lines = refused(published("2.3", config=change))
    assert len(lines) == 2
    assert "ddconfig.mid_block_add_attention = True" in lines[0]
    assert "stft.hop_length = 256" in lines[1]


def test_missing_key_counts_as_its_default(published):
    def drop(sections):
        del sections["transformer"]["apply_gated_attention"]

    assert "apply_gated_attention = False (its default; the key is missing), the tensors say True" in refused(
        published("2.3", config=drop)
    )[0]  # fmt: skip


def test_heads_must_be_in_the_header(published):
    def drop(sections):
        del sections["transformer"]["num_attention_heads"]

    assert "no transformer.num_attention_heads" in refused(published("2.0", config=drop))[0]


def test_scheduler_section_and_absent_sections_change_nothing(published):
    def odd(sections):
        sections["scheduler"] = {"shifting": "no code reads this"}

    def null(sections):
        sections["scheduler"] = sections["vae"] = None

    wanted = {part: (dict(p.arguments), list(p.tensors)) for part, p in plan_load(published("2.0")).parts.items()}
    for change in (odd, null):
        plan = plan_load(published("2.0", config=change))
        assert {part: (dict(p.arguments), list(p.tensors)) for part, p in plan.parts.items()} == wanted


def test_generation_is_read_from_the_tensors_and_checked_against_the_stamp(published):
    assert "model_version 2.3.0, the tensors are those of 2.0" in refused(published("2.0", model_version="2.3.0"))[0]


def put(name, dtype, *shape):
    return lambda tensors: tensors.update({P + name: (dtype, shape)})


QUERY = "transformer_blocks.1.attn1.to_q"


@pytest.mark.parametrize(
    ("change", "metadata", "said"),
    [
        (put(f"{QUERY}.weight", "F8_E4M3", 4096, 4096), {}, "fp8 weights"),
        (put(f"{QUERY}.weight", "U8", 4096, 2048), {}, "fp4"),
        (put(f"{QUERY}.weight", "I8", 4096, 4096), {}, "int8 (convrot)"),
        (put("proj_out.weight", "F16", 128, 4096), {}, "F16 weights"),
        (put(f"{QUERY}.weight_scale", "F32"), {}, "quantised"),
        (put(f"{QUERY}.comfy_quant", "BF16", 1), {}, "quantised"),
        (None, {"_quantization_metadata": "{}"}, "quantised"),
        (None, {"model_version": "2.5.0"}, "LTX-2.5"),
        (None, {"gemma_source_checkpoint": "{}"}, "LTX-2.5"),
        (put("keyframes_abs_pos_embedding", "BF16", 1, 4096), {}, "LTX-2.5"),
    ],
)
def test_known_but_unsupported_files_are_refused_by_name(published, change, metadata, said):
    (line,) = refused(published("2.0", change, **metadata))
    assert said in line
    assert "not supported yet" in line


def test_files_that_are_no_ltx2(published):
    def video_only(tensors):
        for name in [name for name in tensors if "audio" in name or "a2v" in name or "v2a" in name]:
            del tensors[name]

    def no_transformer(tensors):
        for name in [name for name in tensors if name.startswith(P)]:
            del tensors[name]

    def lora(tensors):
        tensors.clear()
        tensors["diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight"] = ("BF16", (32, 4096))

    assert "is this file LTX-Video 0.9?" in refused(published("2.0", video_only))[0]
    assert "holds no LTX-2 transformer" in refused(published("2.0", no_transformer))[0]
    assert "is a LoRA" in refused(published("2.0", lora))[0]


def test_flags_follow_the_header(published):
    """RoPE over 4,096 positions, as the file says; the official default without the key is 1."""
    arguments = plan_load(published("2.0")).parts["connectors"].arguments
    assert arguments["connector_rope_base_seq_len"] == 4096

    def drop(sections):
        del sections["transformer"]["connector_positional_embedding_max_pos"]
        del sections["transformer"]["frequencies_precision"]
        del sections["transformer"]["av_ca_timestep_scale_multiplier"]

    parts = plan_load(published("2.0", config=drop)).parts
    assert parts["connectors"].arguments["connector_rope_base_seq_len"] == 1
    assert parts["transformer"].arguments["rope_double_precision"] is False
    assert parts["transformer"].arguments["cross_attn_timestep_scale_multiplier"] == 1


def test_padding_of_the_video_autoencoder(published):
    old, new = (plan_load(published(version)).parts["vae"].arguments for version in VERSIONS)
    assert (old["encoder_spatial_padding_mode"], old["decoder_spatial_padding_mode"]) == ("zeros", "reflect")
    assert (new["encoder_spatial_padding_mode"], new["decoder_spatial_padding_mode"]) == ("zeros", "zeros")


@pytest.mark.parametrize(
    ("version", "published_arguments"),
    [
        ("2.0", {
            "block_out_channels": (256, 512, 1024, 2048), "layers_per_block": (4, 6, 6, 2, 2),
            "decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5, 5, 5, 5),
            "upsample_type": ("spatiotemporal",) * 3, "upsample_residual": (True,) * 3, "upsample_factor": (2, 2, 2),
        }),
        ("2.3", {
            "block_out_channels": (256, 512, 1024, 1024), "layers_per_block": (4, 6, 4, 2, 2),
            "decoder_block_out_channels": (256, 512, 512, 1024), "decoder_layers_per_block": (4, 6, 4, 2, 2),
            "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
            "upsample_residual": (False,) * 4, "upsample_factor": (2, 2, 1, 2),
        }),
    ],
)  # fmt: skip
def test_video_autoencoder_s_arguments_are_the_published_ones(published, version, published_arguments):
    """Residual upsampling leaves no trace in names or shapes: only this comparison sees it."""
    common = {
        "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"), "decoder_causal": False,
        "spatial_compression_ratio": 32, "temporal_compression_ratio": 8, "latent_channels": 128, "patch_size": 4,
        "timestep_conditioning": False, "encoder_causal": True,
    }  # fmt: skip
    arguments = plan_load(published(version)).parts["vae"].arguments
    assert {key: arguments[key] for key in (*common, *published_arguments)} == common | published_arguments
    levels = len(published_arguments["upsample_factor"])
    assert arguments["decoder_spatio_temporal_scaling"] == (True,) * levels
    assert arguments["decoder_inject_noise"] == (False,) * (levels + 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_vocoder_s_arguments_are_the_published_ones(published, version):
    """Rates and endings leave no trace in shapes either."""
    arguments = plan_load(published(version)).parts["vocoder"].arguments
    if version == "2.0":
        wanted = {"upsample_factors": [6, 5, 2, 2, 2], "final_act_fn": "tanh", "final_bias": True,
                  "output_sampling_rate": 24000}  # fmt: skip
    else:
        wanted = {
            "upsample_factors": [5, 2, 2, 2, 2, 2], "bwe_upsample_factors": [6, 5, 2, 2, 2], "final_act_fn": "clamp",
            "bwe_final_act_fn": None, "input_sampling_rate": 16000, "output_sampling_rate": 48000, "hop_length": 80,
            "filter_length": 512, "window_length": 512, "num_mel_channels": 64,
        }  # fmt: skip
    assert {key: arguments[key] for key in wanted} == wanted
