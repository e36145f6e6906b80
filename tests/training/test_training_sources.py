"""Sources of samples: shuffled scans, simulated brains, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import make_samples

from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.samples import Sample
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.training.batches import collate
from msnmo_bids.training.pool import BrainPool
from msnmo_bids.training.sources import EpochSource, SimulatedSource, Stream, generator


def test_generators_differ_by_purpose_and_position():
    positions = [(0,), (0, 0), (0, 0, 0), (1,), (0, 1), (1, 0)]
    numbers = {
        float(generator(3, stream, *position).random())
        for stream in Stream
        for position in positions
    }
    assert len(numbers) == len(Stream) * len(positions)
    assert generator(3, Stream.SAMPLE, 1).random() == generator(3, Stream.SAMPLE, 1).random()


def steps_of(scans, per_step, processes, steps, seed=0, start=0):
    """Return the scans of each step, over all processes, as sorted numbers."""
    samples = list(range(scans))
    sources = [
        EpochSource(samples, per_step, seed=seed, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    rng = np.random.default_rng(0)
    found = []
    for source in sources:
        source.rebuild(start)
    for step in range(start, start + steps):
        drawn = []
        for source in sources:
            source.advance(step, rng)
            drawn += [source.draw(rng) for _ in range(per_step)]
        found.append(sorted(drawn))
    return found


@settings(max_examples=50, deadline=None)
@given(
    scans=st.integers(1, 12),
    per_process=st.integers(1, 3),
    processes=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_an_epoch_shows_each_scan_once_for_any_number_of_processes(
    scans, per_process, processes, seed
):
    per_step = per_process * processes
    several = steps_of(scans, per_process, processes, 2 * scans, seed)
    assert several == steps_of(scans, per_step, 1, 2 * scans, seed)
    one_by_one = [found for (found,) in steps_of(scans, 1, 1, 3 * scans, seed)]
    for epoch in range(3):
        assert sorted(one_by_one[epoch * scans : (epoch + 1) * scans]) == list(range(scans))


def test_a_source_starts_anywhere_and_shuffles_each_epoch():
    whole = steps_of(7, 2, 1, 20)
    assert steps_of(7, 2, 1, 5, start=15) == whole[15:]
    orders = {tuple(map(tuple, steps_of(7, 1, 1, 7, seed=seed))) for seed in range(5)}
    assert len(orders) == 5
    one = steps_of(7, 1, 1, 14)
    assert one[:7] != one[7:]
    with pytest.raises(ValueError, match="no training samples"):
        EpochSource([], 1, seed=0)


class QuickPool(BrainPool):
    """Brains of noise: the seed decides all, as with the simulator."""

    def __init__(self, size: int = 3) -> None:
        shape = (16,) * 3
        super().__init__(
            SimulationAssets([]), shape, size=size, classes=("MS", "NMOSD"), nmosd_share=0.5
        )

    def refresh(self, rng: np.random.Generator) -> None:
        image = rng.normal(0, 1, self.shape).astype(np.float16)
        self.brains.append(Sample(image, np.ones(self.shape, np.uint8), int(rng.integers(2))))


@pytest.mark.parametrize("fill", [2, 5])
@pytest.mark.parametrize("refresh_every", [1, 2, 3])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
def test_a_rebuilt_pool_is_that_of_an_undisturbed_training(step, refresh_every, fill):
    whole, rebuilt = (
        SimulatedSource(QuickPool(), seed=4, refresh_every=refresh_every, fill=fill)
        for _ in range(2)
    )
    whole.rebuild(0)
    for earlier in range(step):
        whole.advance(earlier, generator(4, Stream.ADVANCE, earlier, 0))
    rebuilt.rebuild(step)
    assert len(rebuilt.pool.brains) == len(whole.pool.brains)
    for one, other in zip(rebuilt.pool.brains, whole.pool.brains, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_classes_take_turns():
    source = SimulatedSource(
        QuickPool(size=12), seed=0, fill=12, samples_per_step=3, turns=True, refresh_every=100
    )
    source.rebuild(0)
    drawn = []
    for step in range(1, 5):
        source.advance(step, np.random.default_rng(0))
        drawn += [source.draw(np.random.default_rng(step)).diagnosis for _ in range(3)]
    assert drawn == [1, 0] * 6


def test_a_batch_tells_what_is_known():
    samples = make_samples(4)
    batch = collate(samples)
    assert batch.image.shape == batch.mask.shape == (4, 1, 16, 16, 16)
    assert batch.image.dtype == torch.float32
    assert batch.has_mask.tolist() == [True, True, False, True]
    assert batch.has_diagnosis.tolist() == [True, True, True, False]
    assert len(batch.part(1, 3)) == 2
    assert batch.part(1, 3).has_mask.tolist() == [True, False]
    np.testing.assert_array_equal(batch.mask[1, 0], samples[1].lesions)
    few = collate(samples, classify_without_lesions=False)
    assert few.has_diagnosis.tolist() == [False, True, True, False]  # the first mask is empty


def test_shapes_of_a_batch_must_agree():
    with pytest.raises(BadInputError, match=r"sub-00: is \(32, 32, 32\).*one shape"):
        collate([*make_samples(1), *make_samples(1, side=32)])
