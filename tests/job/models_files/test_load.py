"""Modules filled from files: every tensor in its place and final form, from either layout, nothing else accepted."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ltx2_job.errors import CheckpointError
from ltx2_job.memory.plan import MemoryPlan
from ltx2_job.models import materialise
from ltx2_job.models.header import read_header
from ltx2_job.models.load import Checkpoint, fingerprint
from ltx2_job.models.planner import plan_load

PARTS = ("transformer", "connectors", "vae", "audio_vae", "vocoder")
FP32 = MemoryPlan.parse("fp32/resident/keep:48")


def build(checkpoint, part):
    return {
        "transformer": lambda: checkpoint.transformer(FP32, "cpu"),
        "connectors": lambda: checkpoint.connectors("cpu", torch.float32),
        "vae": lambda: checkpoint.video_vae("cpu", torch.float32),
        "audio_vae": lambda: checkpoint.audio_vae("cpu"),
        "vocoder": lambda: checkpoint.vocoder("cpu"),
    }[part]()


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def tiny(request, tiny20, tiny23):
    return tiny20 if request.param == "2.0" else tiny23


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The same model as a folder in diffusers' layout, written by diffusers."""
    root = tmp_path_factory.mktemp("folder")
    checkpoint = Checkpoint.open(tiny)
    for part in PARTS:
        build(checkpoint, part).save_pretrained(root / part)
    index = {"_class_name": "LTX2Pipeline", "text_encoder": ["transformers", "Gemma3ForConditionalGeneration"]}
    (root / "model_index.json").write_text(json.dumps(index | {part: ["diffusers", "x"] for part in PARTS}))
    shutil.copytree(tiny.parent / "gemma", root / "text_encoder")
    shutil.copytree(tiny.parent / "gemma", root / "tokenizer")
    return root


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny model that a test may change, with the tensors of its file."""
    shutil.copytree(tiny.parent / "gemma", tmp_path / "gemma")
    path = tmp_path / tiny.name

    def write(change):
        tensors = load_file(tiny)
        with safe_open(tiny, framework="pt") as file:
            metadata = dict(file.metadata())
        change(tensors, metadata)
        save_file(tensors, path, metadata)
        return path

    return write


@pytest.mark.parametrize("part", PARTS)
def test_every_parameter_and_buffer_is_a_tensor_of_the_file(tiny, part):
    raw, plan = load_file(tiny), plan_load(read_header(tiny)).parts[part]
    module = build(Checkpoint.open(tiny), part)
    state = module.state_dict()
    assert state.keys() == plan.tensors.keys()
    for name, entry in plan.tensors.items():
        assert torch.equal(state[name], raw[entry.name].float()), name
    assert not any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training


def test_stock_single_file_reader_agrees(tiny20, tmp_path):
    """diffusers reads the transformer of a 2.0 file by its own rules; the names must mean the same there."""
    from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
    from diffusers.utils import logging

    ours = build(Checkpoint.open(tiny20), "transformer")
    ours.save_config(tmp_path / "transformer")
    logging.set_verbosity_error()
    stock = LTX2VideoTransformer3DModel.from_single_file(
        str(tiny20), config=str(tmp_path), subfolder="transformer", torch_dtype=torch.float32, local_files_only=True
    )
    theirs = stock.state_dict()
    assert theirs.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_plans_decide_form_and_recomputation(tiny):
    model = Checkpoint.open(tiny).transformer(MemoryPlan.parse("bf16/resident/keep:1"), "cpu")
    tables = {name: p.dtype for name, p in model.named_parameters() if "scale_shift_table" in name}
    assert len(tables) >= 2 + 2 * 4
    assert set(tables.values()) == {torch.float32}
    assert {p.dtype for name, p in model.named_parameters() if name not in tables} == {torch.bfloat16}
    assert model.runner.keep == 1
    assert {p.dtype for p in Checkpoint.open(tiny).transformer(FP32, "cpu").parameters()} == {torch.float32}


def test_weights_do_not_stay_views_of_the_file(tiny):
    """Mutation: keeping what safe_open returns (the model would change when the file does)."""
    model = Checkpoint.open(tiny).transformer(MemoryPlan.parse("bf16/resident/keep:48"), "cpu")
    mapped = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            if str(tiny) in line:
                begin, end = line.split()[0].split("-")
                mapped.append((int(begin, 16), int(end, 16)))
    for name, parameter in model.named_parameters():
        assert not any(begin <= parameter.data_ptr() < end for begin, end in mapped), name


def test_tensors_are_read_one_at_a_time(tiny, monkeypatch):
    """Two copies of the model are never alive: when a tensor is read, all earlier ones are in their final form."""
    seen = []
    put = materialise._put

    def record(module, name, value):
        put(module, name, value)
        state = module.state_dict(keep_vars=True)
        seen.append((name, sum(not tensor.is_meta for tensor in state.values())))

    monkeypatch.setattr(materialise, "_put", record)
    model = build(Checkpoint.open(tiny), "transformer")
    assert [count for _, count in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == len(model.state_dict())


@pytest.mark.parametrize("version", ["2.0", "2.3"])
@pytest.mark.parametrize("part", PARTS)
def test_full_size_modules_take_every_tensor(version, part, published):
    """The real architecture on the meta device: names, shapes and parameter counts of the published files."""
    from accelerate import init_empty_weights
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
    from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE

    from ltx2_job.models.transformer import LTX2Transformer

    classes = {
        "transformer": LTX2Transformer,
        "connectors": LTX2TextConnectors,
        "vae": AutoencoderKLLTX2Video,
        "audio_vae": AutoencoderKLLTX2Audio,
        "vocoder": LTX2Vocoder if version == "2.0" else LTX2VocoderWithBWE,
    }
    plan = plan_load(published(version)).parts[part]
    with init_empty_weights():
        module = classes[part](**plan.arguments)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict(keep_vars=True).items()}
    assert wanted == {name: entry.shape for name, entry in plan.tensors.items()}
    if part == "transformer":
        count = sum(parameter.numel() for parameter in module.parameters())
        assert count == {"2.0": 18_876_174_592, "2.3": 18_988_838_144}[version]
        assert len(module.transformer_blocks) == 48
        config = module.config
        assert (config.rope_type, config.rope_double_precision, config.cross_attn_timestep_scale_multiplier) == (
            "split",
            True,
            1000.0,
        )
        assert config.perturbed_attn is (version == "2.3")


@pytest.mark.parametrize("part", PARTS)
def test_folder_in_diffusers_layout_holds_the_same(tiny, folder, part):
    one, other = Checkpoint.open(tiny), Checkpoint.open(folder)
    assert one.version == other.version
    ours, theirs = build(one, part).state_dict(), build(other, part).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_folder_gives_the_same_text_and_sound(tiny, folder):
    from ltx2_job.models.autoencoders import decode_audio

    one, other = Checkpoint.open(tiny), Checkpoint.open(folder)
    texts = [c.text_encoder("cpu", torch.float32).encode(["a red fox"])[0] for c in (one, other)]
    assert all(torch.equal(a, b) for a, b in zip(*texts, strict=True))
    latents = torch.randn(1, 3, 128, generator=torch.manual_seed(0)) * 3
    waves = [decode_audio(build(c, "audio_vae"), build(c, "vocoder"), latents)[0] for c in (one, other)]
    assert torch.equal(*waves)


def test_folder_s_new_vocoder_ends_its_first_stage_as_the_official_one(folder, tmp_path):
    """Published folders say null there, which the official code never does."""
    root = shutil.copytree(folder, tmp_path / "null")
    file = root / "vocoder" / "config.json"
    config = json.loads(file.read_text())
    if Checkpoint.open(folder).version == "2.3":
        file.write_text(json.dumps(config | {"final_act_fn": None}))
    vocoder = build(Checkpoint.open(root), "vocoder")
    first = getattr(vocoder, "vocoder", vocoder)
    with torch.no_grad():
        assert first(torch.full((1, 2, 8, 64), 200.0)).abs().max() <= 1


def test_sharded_folder(tiny, folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "sharded")
    whole = root / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    weight_map = {}
    for index, part in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model-0000{index}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, root / "transformer" / file)
        weight_map |= dict.fromkeys(part, file)
    index = root / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = Checkpoint.open(root)
    assert len(checkpoint.files("transformer")) == 2
    state = build(checkpoint, "transformer").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in tensors.items())
    index.write_text(json.dumps({"weight_map": weight_map | {"ghost": file}}))
    with pytest.raises(CheckpointError, match="1 tensors that no file has, such as ghost"):
        build(Checkpoint.open(root), "transformer")


def test_folder_with_wrong_tensors(tiny, folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "wrong")
    file = root / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["proj_in.bias"]
    tensors["proj_out.bias"] = torch.zeros(64)
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        build(Checkpoint.open(root), "transformer")
    assert [str(problem) for problem in caught.value.problems] == [
        "model: transformer: tensor proj_out.bias has shape [64], LTX-2 wants [128]",
        "model: transformer: tensor proj_in.bias [64] is missing",
        "model: transformer: tensor extra is not part of LTX-2",
    ]


def test_folders_that_cannot_be_read(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"folder without model_index\.json"):
        Checkpoint.open(tmp_path)
    root = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((root / "transformer" / "config.json").read_text())
    (root / "transformer" / "config.json").write_text(json.dumps(config | {"use_keyframes_abs_pos_embedding": True}))
    with pytest.raises(CheckpointError, match=r"LTX-2\.5: not supported yet"):
        Checkpoint.open(root)
    (root / "transformer" / "config.json").write_text(json.dumps(config | {"brand_new": 1}))
    with pytest.raises(CheckpointError, match="keys that LTX2Transformer does not know: brand_new"):
        build(Checkpoint.open(root), "transformer")
    weights = root / "transformer" / "diffusion_pytorch_model.safetensors"
    (root / "transformer" / "config.json").write_text(json.dumps(config))
    save_file(load_file(weights) | {"proj_in.weight": torch.zeros(64, 128, dtype=torch.int8)}, weights)
    with pytest.raises(CheckpointError, match="not supported yet"):
        build(Checkpoint.open(root), "transformer")
    (root / "model_index.json").write_text(json.dumps({"transformer": ["diffusers", "x"]}))
    with pytest.raises(CheckpointError, match="names no connectors, vae, audio_vae, vocoder"):
        Checkpoint.open(root)


def test_errors_of_a_real_file_name_the_tensors(copy):
    def change(tensors, metadata):
        tensors["vocoder.extra"] = torch.zeros(2)
        del tensors["audio_vae.encoder.conv_in.conv.bias"]

    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(copy(change))
    text = str(caught.value)
    assert "audio_vae.encoder.conv_in.conv.bias [128] is missing" in text
    assert "vocoder.extra is not part of LTX-2" in text


def test_fingerprints_follow_the_content_of_their_part(tiny, copy):
    before = {part: fingerprint(tiny, part) for part in (*PARTS, "text_encoder")}
    assert len(set(before.values())) == 6
    assert all(len(value) == 64 for value in before.values())

    def only_rewritten(tensors, metadata):  # another order of the bytes, another license
        metadata["license"] = "another"

    path = copy(only_rewritten)
    assert path.read_bytes() != tiny.read_bytes()
    assert {part: fingerprint(path, part) for part in before} == before

    def one_weight(tensors, metadata):
        tensors["vae.encoder.conv_in.conv.bias"][0] += 1

    path = copy(one_weight)
    after = {part: fingerprint(path, part) for part in before}
    assert {part for part in before if after[part] != before[part]} == {"vae"}

    def one_flag(tensors, metadata):
        config = json.loads(metadata["config"])
        config["transformer"]["connector_positional_embedding_max_pos"] = [1]
        metadata["config"] = json.dumps(config)

    path = copy(one_flag)
    after = {part: fingerprint(path, part) for part in before}
    assert {part for part in before if after[part] != before[part]} == {"connectors"}
    file = path.parent / "gemma" / "tokenizer.json"
    file.write_text(file.read_text().replace("fox", "fux"))
    assert fingerprint(path, "text_encoder") != before["text_encoder"]
    with pytest.raises(ValueError, match="unknown part 'vea'"):
        fingerprint(tiny, "vea")


def test_files_of_a_part(tiny, folder):
    combined, parts = Checkpoint.open(tiny), Checkpoint.open(folder)
    assert combined.files("vae") == (tiny,)
    assert parts.files("vae") == (folder / "vae" / "diffusion_pytorch_model.safetensors",)
    names = {path.name for path in combined.files("text_encoder")}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_gemma_is_found_beside_the_file_or_where_it_is_named(tiny, copy, tmp_path):
    path = copy(lambda tensors, metadata: None)
    assert Checkpoint.open(path).gemma.model == path.parent / "gemma"
    moved = (path.parent / "gemma").rename(tmp_path / "elsewhere")
    without = Checkpoint.open(path)
    assert without.gemma is None
    with pytest.raises(CheckpointError, match=r"no Gemma 3 beside .*; set pretrained_gemma_model_name_or_path"):
        without.text_encoder("cpu", torch.float32)
    assert Checkpoint.open(path, moved).text_tokens == 128
    with pytest.raises(CheckpointError, match="holds no Gemma 3"):
        Checkpoint.open(path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"model_type": "gemma4_unified"}, "Gemma 4 belongs to LTX-2.5"),
        ("config.json", {"model_type": "llama"}, "describes llama, LTX-2 wants Gemma 3"),
        ("config.json", {"quantization_config": {"load_in_4bit": True}}, "is quantised: not supported yet"),
        (
            "tokenizer_config.json",
            {"model_max_length": 200},
            "model_max_length 200, the connectors want a multiple of 128",
        ),
    ],
)
def test_other_text_encoders_are_refused_by_name(copy, file, change, said):
    path = copy(lambda tensors, metadata: None)
    target = path.parent / "gemma" / file
    target.write_text(json.dumps(json.loads(target.read_text()) | change))
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(path).text_encoder("cpu", torch.float32)


def test_captions_of_the_published_model_have_1024_tokens(copy):
    """Gemma's own tokenizer has no limit (1e30): the published length holds then."""
    path = copy(lambda tensors, metadata: None)
    target = path.parent / "gemma" / "tokenizer_config.json"
    target.write_text(json.dumps(json.loads(target.read_text()) | {"model_max_length": int(1e30)}))
    checkpoint = Checkpoint.open(path)
    assert checkpoint.text_tokens == 1024
    ((video, _),) = checkpoint.text_encoder("cpu", torch.float32).encode(["a red fox"])
    assert video.shape == (1024, 64)


