"""What a reader makes of samples: which are heard by their video, and what share of the step's loss each one has."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ltx2_job.data.index import Sample
from ltx2_job.store import Store
from ltx2_job.training.batches import Reader
from training_runs import clip, fill_store


@dataclass(frozen=True)
class Use:
    sample: Sample

    @property
    def text_key(self) -> str:
        return self.sample.text_keys[0]


def reader(root: Path, samples: list[Sample]) -> Reader:
    store = Store(root)
    fill_store(store, samples, (64, 64))
    return Reader(store)


def test_a_silent_clip_is_not_heard_and_shares_are_those_of_the_whole_step(tmp_path: Path) -> None:
    """Two of the step's eight samples, five of which sound. Catches: the audio-to-video gate of a silent clip left
    open, and shares counted in this micro-batch alone.
    """
    samples = [clip("a"), clip("b", sounding=False)]
    batch = reader(tmp_path, samples).batch([Use(sample) for sample in samples], samples=8, sounding=5)
    assert batch.a2v_scale.tolist() == [1.0, 0.0]
    torch.testing.assert_close(batch.video_share, torch.tensor([1 / 8, 1 / 8]))
    torch.testing.assert_close(batch.audio_share, torch.tensor([1 / 5, 0.0]))
    assert batch.audio[0].any() and not batch.audio[1].any()
    assert not batch.isolate and batch.grid == (2, 2, 2)


def test_a_run_without_audio_is_isolated_and_has_one_audio_token(tmp_path: Path) -> None:
    """Catches: an audio half that is seen by the video although the run has none."""
    samples = [clip("a", audio=0)]
    batch = reader(tmp_path, samples).batch([Use(samples[0])], samples=1, sounding=0)
    assert batch.isolate and batch.a2v_scale.tolist() == [0.0] and batch.audio_share.tolist() == [0.0]
    assert batch.audio.shape == (1, 1, 128)
