"""Samples: scans in epochs, simulated brains, both mixed; augmented, cropped, in batches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import make_samples

from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.sample_file import Sample
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.training import samples
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.samples import (
    EpochSource,
    MixedSource,
    PreparedSamples,
    SimulatedSource,
    Stream,
    augment,
    collate,
    generator,
    random_crop,
)

CUBE = np.zeros((2, 2, 2), np.float16)


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


class QuickSource(SimulatedSource):
    """Brains of noise: the seed decides all, as with the simulator."""

    def refresh(self, rng: np.random.Generator) -> None:
        image = rng.normal(0, 1, self.shape).astype(np.float16)
        self.brains.append(Sample(image, np.ones(self.shape, np.uint8), int(rng.integers(2))))


@pytest.mark.parametrize("fill", [2, 5])
@pytest.mark.parametrize("refresh_every", [1, 2, 3])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
def test_a_rebuilt_pool_is_that_of_an_undisturbed_training(step, refresh_every, fill):
    whole, rebuilt = (
        QuickSource(SimulationAssets([]), (16,) * 3, classes=("MS", "NMOSD"), seed=4, size=3)
        for _ in range(2)
    )
    for pool in (whole, rebuilt):
        pool.refresh_every, pool.fill = refresh_every, fill
    whole.rebuild(0)
    for earlier in range(step):
        whole.advance(earlier, generator(4, Stream.ADVANCE, earlier, 0))
    rebuilt.rebuild(step)
    assert len(rebuilt.brains) == len(whole.brains)
    for one, other in zip(rebuilt.brains, whole.brains, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def make_pool(head, size=2, nmosd_share=0.5, classes=("MS", "NMOSD")) -> SimulatedSource:
    pool = SimulatedSource(SimulationAssets([head]), (32, 32, 32), size=size, classes=classes)
    pool.nmosd_share = nmosd_share
    return pool


def test_refresh_simulates_and_drops_the_oldest(ball_head):
    pool = make_pool(ball_head)
    for seed in range(3):
        pool.refresh(np.random.default_rng(seed))
    again = make_pool(ball_head, size=1)
    again.refresh(np.random.default_rng(2))
    assert len(pool.brains) == 2
    newest = pool.brains[-1]
    np.testing.assert_array_equal(newest.image, again.brains[0].image)
    assert newest.image.dtype == np.float16
    assert newest.image.shape == newest.lesions.shape == (32, 32, 32)
    assert np.isfinite(newest.image).all()
    brain = newest.image[newest.image != 0].astype(np.float32)
    assert abs(brain.mean()) < 0.01
    assert brain.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("share", "label"), [(0.0, 0), (1.0, 1)])
def test_class_labels_follow_the_order_of_the_classes(ball_head, share, label):
    pool = make_pool(ball_head, nmosd_share=share)
    pool.refresh(np.random.default_rng(0))
    assert pool.brains[0].diagnosis == label


@pytest.mark.parametrize(("share", "label"), [(0.0, 1), (1.0, 2)])
def test_a_brain_without_lesions_is_healthy_where_that_is_a_class(ball_head, share, label):
    pool = make_pool(ball_head, nmosd_share=1.0, classes=("MS", "NMOSD", "HC"))
    pool.lesion_free_share = share
    pool.refresh(np.random.default_rng(0))
    (only,) = pool.brains
    assert only.diagnosis == label
    assert only.lesions.any() == (label == 1)


@dataclass
class Scan:
    """Stands for a prepared scan and counts how often it is read."""

    name: str
    loaded: list[str] = field(default_factory=list)

    def load(self, classes) -> Sample:
        self.loaded.append(self.name)
        return Sample(CUBE, None, classes.index("NMOSD"), self.name)


class Source:
    """Gives its name and the draw's random number, and notes what was asked."""

    def __init__(self, name: str, calls: list, length: int = 10) -> None:
        self.name, self.calls, self.length = name, calls, length

    def __len__(self) -> int:
        return self.length

    def rebuild(self, step):
        self.calls.append((self.name, "rebuild", step))

    def advance(self, step, rng):
        self.calls.append((self.name, "advance", step, rng.random()))

    def draw(self, rng):
        return Sample(CUBE, None, None, f"{self.name} {rng.random():.6f}")