def test_newer_names_of_gemma_s_tensors(copy):
    """Folders written by newer libraries nest the language model the other way round."""
    path = copy(lambda tensors, metadata: None)
    wanted = Checkpoint.open(path).text_encoder("cpu", torch.float32).encode(["a red fox"])[0]
    file = path.parent / "gemma" / "model.safetensors"
    renamed = {}
    for name, tensor in load_file(file).items():
        new = name.replace("language_model.model.", "model.language_model.")
        renamed[new if new != name else f"model.{name}"] = tensor
    save_file(renamed | {"lm_head.weight": renamed["model.language_model.embed_tokens.weight"].clone()}, file)
    again = Checkpoint.open(path).text_encoder("cpu", torch.float32).encode(["a red fox"])[0]
    assert all(torch.equal(a, b) for a, b in zip(wanted, again, strict=True))


def test_opening_imports_no_torch(tiny):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from ltx2_job.models.load import Checkpoint; "
        f"print(Checkpoint.open(Path({str(tiny)!r})).version); "
        "assert not {'torch', 'numpy', 'transformers', 'diffusers', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("2.0", "2.3")


def test_values_match_the_raw_bytes(tiny):
    """Independent of the library's reader: bytes at the header's positions, widened to fp32."""
    header, raw = read_header(tiny), tiny.read_bytes()
    state = build(Checkpoint.open(tiny), "transformer").state_dict()
    for name, official in (
        ("proj_in.weight", "model.diffusion_model.patchify_proj.weight"),
        ("transformer_blocks.1.video_to_audio_attn.norm_k.weight",
         "model.diffusion_model.transformer_blocks.1.video_to_audio_attn.k_norm.weight"),
    ):  # fmt: skip
        entry = header.tensors[official]
        bits = np.frombuffer(raw[entry.begin : entry.end], np.uint16).astype(np.uint32) << 16
        assert np.array_equal(bits.view(np.float32).reshape(entry.shape), state[name].numpy())


def test_buffers_that_no_file_holds_are_computed(tiny23):
    """The vocoder's resampler and Gemma's rotary frequencies are made at construction; on meta they would be empty."""
    vocoder = build(Checkpoint.open(tiny23), "vocoder")
    assert "resampler.filter" not in vocoder.state_dict()
    from diffusers.pipelines.ltx2.vocoder import UpSample1d

    assert torch.equal(vocoder.resampler.filter, UpSample1d(ratio=3, window_type="hann", persistent=False).filter)
    encoder = Checkpoint.open(tiny23).text_encoder("cpu", torch.float32)
    assert not any(buffer.is_meta for buffer in encoder._gemma.buffers())
