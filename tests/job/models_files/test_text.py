"""Captions to text sequences: against Gemma in its own library, and a float64 numpy reference of what follows it."""

import numpy as np
import pytest
import torch

from ltx2_job.errors import CheckpointError
from ltx2_job.models.load import Checkpoint
from reference import text as reference

CAPTION = "  a red fox runs over fresh snow, camera pans right "
HEADS = 4


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def encoder(request, tiny20, tiny23):
    path = tiny20 if request.param == "2.0" else tiny23
    checkpoint = Checkpoint.open(path)
    weights = {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            if "embeddings_connector" in name or name.startswith("text_embedding_projection"):
                weights[name] = file.get_tensor(name).double().numpy()
    return request.param, checkpoint.text_encoder("cpu", torch.float32), weights


@pytest.fixture(scope="module")
def gemma(tiny20):
    from transformers import AutoTokenizer, Gemma3ForConditionalGeneration

    folder = tiny20.parent / "gemma"
    model = Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder), model


def caption_states(encoder, caption=CAPTION):
    states, mask = encoder.hidden_states(caption)
    return states[mask.bool()].double().numpy()


def sequences(version, states, weights, tokens, *, base=4096, registers=True, front=True, **mistake):
    video, audio = reference.projected(states, weights, version, (64, 32), **mistake)
    options = {"base": base, "registers": registers, "front": front}
    return (
        reference.connector(video, weights, "video", tokens, HEADS, **options),
        reference.connector(audio, weights, "audio", tokens, HEADS, **options),
    )


def difference(ours, theirs):
    return max(np.abs(a.double().numpy() - b).max() for a, b in zip(ours, theirs, strict=True))


def test_sequences_equal_the_reference(encoder):
    version, text_encoder, weights = encoder
    for caption in (CAPTION, "", "a dog " * 100):
        (ours,) = text_encoder.encode([caption])
        assert [tuple(side.shape) for side in ours] == [(128, 64), (128, 64 if version == "2.0" else 32)]
        states = caption_states(text_encoder, caption)
        assert difference(ours, sequences(version, states, weights, 128)) < 2e-5


@pytest.mark.parametrize(
    "mistake",
    [
        {"registers": False},  # padding not replaced by registers
        {"front": False},  # caption left at the right edge
        {"base": 1},  # RoPE over 1 token instead of 4,096 (the official default without the header's key)
        {"layer_fastest": False},  # layers stacked in front of the channels
        {"factor": 1.0},  # 2.0 without the factor 8
        {"rescaled": False},  # 2.3 without sqrt(width / hidden)
    ],
    ids=lambda mistake: next(iter(mistake)),
)
def test_mistakes_that_the_comparison_sees(encoder, mistake):
    version, text_encoder, weights = encoder
    (ours,) = text_encoder.encode([CAPTION])
    wrong = sequences(version, caption_states(text_encoder), weights, 128, **mistake)
    other = {"factor": "2.3", "rescaled": "2.0"}.get(next(iter(mistake)))
    # A mistake in the other generation's formula must not touch this one.
    assert difference(ours, wrong) < 2e-5 if version == other else difference(ours, wrong) > 1e-2


def test_gates_of_the_connectors_are_used(encoder):
    """Mutation: a 2.3 connector without gated attention."""
    version, text_encoder, weights = encoder
    ungated = {name: value for name, value in weights.items() if "to_gate_logits" not in name}
    if version == "2.0":
        assert ungated.keys() == weights.keys()
        return
    wrong = sequences(version, caption_states(text_encoder), ungated, 128)
    assert difference(text_encoder.encode([CAPTION])[0], wrong) > 1e-2


def test_states_are_those_of_the_library_on_the_padded_caption(encoder, gemma):
    """Running the caption's own tokens alone changes nothing; mutation: padding at the right moves every position."""
    _, text_encoder, _ = encoder
    tokenizer, model = gemma
    batch = tokenizer(CAPTION.strip(), padding="max_length", max_length=128, return_tensors="pt")
    with torch.no_grad():
        output = model.model(**batch, output_hidden_states=True)
    states, mask = text_encoder.hidden_states(CAPTION)
    assert torch.equal(mask, batch.attention_mask[0])
    theirs = torch.stack(output.hidden_states, -1)[0]
    assert states.shape == theirs.shape == (128, 64, 5)
    assert (states - theirs)[mask.bool()].abs().max() < 2e-5
    assert states[~mask.bool()].abs().max() == 0


def test_hidden_states_are_one_more_than_layers_and_the_last_is_normed(encoder, gemma):
    """Mutation: the last entry before the final norm (a flag of the library decides)."""
    _, text_encoder, _ = encoder
    states, mask = text_encoder.hidden_states(CAPTION)
    assert states.shape[-1] == 4 + 1
    weight = 1 + gemma[1].model.language_model.norm.weight.detach()
    size = lambda layer: (states[mask.bool()][..., layer] / weight).pow(2).mean(-1).sqrt()  # noqa: E731
    assert (size(-1) - 1).abs().max() < 1e-4
    assert (size(-2) - 1).abs().max() > 0.1
    embedded = gemma[1].model.language_model.embed_tokens(torch.tensor(text_encoder.token_ids(CAPTION)))
    assert torch.allclose(states[mask.bool()][..., 0], embedded, atol=1e-6)


def test_tokens_begin_with_the_mark_and_end_without_one(encoder, gemma):
    _, text_encoder, _ = encoder
    ids = text_encoder.token_ids(CAPTION)
    assert ids[0] == 2
    assert ids.count(2) == 1
    assert 1 not in ids
    assert gemma[0].decode(ids[1:]).strip() == CAPTION.strip()
    assert text_encoder.token_ids("") == [2]
    assert len(text_encoder.token_ids("a dog " * 100)) == 128


def test_captions_do_not_depend_on_their_neighbours(encoder):
    _, text_encoder, _ = encoder
    alone = text_encoder.encode(["a dog"])[0]
    beside = text_encoder.encode([CAPTION, "a dog"])[1]
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_closed_encoder_refuses(tiny20):
    text_encoder = Checkpoint.open(tiny20).text_encoder("cpu", torch.float32)
    text_encoder.close()
    with pytest.raises(RuntimeError, match="closed"):
        text_encoder.encode(["a dog"])


def test_bf16_stays_close(encoder, tiny20, tiny23):
    version, text_encoder, _ = encoder
    half = Checkpoint.open(tiny20 if version == "2.0" else tiny23).text_encoder("cpu", torch.bfloat16)
    for full, rounded in zip(text_encoder.encode([CAPTION])[0], half.encode([CAPTION])[0], strict=True):
        assert rounded.dtype == torch.bfloat16
        assert (full - rounded.float()).norm() / full.norm() < 0.05


def test_a_gemma_of_another_size_is_refused(tiny20, tmp_path):
    import json
    import shutil

    folder = shutil.copytree(tiny20.parent / "gemma", tmp_path / "gemma")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="3 layers of width 64, this model wants 4 of width 64"):
        Checkpoint.open(tiny20, folder).text_encoder("cpu", torch.float32)
