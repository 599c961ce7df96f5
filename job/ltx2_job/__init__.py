"""What a pod runs: caches a dataset, trains a LoRA on LTX-2, validates and exports it."""

__version__ = "0.1.0"
