"""Mistakes with model files: found from headers alone, before anything is started."""

import json
import shutil

import pytest

from ltx2_job.models.header import encode_header, read_header
from ltx2_job.models.layout import PREFIX
from mistakes.cases import Mistake, both, edit, mistake, mistakes, names, try_it

MODEL = "models/ltx-2-tiny.safetensors"
Q = f"{PREFIX}transformer_blocks.0.attn1.to_q.weight"


def rewritten(change, name=MODEL):
    """The model with another header: `change` gets tensors (name -> (dtype, shape)) and metadata. No weight is kept."""

    def rewrite(place):
        header = read_header(place.root / MODEL)
        tensors = {entry.name: (entry.dtype, entry.shape) for entry in header.tensors.values()}
        metadata = dict(header.metadata)
        tensors = change(tensors, metadata) or tensors
        raw = encode_header(tensors, metadata)
        place.write(name, len(raw).to_bytes(8, "little") + raw)
        sizes = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1}
        whole = 0
        for dtype, shape in tensors.values():
            count = 1
            for size in shape:
                count *= size
            whole += count * sizes[dtype]
        with (place.root / name).open("r+b") as file:
            file.truncate(8 + len(raw) + whole)

    return rewrite


def put(tensors, **changes):
    """Tensors with changes; a value of None takes one away."""
    return {name: value for name, value in {**tensors, **changes}.items() if value is not None}


def other(name, *says, data, code=78):
    """Another file in the model's place."""
    return mistake(name, code, "model", MODEL, *says, change=lambda place: place.write(MODEL, data))


def header(name, *says, change, code=78):
    """A model whose header says something else."""
    return mistake(name, code, "model", *says, change=rewritten(change))


