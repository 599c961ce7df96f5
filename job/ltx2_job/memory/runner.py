"""Runs the transformer's blocks in order and recomputes those whose activations are not kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

State = tuple[Tensor, ...]
"""What one block hands to the next: plain tensors, so that hooks of FSDP see them."""


class BlockRunner:
    """Owns the order of the blocks and the recomputation of the first `len(blocks) - keep` of them.

    The LAST `keep` blocks keep their activations. They are the first ones the backward pass uses up, so the memory of
    one recomputed block is needed only after theirs has been freed; keeping the first blocks instead would hold both at
    once. Nothing is recomputed while gradients are off.

    dropout: True when the blocks hold active dropout (a LoRA with dropout). The recomputation then replays the random
    state of the forward pass; without dropout that would only cost time and forbid graph capture.

    Raises ValueError for a negative `keep`; more than there are blocks means all of them.
    """

    def __init__(self, blocks: Sequence[nn.Module] | nn.ModuleList, keep: int, *, dropout: bool = False) -> None:
        if keep < 0:
            raise ValueError(f"keep must be 0 or more blocks, got {keep}")
        self.blocks = blocks
        self.keep = keep
        self.dropout = dropout

    def run(self, state: State, contexts: Sequence[Any]) -> State:
        """State after all blocks; block i is called as `block(*state, contexts[i])` and returns the next state."""
        recomputed = len(self.blocks) - self.keep if torch.is_grad_enabled() else 0
        for index, (block, context) in enumerate(zip(self.blocks, contexts, strict=True)):
            if index < recomputed:
                state = checkpoint(block, *state, context, use_reentrant=False, preserve_rng_state=self.dropout)
            else:
                state = block(*state, context)
        return state
