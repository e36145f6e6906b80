"""Augmentation: image and mask move together; crops; batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import make_samples

from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.samples import Sample
from msnmo_bids.training.batches import augment, collate, random_crop
from msnmo_bids.training.config import TrainingConfig

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
    config = TrainingConfig(flip=0.5, rotation=0.5, intensity=0.5)
    one, other, third = (
        augment(ball(), config, np.random.default_rng(seed)).image for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


def test_changes_of_intensity_spare_background_and_mask():
    sample = ball()
    found = augment(sample, replace(NONE, intensity=1.0), np.random.default_rng(0))
    assert not found.image[sample.image == 0].any()
    brain = sample.image != 0
    assert not np.allclose(found.image[brain], sample.image[brain], atol=1e-3)
    np.testing.assert_array_equal(found.lesions, sample.lesions)


def with_a_lesion() -> Sample:
    image = np.arange(24**3, dtype=np.float32).reshape(24, 24, 24) / 1e4 + 0.1
    image[:2] = 0
    lesions = np.zeros((24, 24, 24), np.uint8)
    lesions[5:7, 18:20, 12] = 1
    return Sample(image.astype(np.float16), lesions, 0)


def test_crops_hold_matching_image_and_lesions():
    sample = with_a_lesion()
    values = {float(v) for v in sample.image[sample.lesions > 0]}
    for seed in range(40):
        crop = random_crop(sample, 8, np.random.default_rng(seed), on_lesion=1.0)
        assert crop.image.shape == crop.lesions.shape == (8, 8, 8)
        assert {float(v) for v in crop.image[crop.lesions > 0]} <= values
        assert crop.lesions.any()  # the jitter keeps the chosen voxel inside


@pytest.mark.parametrize("lesions", [None, np.zeros((24, 24, 24), np.uint8)])
def test_crops_without_lesions_lie_in_the_brain(lesions):
    sample = replace(with_a_lesion(), lesions=lesions)
    for seed in range(10):
        crop = random_crop(sample, 8, np.random.default_rng(seed), on_lesion=1.0)
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
    few = collate(samples, classify_without_lesions=False)
    assert few.has_diagnosis.tolist() == [False, True, True, False]  # the first mask is empty


def test_shapes_of_a_batch_must_agree():
    with pytest.raises(BadInputError, match=r"sub-00: is \(32, 32, 32\).*one shape"):
        collate([*make_samples(1), *make_samples(1, side=32)])