def cut(place):
    """A download that was cut off in the middle."""
    raw = (place.root / MODEL).read_bytes()
    place.write(MODEL, raw[: len(raw) // 2])


def longer(place):
    """A file with something behind its last tensor."""
    place.write(MODEL, (place.root / MODEL).read_bytes() + b"\0" * 100)


def without_gemma(place):
    """A model alone."""
    shutil.rmtree(place.root / "models/gemma")


def gemma(change):
    """Another config.json of the text encoder."""

    def rewrite(place):
        page = json.loads((place.root / "models/gemma/config.json").read_text())
        change(page)
        place.write("models/gemma/config.json", json.dumps(page))

    return rewrite


def a_lora(tensors, metadata):
    return {f"{Q.removesuffix('weight')}lora_A.weight": ("F32", (4, 64))}


def no_audio(tensors, metadata):
    metadata.clear()
    return {name: value for name, value in tensors.items() if "audio" not in name}


def one_wrong(tensors, metadata):
    return put(tensors, **{Q: (tensors[Q][0], (tensors[Q][1][0], tensors[Q][1][1] // 2))})


MISTAKES = [
    mistake("none there", 66, "pretrained_model_name_or_path", "models/none.safetensors", "put the checkpoint there", change=edit(MODEL, "models/none.safetensors")),
    mistake("a folder of files", 78, "model", "models", "without model_index.json", "name the combined .safetensors file", change=edit(MODEL, "models")),
    other("an empty file", "is not a safetensors file", data=b""),
    other("a page of an error", "is not a safetensors file", data=b"<!DOCTYPE html><html><body>404</body></html>" * 9),
    other("a pointer of git", "Git LFS pointer", "git lfs pull", data=b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n"),
    other("a pickle in a zip", "is a pickle of torch", "take the .safetensors file", data=b"PK\x03\x04" + b"\0" * 500),
    other("an old pickle", "is a pickle of torch", "take the .safetensors file", data=b"\x80\x02}q\x00." + b"\0" * 500),
    other("a GGUF", "is a GGUF file: not supported yet", "take the bf16 .safetensors file", data=b"GGUF\x03\0\0\0" + b"\0" * 500),
    other("a header that is no JSON", "its header is no JSON", "download the file again", data=(9).to_bytes(8, "little") + b"{not json" + b"\0" * 500),
    other("a header that is a list", "its header is no JSON object", "download the file again", data=(2).to_bytes(8, "little") + b"[]"),
    other("cut off in its header", "ends inside its header", "download the file again", data=(5000).to_bytes(8, "little") + b'{"a":'),
    mistake("cut off in its weights", 78, "model", MODEL, "is cut short", "download the file again", change=cut),
    mistake("too long", 78, "model", MODEL, "has bytes that no tensor owns", "download the file again", change=longer),
    header("LTX-Video 0.9", "no audio stream", "is this file LTX-Video 0.9?", "take the bf16 file of LTX-2", change=no_audio),
    header("a LoRA", "is a LoRA, not a model", "name the base model here", change=a_lora),
    header("fp8", "fp8 weights", "not supported yet", "take the bf16 file", change=lambda t, m: put(t, **{Q: ("F8_E4M3", t[Q][1])})),
    header("fp16", "F16 weights", "not supported yet", "take the bf16 file", change=lambda t, m: put(t, **{Q: ("F16", t[Q][1])})),
    header("scaled fp8", "is quantised", "not supported yet", change=lambda t, m: put(t, **{f"{Q}_scale": ("F32", (1,))})),
    header("LTX-2.5", "is LTX-2.5: not supported yet", "take the bf16 file", change=lambda t, m: m.update(model_version="2.5.0")),
    header("another version in its header", "model_version 2.3", "the tensors are those of 2.0", change=lambda t, m: m.update(model_version="2.3.0")),
    header("a part alone", "holds no LTX-2 transformer", "name the combined file", change=lambda t, m: {k: v for k, v in t.items() if k.startswith("vae.")}),
    header("a header without its config", "no transformer.num_attention_heads", "take the official file", change=lambda t, m: m.pop("config") and None),
    header("a wrong shape", "tensor transformer_blocks.0.attn1.to_q.weight has shape", "LTX-2 wants", "is this file LTX-Video 0.9?", change=one_wrong),
    header("a missing tensor", "transformer_blocks.0.attn1.to_q.weight", "is missing", "is the file complete?", change=lambda t, m: put(t, **{Q: None})),
    header("a tensor too many", "tensor extra.weight is not part of LTX-2", change=lambda t, m: put(t, **{"extra.weight": ("F32", (4, 4))})),
    mistake("no text encoder", 66, "pretrained_gemma_model_name_or_path", "there is no Gemma 3 beside", "google/gemma-3-12b-it", change=without_gemma),
    mistake("a text encoder that is not there", 66, "pretrained_gemma_model_name_or_path: models/gema", "put Gemma 3 there", change=edit("    max_train", "    pretrained_gemma_model_name_or_path: models/gema\n    max_train")),
    mistake("a text encoder that is none", 78, "model", "clips holds no Gemma 3", "pretrained_gemma_model_name_or_path", change=edit("    max_train", "    pretrained_gemma_model_name_or_path: clips\n    max_train")),
    mistake("another text encoder", 78, "model", "describes llama, LTX-2 wants Gemma 3", "google/gemma-3-12b-it", change=gemma(lambda page: page.update(model_type="llama"))),
    mistake("a quantised text encoder", 78, "model", "is quantised: not supported yet", "take the bf16 folder", change=gemma(lambda page: page.update(quantization_config={"bits": 4}))),
    mistake("a text encoder without weights", 78, "model", "0 .safetensors files and no index", "download the folder again", change=lambda place: [file.unlink() for file in (place.root / "models/gemma").glob("*.safetensors")]),
    mistake("a text encoder whose config is no JSON", 78, "model", "models/gemma/config.json cannot be read as JSON", "download the folder again", change=lambda place: place.write("models/gemma/config.json", "{")),
    mistake("a LoRA in its place, for generate", 78, "model", "is a LoRA, not a model", change=rewritten(a_lora, "lora.safetensors"), argv="generate --model lora.safetensors --prompt fox --output fox.mp4"),
    mistake("a model where a LoRA is asked for", 78, "models/ltx-2-tiny.safetensors", "is no LoRA", "--model", argv=f"generate --model {MODEL} --lora {MODEL} --prompt fox --output fox.mp4"),
    mistake("a page where a LoRA is asked for", 78, "lora.safetensors is not a safetensors file", change=lambda place: place.write("lora.safetensors", "<html>" * 20), argv=f"generate --model {MODEL} --lora lora.safetensors --prompt fox --output fox.mp4"),
    mistake("no text encoder, for generate", 78, "model", "there is no Gemma 3 beside", "gemma", change=without_gemma, argv=f"generate --model {MODEL} --prompt fox --output fox.mp4"),
    mistake("inspect a page", 78, "page.safetensors is not a safetensors file", change=lambda place: place.write("page.safetensors", "<html>" * 20), argv="inspect page.safetensors"),
    mistake("inspect a folder", 78, "models is a folder", "name the file", argv="inspect models"),
    mistakes("a model to begin with as LoRA", 78, ("init_lora", "is no LoRA", "name a LoRA"), change=both(edit("    max_train", f"    init_lora: {MODEL}\n    max_train"))),
]  # fmt: skip


@pytest.mark.parametrize("one", MISTAKES, ids=names(MISTAKES))
def test_a_mistake_with_a_model_file_is_named_and_leaves_nothing(one: Mistake, place, started, temporary, capfd):
    try_it(one, place, started, temporary, capfd)


def test_a_model_that_was_only_rewritten_is_none(place, started):
    # Catches a rewriting that spoils every file: each case above would pass for that reason.
    rewritten(lambda tensors, metadata: tensors)(place)
    with pytest.raises(AssertionError, match="a process was started"):
        try_it(mistake("none", 0), place, started, place.root, None)
