"""What `ltx2 inspect` says of every published kind of file, from headers made of the published description."""

import json
import subprocess
import sys

import pytest

from ltx2_job.cli import main
from ltx2_job.models.header import encode_header
from ltx2_job.models.inspection import inspect, lines
from reference import official_headers
from reference import official_variants as variants

P = "model.diffusion_model."
V25 = {"model_version": "2.5.0", "config": json.dumps({"transformer": {"num_attention_heads": 32}, "scheduler": {}})}


def write(path, tensors, metadata=None):
    """A file of the full size that holds nothing but its header: a sparse one."""
    header = encode_header(tensors, metadata or {})
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        last = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in last.items() if name != "__metadata__"]
        file.truncate(8 + len(header) + max(ends, default=0))
    return path


def quantised(version, form, blocks, gates=False):
    tensors = variants.bf16(version)
    return form(tensors, variants.layers(tensors, blocks, gates))


def split25(form=None, blocks=(), connectors=False):
    tensors = variants.transformer_25()
    return form(tensors, variants.layers(tensors, blocks, connectors=connectors)) if form else tensors


def listed(tensors, kind):
    layers = {name.removesuffix(".weight"): {"format": kind} for name, (dtype, _) in tensors.items() if dtype in
              ("F8_E4M3", "U8") and name.endswith(".weight")}  # fmt: skip
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


