"""A Gemma 3 in miniature with a tokenizer of its own: random weights, published names, no network."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer
from transformers.models.gemma3.configuration_gemma3 import Gemma3Config
from transformers.models.gemma3.modeling_gemma3 import Gemma3ForConditionalGeneration

from ltx2_job.models.tiny_file import seeded, write_safetensors

HIDDEN: Final = 64
LAYERS: Final = 4
TOKENS: Final = 128
"""Tokens of a caption: the fewest that the connectors' 128 registers allow."""

_SPECIAL: Final = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
                   "<end_of_image>", "<image_soft_token>")  # fmt: skip
# Merged to single tokens, so that a caption of thirty words fits into 128 tokens.
_WORDS: Final = """
a an the and of in on to with over from while at by is it
red green blue white black yellow ball square triangle circle fox cat dog bird person man woman snow street sky sea
runs walks moves slides spins bounces plays speaks rings falls rises turns pans camera frame light soft tone voice music
left right up down slowly high low fast calm quiet film style video scene shot close wide background
"""
_PIECES: Final = "ing ed er es th he re on st en"


def write_gemma(folder: Path, seed: int) -> None:
    """Write config.json, model.safetensors and the tokenizer's files, complete or absent; replaces an old folder."""
    config = Gemma3Config(**_config())
    with init_empty_weights():
        model = Gemma3ForConditionalGeneration(config)
    tensors = {}
    for name, parameter in model.named_parameters():
        if name.startswith("lm_head."):
            continue  # tied to the embeddings, as in the published folders
        published = _published(name)
        noise = torch.randn(parameter.shape, generator=seeded(f"gemma/{published}", seed))
        norm = parameter.ndim == 1 and "norm" in name
        # Gemma's norms store weight - 1; linears are scaled by their inputs, embeddings to 1 after Gemma's own factor.
        scale = 0.1 if norm or parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        tensors[published] = (noise * scale).to(torch.bfloat16)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        tokenizer().save_pretrained(str(unfinished))
        described = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", **_config()}
        (unfinished / "config.json").write_text(json.dumps(described, indent=2))
        write_safetensors(unfinished / "model.safetensors", tensors, {"format": "pt"})
        unfinished.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def tokenizer() -> GemmaTokenizer:
    """Gemma's kind of tokenizer (byte fallback, beginning mark first) over a small fixed vocabulary."""
    vocabulary = list(_SPECIAL) + [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary += ["\u2581"] + [chr(code) for code in range(33, 127)]
    merges: list[Any] = []  # pairs; the library takes them, its annotation knows only strings
    # A token for each word in a sentence ("▁word") and for each piece inside of words.
    for symbols in [["\u2581", *word] for word in _WORDS.split()] + [list(piece) for piece in _PIECES.split()]:
        while len(symbols) > 1:
            pair = (symbols[0], symbols[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            symbols = ["".join(pair), *symbols[2:]]
    ids = {token: index for index, token in enumerate(dict.fromkeys(vocabulary))}
    return GemmaTokenizer(vocab=ids, merges=merges, model_max_length=TOKENS, padding_side="left", add_bos_token=True)


def _config() -> dict[str, Any]:
    return {
        "text_config": {
            "model_type": "gemma3_text",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": 128,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 64,
            "max_position_embeddings": 2048,
        },
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64,
                          "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
        "boi_token_index": _SPECIAL.index("<start_of_image>"),
        "eoi_token_index": _SPECIAL.index("<end_of_image>"),
        "image_token_index": _SPECIAL.index("<image_soft_token>"),
    }  # fmt: skip


VOCABULARY: Final = len(tokenizer())
"""Number of tokens."""


def _published(name: str) -> str:
    """The name in the published folders, whose language model and image tower lie at the top level."""
    return name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)
