"""The folder of Gemma 3, LTX-2's text encoder: where it is, what it holds, how long captions are. Torch-free."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ltx2_job.models.header import fault
from ltx2_job.models.layout import REGISTERS
from ltx2_job.models.sources import Located, PartSource, content_hash, read_json_file, shards

MAX_TOKENS: Final = 1024
"""Tokens of a caption in the published models; a tokenizer with a smaller model_max_length (tiny models) lowers it."""

# The language model inside the published folders (older and newer naming), and inside a folder of the bare text model.
_PREFIXES: Final = ("language_model.model.", "model.language_model.", "model.")
# Parts of Gemma that a caption does not pass: image tower and the head that predicts words.
_SKIPPED: Final = ("vision_tower.", "multi_modal_projector.", "lm_head.", "language_model.lm_head.")
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                           "added_tokens.json")  # fmt: skip


@dataclass(frozen=True)
class GemmaFolder:
    """Gemma 3's weights and its tokenizer: one folder as published, or two in diffusers' layout."""

    model: Path
    tokenizer: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, checked: Gemma 3, not quantised. Raises CheckpointError."""
        config = read_json_file(self.model / "config.json")
        kind = config.get("model_type")
        if kind not in ("gemma3", "gemma3_text"):
            later = "; Gemma 4 belongs to LTX-2.5, which is not supported yet" if str(kind).startswith("gemma4") else ""
            raise fault(f"{self.model}/config.json describes {kind}, LTX-2 wants Gemma 3{later}",
                        "set pretrained_gemma_model_name_or_path to google/gemma-3-12b-it or a copy of it")  # fmt: skip
        if config.get("quantization_config"):
            raise fault(f"{self.model} is quantised: not supported yet", "take the bf16 folder of Gemma 3 12B")
        return config

    @property
    def text_config(self) -> dict[str, Any]:
        """The language model's part of the configuration."""
        text = self.config.get("text_config", self.config)
        return dict(text)

    @cached_property
    def tokens(self) -> int:
        """Tokens of a caption after padding. Raises CheckpointError if the connectors' registers cannot fill them."""
        settings = read_json_file(self.tokenizer / "tokenizer_config.json")
        tokens = int(min(MAX_TOKENS, settings.get("model_max_length", MAX_TOKENS)))
        if tokens < REGISTERS or tokens % REGISTERS:
            raise fault(f"{self.tokenizer}/tokenizer_config.json has model_max_length {tokens}, "
                        f"the connectors want a multiple of {REGISTERS}")  # fmt: skip
        return tokens

    @cached_property
    def tensors(self) -> dict[str, Located]:
        """The language model's tensors by their names in transformers' Gemma3TextModel, without Gemma's other parts."""
        found: dict[str, Located] = {}
        for name, located in shards(self.model).items():
            if name.removeprefix("model.").startswith(_SKIPPED):
                continue
            prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
            if prefix is None:
                raise fault(f"{located.path}: tensor {name} is not part of Gemma 3")
            found[name.removeprefix(prefix)] = located
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that decides what a caption becomes."""
        tokenizer = [self.tokenizer / name for name in _TOKENIZER_FILES if (self.tokenizer / name).is_file()]
        weights = dict.fromkeys(located.path for located in self.tensors.values())
        return (*weights, self.model / "config.json", *tokenizer)

    def content_hash(self) -> str:
        """sha256 (hex) of the language model's weights, its configuration, and the tokenizer's files."""
        rest = hashlib.sha256(json.dumps(self.text_config, sort_keys=True).encode())
        for name in _TOKENIZER_FILES:
            file = self.tokenizer / name
            if file.is_file():
                rest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return content_hash(PartSource("text_encoder", {}, self.tensors), rest.digest())


def find_gemma(model: Path, chosen: Path | None = None) -> GemmaFolder | None:
    """Gemma 3 for a model: the chosen folder, else what lies beside it; None if there is nothing.

    chosen: pretrained_gemma_model_name_or_path as a folder (published, or with text_encoder/ and tokenizer/ inside).
    Beside a combined file a folder `gemma` is looked for; in a folder in diffusers' layout text_encoder and tokenizer.
    Raises CheckpointError if a chosen folder holds no Gemma.
    """
    if chosen is not None:
        found = _within(chosen)
        if found is None:
            raise fault(f"{chosen} holds no Gemma 3 (no config.json with a tokenizer_config.json)",
                        "set pretrained_gemma_model_name_or_path to the folder of google/gemma-3-12b-it")  # fmt: skip
        return found
    return _within(model if model.is_dir() else model.parent / "gemma")


def _within(folder: Path) -> GemmaFolder | None:
    for model, tokenizer in ((folder / "text_encoder", folder / "tokenizer"), (folder, folder)):
        if (model / "config.json").is_file() and (tokenizer / "tokenizer_config.json").is_file():
            return GemmaFolder(model, tokenizer)
    return None
