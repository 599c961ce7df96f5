"""The configuration of a training: config.json and multidatabackend.json of the guide, typed, corrected, explained.

Holds no torch: the operator imports it.
"""

from ltx2_job.config.changes import Correction, Unsupported
from ltx2_job.config.datasets import AudioOptions, DatasetConfig, VideoOptions
from ltx2_job.config.resolve import Resolved, resolve
from ltx2_job.config.training import TrainingConfig

__all__ = [
    "AudioOptions",
    "Correction",
    "DatasetConfig",
    "Resolved",
    "TrainingConfig",
    "Unsupported",
    "VideoOptions",
    "resolve",
]
