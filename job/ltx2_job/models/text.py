"""Captions to the two text sequences of LTX-2: tokenizer, Gemma 3, projection and connectors.

The path, as the official code has it (LTX-2 monorepo, commit 400fd31): every hidden state of Gemma, the embeddings' and
the one after the final norm included (layers + 1), is stacked with the layer index fastest. 2.0 subtracts the masked
mean and divides by the masked range of each layer, times 8; 2.3 divides each token of each layer by its root mean
square. One linear (2.0) or one per modality (2.3) projects the stack; the connectors move the caption's tokens to the
front, fill the rest of the sequence with learnable registers and run a few transformer blocks. Every position of the
result is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextModel

from ltx2_job.memory.plan import Form
from ltx2_job.models.gemma import GemmaFolder
from ltx2_job.models.header import fault
from ltx2_job.models.materialise import build
from ltx2_job.models.sources import PartSource

if TYPE_CHECKING:
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors


class TextEncoder:
    """Turns captions into what the transformer attends to. Captions are encoded one by one, so that an embedding never
    depends on the others of its batch."""

    def __init__(self, tokenizer: Any, gemma: Gemma3TextModel, connectors: LTX2TextConnectors, tokens: int):
        self._tokenizer = tokenizer
        self._gemma: Gemma3TextModel | None = gemma
        self._connectors: LTX2TextConnectors | None = connectors
        self.tokens = tokens

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """For each caption the video text [T, Dv] and the audio text [T, Da], on the encoder's device in its dtype.

        T is `tokens`; longer captions are cut. Raises RuntimeError after close().
        """
        if self._connectors is None:
            raise RuntimeError("this text encoder has been closed")
        results = []
        for caption in captions:
            states, mask = self.hidden_states(caption)
            video, audio, _ = self._connectors(states[None], mask[None], padding_side="left")
            results.append((video[0], audio[0]))
        return results

    @torch.no_grad()
    def hidden_states(self, caption: str) -> tuple[Tensor, Tensor]:
        """A caption's states in Gemma [T, hidden, layers + 1], zero on the padding at the left; its mask [T].

        Only the caption's own tokens run through Gemma, at the positions they have after padding: padding is masked
        in every layer and replaced afterwards, so it would only cost time (1,024 tokens for a caption of 60).
        """
        if self._gemma is None:
            raise RuntimeError("this text encoder has been closed")
        ids = self.token_ids(caption)
        device = self._gemma.embed_tokens.weight.device
        first = self.tokens - len(ids)
        output = self._gemma(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.arange(first, self.tokens, device=device)[None],
            output_hidden_states=True,
            use_cache=False,
        )
        # The last entry is taken from last_hidden_state, which is after the final norm whatever the library's flags.
        states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=-1)[0]
        layers = self._gemma.config.num_hidden_layers
        if states.shape[-1] != layers + 1:
            raise fault(f"Gemma gave {states.shape[-1]} hidden states for {layers} layers")
        padded = states.new_zeros((self.tokens, *states.shape[1:]))
        padded[first:] = states
        mask = torch.zeros(self.tokens, dtype=torch.int64, device=device)
        mask[first:] = 1
        return padded, mask

    def token_ids(self, caption: str) -> list[int]:
        """Token ids of a caption: beginning-of-sequence first, no end mark, cut to `tokens`."""
        start, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        ids = self._tokenizer(caption.strip(), truncation=True, max_length=self.tokens).input_ids
        return [start, *(token for token in ids if token not in (start, end))][: self.tokens]

    def close(self) -> None:
        """Drop the weights, so that their memory can be used by the next stage."""
        self._gemma = self._connectors = None


def load_text_encoder(
    folder: GemmaFolder, connectors: LTX2TextConnectors, device: torch.device | str, dtype: torch.dtype
) -> TextEncoder:
    """Gemma 3 from its folder in `dtype` on `device`, without head and image tower, in front of `connectors`.

    Raises CheckpointError if Gemma's tensors do not fit its configuration, or its sizes do not fit the connectors.
    """
    config = Gemma3TextConfig(**folder.text_config)
    hidden, states = connectors.config["caption_channels"], connectors.config["text_proj_in_factor"]
    if (config.hidden_size, config.num_hidden_layers + 1) != (hidden, states):
        raise fault(
            f"{folder.model} has {config.num_hidden_layers} layers of width {config.hidden_size}, this model wants "
            f"{states - 1} of width {hidden}",
            "set pretrained_gemma_model_name_or_path to the Gemma 3 of this model (12B for the published ones)",
        )
    source = PartSource("text_encoder", {"config": config}, folder.tensors)
    form = Form(dtype, torch.device(device))
    gemma = build(Gemma3TextModel, source, lambda _: form)
    tokenizer = AutoTokenizer.from_pretrained(str(folder.tokenizer), local_files_only=True)
    return TextEncoder(tokenizer, gemma, connectors, folder.tokens)
