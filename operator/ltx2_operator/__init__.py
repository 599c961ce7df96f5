"""The LTX-2 training operator: manifests in, plans and pods out. Nothing below this folder imports torch."""

__version__ = "0.1.0"