# name -> tensors, metadata, number of tensors that is published (None: not), kind, title, precision, usable, use
FP8 = quantised("2.0", variants.fp8, range(1, 43))
FP4 = quantised("2.0", variants.nvfp4, range(1, 43))
VERSION = {"2.0": official_headers.metadata("2.0"), "2.3": official_headers.metadata("2.3")}
FILES = {
    "2.0": (variants.bf16("2.0"), VERSION["2.0"], 4052, "ltx-2", "LTX-2.0, combined file", "bf16", True, "yes, as pre"),
    "2.3": (variants.bf16("2.3"), VERSION["2.3"], 5947, "ltx-2", "LTX-2.3, combined file", "bf16", True, "yes, as pre"),
    "2.0-fp8": (FP8, VERSION["2.0"] | listed(FP8, "float8_e4m3fn"), 6404, "ltx-2", "LTX-2.0, combined file",
                "fp8 in 1176 layers (blocks 1-42)", False, "no: fp8 weights are not supported yet; take the bf16"),
    "2.0-fp4": (FP4, VERSION["2.0"] | listed(FP4, "nvfp4"), 7580, "ltx-2", "LTX-2.0, combined file",
                "nvfp4 in 1176 layers (blocks 1-42)", False, "no: nvfp4 weights are not supported yet"),
    "2.3-fp8": (quantised("2.3", variants.fp8, range(2, 46), True), VERSION["2.3"], None, "ltx-2",
                "LTX-2.3, combined file", "fp8 in 1496 layers (blocks 2-45)", False, "no: fp8"),
    "2.0-scaled": (variants.fp8(variants.bf16("2.0"), variants.layers(variants.bf16("2.0"), range(48)),
                                              ("scale_weight",)), VERSION["2.0"], None, "ltx-2",
                   "LTX-2.0, combined file", "fp8 scaled in 1344 layers (blocks 0-47)", False, "no: fp8 scaled"),
    "2.0-cast": (variants.cast(variants.bf16("2.0")), VERSION["2.0"], None, "ltx-2", "LTX-2.0, combined file",
                 "fp8 cast in 3568 layers", False, "no: fp8 cast"),
    "2.5": (split25(), V25, 4349, "ltx-2.5", "LTX-2.5, transformer file of the split pack", "bf16", False,
            "no: LTX-2.5 is not supported yet; take LTX-2.0 or LTX-2.3"),
    "2.5-int8": (split25(variants.int8_convrot, range(48), True), V25, 7229, "ltx-2.5", "LTX-2.5, transformer file",
                 "int8-convrot in 1440 layers (blocks 0-47)", False, "no: LTX-2.5"),
    "2.5-fp4": (split25(variants.nvfp4, range(42)), V25, 7877, "ltx-2.5", "LTX-2.5, transformer file",
                "nvfp4 in 1176 layers (blocks 0-41)", False, "no: LTX-2.5"),
    "2.5-vae": (variants.bare_vae(), {"model_version": "2.5.0", **V25}, 170, "part", "of LTX-2 only: video VAE",
                "bf16", False, "no: a part of LTX-2 alone; take the combined file"),
    "0.9": (variants.video_09(), {}, None, "ltx-video", "LTX-Video 0.9: it has no sound", "bf16", False,
            "no: LTX-Video 0.9 is another model"),
    "lora": (variants.lora(4096), {}, None, "ltx-2-lora", "a LoRA of LTX-2: 2 layers, rank 32, official names", "fp32",
             True, "yes, as --lora"),
    "lora-diffusers": (variants.lora(4096, "transformer.", rank=8), {}, None, "ltx-2-lora",
                       "a LoRA of LTX-2: 2 layers, rank 8, diffusers' names", "fp32", True, "yes, as --lora"),
    "lora-0.9": (variants.lora(2048), {}, None, "lora", "a LoRA of LTX-Video 0.9", "fp32", False, "no: it is a LoRA"),
    "lora-other": (variants.lora(3072, "transformer.", "attn"), {}, None, "lora", "a LoRA of another model (2 layers)",
                   "fp32", False, "no: it is a LoRA of another model"),
    "gemma-3": (variants.gemma("language_model.model."), {}, None, "gemma-3", "Gemma 3", "bf16", True, "yes, as"),
    "gemma-4": (variants.gemma("model.", later=True), {"gemma_config": "{}"}, None, "gemma-4", "Gemma 4", "bf16", False,
                "no: it belongs to LTX-2.5"),
    "upscaler": ({"initial_conv.weight": ("BF16", (8, 8))}, {"config": '{"_class_name": "LatentUpsampler"}'}, None,
                 "latent-upscaler", "a latent upscaler", "bf16", False, "no: latent upscalers"),
    "duration": ({"duration_head.in_proj.weight": ("BF16", (8, 8))}, {}, None, "duration-head", "the duration head",
                 "bf16", False, "no: it belongs to LTX-2.5"),
    "diffusion-vae": ({"decoder.det_stages.0.0.attn.qkv.weight": ("BF16", (8, 8))}, {}, None, "diffusion-vae",
                      "the diffusion video VAE", "bf16", False, "no: it belongs to LTX-2.5"),
    "other": ({"bert.layer.weight": ("F16", (8, 8))}, {}, None, "unknown", "not a file of LTX-2", "fp16", False,
              "no: it is no file of LTX-2"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_known(name, tmp_path):
    tensors, metadata, count, kind, title, precision, usable, use = FILES[name]
    assert count in (None, len(tensors))  # the variant is the published one
    found = inspect(write(tmp_path / "m.safetensors", tensors, metadata))
    assert found.kind == kind
    assert found.title.startswith(title)
    assert str(found.precision).startswith(precision)
    assert (found.usable, found.use[: len(use)]) == (usable, use)
    assert sum(part["tensors"] for part in found.parts.values()) == len(tensors)
    if kind in ("ltx-2", "ltx-2.5", "part"):
        assert found.differences == (), found.differences
    json.dumps(found.dump())


def test_the_published_size_in_less_than_its_bytes(tmp_path):
    path = write(tmp_path / "ltx-2-19b-dev.safetensors", variants.bf16("2.0"), VERSION["2.0"])
    assert path.stat().st_size > 43_000_000_000 and path.stat().st_blocks * 512 < 2_000_000
    text = "\n".join(lines(inspect(path)))
    assert "size        40.3 GiB, 4,052 tensors, 21.6B parameters; header" in text
    assert "transformer  3,510 tensors   18.9B   35.2 GiB  BF16 3,316, F32 194" in text
    assert "differs     nothing" in text and "precision   bf16" in text


def without(*names, **changes):
    tensors = variants.bf16("2.0")
    for name in names:
        del tensors[name]
    return tensors | changes


def differences(tmp_path, tensors, metadata=None):
    found = inspect(write(tmp_path / "m.safetensors", tensors, metadata or VERSION["2.0"]))
    assert not found.usable
    return {difference.what: (difference.count, difference.first) for difference in found.differences}


def test_what_differs_is_counted_and_named(tmp_path):
    gone = [f"{P}transformer_blocks.{block}.attn1.to_k.weight" for block in range(7)]
    name = f"{P}transformer_blocks.9.attn1.to_q.weight"
    tensors = without(*gone) | {name: ("BF16", (2048, 4096)), f"{P}surprise.weight": ("BF16", (1,))}
    said = differences(tmp_path, tensors)
    assert said["tensors missing"][0] == 7
    assert said["tensors missing"][1][0] == "transformer_blocks.0.attn1.to_k.weight [4096, 4096]"
    assert len(said["tensors missing"][1]) == 5
    assert said["tensors unexpected"] == (1, ("surprise.weight",))
    assert said["tensors of another shape"] == (
        1, ("transformer_blocks.9.attn1.to_q.weight is [2048, 4096], expected [4096, 4096]",)
    )  # fmt: skip


def test_a_header_that_contradicts_its_tensors(tmp_path):
    sections = official_headers.config("2.0")
    sections["transformer"] |= {"attention_head_dim": 64, "qk_norm": "layer_norm"}
    said = differences(tmp_path, variants.bf16("2.0"), official_headers.metadata("2.0", sections))
    count, first = said["keys of the header's config"]
    assert count == 2 and "attention_head_dim = 64" in first[0] and "qk_norm = layer_norm" in first[1]


def test_a_quantised_file_is_compared_as_a_whole_one(tmp_path):
    # Catches: halved fp4 shapes and scales taken for differences, and real ones hidden by them.
    tensors = dict(FP4)
    del tensors[f"{P}transformer_blocks.3.attn1.to_q.bias"]
    said = differences(tmp_path, tensors)
    assert said == {"tensors missing": (1, ("transformer_blocks.3.attn1.to_q.bias [4096]",))}


def test_a_list_of_quantised_layers_that_is_not_true(tmp_path):
    listed_less = listed({name: value for name, value in FP8.items() if ".transformer_blocks.7." not in name}, "fp8")
    said = differences(tmp_path, FP8, VERSION["2.0"] | listed_less)
    assert said["contradictions"][0] == 1
    assert "does not name 28 layers that are quantised" in said["contradictions"][1][0]


def test_only_some_parts(tmp_path):
    tensors = {name: value for name, value in variants.bf16("2.0").items() if name.startswith(P)}
    found = inspect(write(tmp_path / "m.safetensors", tensors, VERSION["2.0"]))
    assert (found.title, found.usable) == ("LTX-2.0, not all parts", False)
    assert "vae, audio_vae, vocoder missing; take the combined file" in found.use
    # The same without any prefix, as some tools write it.
    bare = {name.removeprefix(P): value for name, value in tensors.items()}
    again = inspect(write(tmp_path / "bare.safetensors", bare, VERSION["2.0"]))
    assert again.title == found.title and again.parts == found.parts


def test_the_command(tmp_path, tiny23, capsys):
    assert main(["inspect", str(tiny23)]) == 0
    shown = capsys.readouterr().out
    assert f"{tiny23}: LTX-2.3, combined file" in shown and "model_version: 2.3.0" in shown
    assert main(["inspect", "--json", str(tiny23)]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["kind"] == "ltx-2" and page["usable"] and page["bytes"] == tiny23.stat().st_size
    assert page["precision"] == {"form": "bf16", "layers": {}, "blocks": []}
    assert main(["inspect", str(tiny23.parent / "gemma")]) == 0
    assert "Gemma 3, 4 layers of 64, with its tokenizer" in capsys.readouterr().out
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\0" * 64)
    assert main(["inspect", str(gguf)]) == 78
    assert "a GGUF file" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "none")]) == 66
    page = tmp_path / "page.safetensors"
    page.write_text("<!DOCTYPE html>")
    assert main(["inspect", str(page)]) == 78
    assert "is not a safetensors file" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 78
    assert "without Gemma 3; name the file itself" in capsys.readouterr().err


def test_a_folder_in_diffusers_layout(tiny20, tmp_path, capsys):
    from ltx2_job.models.load import Checkpoint
    from ltx2_job.models.names import PARTS

    def saved(part):
        source = Checkpoint.open(tiny20).source.part(part)
        folder = tmp_path / "model" / part
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(dict(source.arguments)))
        tensors = {name: (located.entry.dtype, located.entry.shape) for name, located in source.tensors.items()}
        write(folder / "model.safetensors", tensors)

    for part in PARTS:
        saved(part)
    (tmp_path / "model/model_index.json").write_text(json.dumps({part: [] for part in PARTS}))
    assert main(["inspect", str(tmp_path / "model")]) == 0
    assert "LTX-2.0, folder in diffusers' layout" in capsys.readouterr().out


def test_inspecting_imports_no_torch(tiny20):
    code = (
        "import sys; from ltx2_job.cli import main; main(['inspect', sys.argv[1]]); "
        "assert not {'torch', 'numpy', 'diffusers', 'safetensors', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny20)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