def mixed(share: float, **options) -> MixedSource:
    calls: list = []
    return MixedSource(Source("real", calls, **options), Source("simulated", calls), share)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_share_of_simulated_samples(share):
    source = mixed(share)
    rng = np.random.default_rng(1)
    names = [source.draw(rng).name.split()[0] for _ in range(2000)]
    assert names.count("simulated") / 2000 == pytest.approx(share, abs=0.03)


def test_a_draw_depends_on_its_generator_alone():
    undisturbed, resumed = mixed(0.5), mixed(0.5)
    drawn = [undisturbed.draw(np.random.default_rng((7, n))).name for n in range(30)]
    later = [resumed.draw(np.random.default_rng((7, n))).name for n in range(20, 30)]
    assert later == drawn[20:]
    assert {name.split()[0] for name in drawn} == {"real", "simulated"}


def test_both_sources_follow_the_steps_and_the_simulator_comes_first():
    source = mixed(0.5)
    source.rebuild(4)
    source.advance(4, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert sorted(source.real.calls[:2]) == [("real", "rebuild", 4), ("simulated", "rebuild", 4)]
    assert source.real.calls[2:] == [
        ("simulated", "advance", 4, rng.random()),
        ("real", "advance", 4, rng.random()),
    ]


@pytest.mark.parametrize(("share", "length"), [(0.0, 12), (0.5, 24), (0.75, 48)])
def test_an_epoch_has_room_for_all_real_scans(share, length):
    assert len(mixed(share, length=12)) == length


def test_scans_are_read_when_they_are_needed_and_few_are_kept(monkeypatch):
    monkeypatch.setattr(samples, "KEPT", 2)
    loaded: list[str] = []
    scans = [Scan(f"s{n}", loaded) for n in range(4)]
    found = PreparedSamples(scans, ("MS", "NMOSD"))
    assert len(found) == 4
    assert loaded == []
    assert found[1] is found[1]
    assert (found[1].name, found[1].diagnosis) == ("s1", 1)
    assert found[3].name == "s3"
    assert loaded == ["s1", "s3"]
    assert found[1].name == "s1"  # used last: s3 goes before it
    assert found[0].name == "s0"
    assert found[1].name == "s1"
    assert loaded == ["s1", "s3", "s0"]
    assert found[3].name == "s3"
    assert loaded == ["s1", "s3", "s0", "s3"]
    with pytest.raises(IndexError):
        found[4]


NONE = TrainingConfig(flip=0.0, rotation=0.0)


def ball(side: int = 24) -> Sample:
    """A ball of distinct values with a bright lesion of 5 x 4 x 3 voxels off its centre."""
    radius = np.linalg.norm(np.indices((side,) * 3) - (side - 1) / 2, axis=0)
    image = np.where(radius < side / 3, 1 + np.arange(side**3).reshape((side,) * 3) / side**3, 0)
    lesions = np.zeros((side,) * 3, np.uint8)
    lesions[13:18, 12:16, 10:13] = 1
    image[lesions > 0] = 8.0
    return Sample(image.astype(np.float16), lesions, 1, "ball")


def test_without_augmentation_the_sample_is_returned():
    sample = ball()
    assert augment(sample, NONE, np.random.default_rng(0)) is sample


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_flip_mirrors_image_and_mask_along_one_axis(seed):
    sample = ball()
    found = augment(sample, replace(NONE, flip=1.0), np.random.default_rng(seed))
    matching = [
        axis for axis in range(3) if np.array_equal(found.image, np.flip(sample.image, axis))
    ]
    assert len(matching) == 1
    np.testing.assert_array_equal(found.lesions, np.flip(sample.lesions, matching[0]))
    assert (found.diagnosis, found.name) == (1, "ball")


def test_all_axes_are_chosen_and_only_those_allowed():
    sample = ball()

    def axes(config):
        chosen = set()
        for seed in range(30):
            image = augment(sample, config, np.random.default_rng(seed)).image
            chosen |= {a for a in range(3) if np.array_equal(image, np.flip(sample.image, a))}
        return chosen

    assert axes(replace(NONE, flip=1.0)) == {0, 1, 2}
    assert axes(replace(NONE, flip=1.0, flip_axes=(0,))) == {0}


def test_each_happens_in_half_of_the_cases():
    sample = ball(16)
    for config in (replace(NONE, flip=0.5), replace(NONE, rotation=0.5)):
        same = sum(
            np.array_equal(augment(sample, config, np.random.default_rng(n)).image, sample.image)
            for n in range(60)
        )
        assert 15 < same < 45


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_rotation_moves_image_and_mask_together(seed):
    """The lesion is the brightest of all: where the mask is, the image must be bright."""
    sample = ball()
    found = augment(sample, replace(NONE, rotation=1.0), np.random.default_rng(seed))
    assert found.lesions is not None
    assert set(np.unique(found.lesions)) == {0, 1}
    assert found.image.shape == found.lesions.shape == sample.image.shape
    assert 30 < found.lesions.sum() < 100
    assert found.image[found.lesions > 0].mean() > 6
    assert found.image[found.lesions == 0].max() < 8
    assert not found.image[0].any()
    assert not np.array_equal(found.image, sample.image)


def test_a_sample_without_mask_stays_without():
    sample = replace(ball(), lesions=None)
    config = TrainingConfig(flip=1.0, rotation=1.0)
    assert augment(sample, config, np.random.default_rng(0)).lesions is None


def test_the_generator_decides():
    config = TrainingConfig(flip=0.5, rotation=0.5)
    one, other, third = (
        augment(ball(), config, np.random.default_rng(seed)).image for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


def with_a_lesion() -> Sample:
    image = np.arange(24**3, dtype=np.float32).reshape(24, 24, 24) / 1e4 + 0.1
    image[:2] = 0
    lesions = np.zeros((24, 24, 24), np.uint8)
    lesions[5:7, 18:20, 12] = 1
    return Sample(image.astype(np.float16), lesions, 0)


def test_crops_hold_matching_image_and_lesions(monkeypatch):
    monkeypatch.setattr(samples, "ON_LESION", 1.0)
    sample = with_a_lesion()
    values = {float(v) for v in sample.image[sample.lesions > 0]}
    for seed in range(40):
        crop = random_crop(sample, 8, np.random.default_rng(seed))
        assert crop.image.shape == crop.lesions.shape == (8, 8, 8)
        assert {float(v) for v in crop.image[crop.lesions > 0]} <= values
        assert crop.lesions.any()  # the jitter keeps the chosen voxel inside


@pytest.mark.parametrize("lesions", [None, np.zeros((24, 24, 24), np.uint8)])
def test_crops_without_lesions_lie_in_the_brain(lesions, monkeypatch):
    monkeypatch.setattr(samples, "ON_LESION", 1.0)
    sample = replace(with_a_lesion(), lesions=lesions)
    for seed in range(10):
        crop = random_crop(sample, 8, np.random.default_rng(seed))
        assert crop.image.any()
        assert crop.lesions is None or not crop.lesions.any()


def test_a_crop_of_the_whole_side_is_the_sample():
    sample = with_a_lesion()
    crop = random_crop(sample, 24, np.random.default_rng(0))
    np.testing.assert_array_equal(crop.image, sample.image)
    empty = Sample(np.zeros((8, 8, 8), np.float16), None, None)
    assert random_crop(empty, 4, np.random.default_rng(0)).image.shape == (4, 4, 4)
    with pytest.raises(ValueError, match="more than the sample"):
        random_crop(sample, 32, np.random.default_rng(0))


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


def test_shapes_of_a_batch_must_agree():
    with pytest.raises(BadInputError, match=r"sub-00: is \(32, 32, 32\).*one shape"):
        collate([*make_samples(1), *make_samples(1, side=32)])
