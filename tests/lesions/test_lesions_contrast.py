"""Outlines at half of a lesion's contrast, and findings that are too bright for a lesion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from msnmo_bids.lesions.contrast import (
    MOST_CONTRAST,
    REACH_MM,
    drop_too_bright,
    outline_by_contrast,
)

_THRESHOLD = 0.6


def _ball(radius: float, zooms=(1.0, 1.0, 1.0), side_mm: float = 40.0) -> np.ndarray:
    """Distance of each voxel from the middle (mm) is below the radius."""
    axes = [np.arange(round(side_mm / size)) * size - side_mm / 2 for size in zooms]
    return np.linalg.norm(np.stack(np.meshgrid(*axes, indexing="ij")), axis=0) < radius


def _scan(radius: float, brightness: float, zooms=(1.0, 1.0, 1.0)) -> np.ndarray:
    """White matter of 1 with noise and a blurred bright ball."""
    ball = _ball(radius, zooms).astype(float)
    blurred = ndimage.gaussian_filter(ball, [0.7 / size for size in zooms])
    noise = np.random.default_rng(0).normal(0, 0.02, ball.shape)
    return 1 + (brightness - 1) * blurred + noise


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("found", [5.5, 8.5], ids=["too small", "too large"])
@pytest.mark.parametrize("zooms", [(1.0, 1.0, 1.0), (0.9, 0.9, 4.0)], ids=["3D", "slices"])
def test_an_outline_moves_to_the_edge_of_a_bright_ball(found, zooms):
    truth = _ball(6.0, zooms)
    sigma = [2 / size for size in zooms]
    before = ndimage.gaussian_filter(_ball(found, zooms).astype(float), sigma)
    brain = np.ones(truth.shape, bool)
    after = outline_by_contrast(before, _scan(6.0, 1.7, zooms), brain, zooms, threshold=_THRESHOLD)
    first, moved = before > _THRESHOLD, after > _THRESHOLD
    assert _dice(moved, truth) > max(0.88, _dice(first, truth) + 0.05)


def test_the_unit_of_the_image_and_a_smooth_bias_do_not_matter():
    truth = _ball(6.0)
    image = _scan(6.0, 1.7)
    before = ndimage.gaussian_filter(_ball(4.5).astype(float), 1)
    brain = np.ones(truth.shape, bool)

    def outlined(scan):
        return outline_by_contrast(before, scan, brain, (1, 1, 1), threshold=_THRESHOLD)

    np.testing.assert_allclose(outlined(image), outlined(870.0 * image), atol=1e-4)
    bias = np.linspace(0.8, 1.25, truth.shape[0])[:, None, None]
    assert _dice(outlined(image) > _THRESHOLD, outlined(image * bias) > _THRESHOLD) > 0.95


def test_a_dim_lesion_does_not_grow():
    image = _scan(6.0, 1.15)
    before = ndimage.gaussian_filter(_ball(6.0).astype(float), 1)
    after = outline_by_contrast(
        before, image, np.ones(image.shape, bool), (1, 1, 1), threshold=_THRESHOLD
    )
    assert 0 < (after > _THRESHOLD).sum() < (before > _THRESHOLD).sum()


def test_a_neighbouring_bright_structure_is_not_filled():
    """Bright tissue that the network does not mark stays out beyond the reach."""
    image = np.ones((30, 30, 8))
    image[5:25, 10:20] = 1.7
    before = np.full(image.shape, 0.05)
    before[5:12, 10:20] = 0.95
    after = outline_by_contrast(
        before, image, np.ones(image.shape, bool), (1, 1, 1), threshold=_THRESHOLD
    )
    assert not (after[12 + round(REACH_MM) :] > _THRESHOLD).any()
    np.testing.assert_array_equal(after[16:], before[16:].astype(np.float32))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    zooms=st.tuples(*[st.floats(0.6, 6.0)] * 3),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 4000.0]),
    brain_share=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_only_voxels_near_a_lesion_and_in_the_brain_change(seed, zooms, scale, brain_share):
    rng = np.random.default_rng(seed)
    probability = ndimage.gaussian_filter(rng.random((9, 8, 7)), 0.7).astype(np.float32)
    image = scale * rng.random(probability.shape)
    brain = rng.random(probability.shape) < brain_share
    after = outline_by_contrast(probability, image, brain, zooms, threshold=_THRESHOLD)
    assert after.dtype == np.float32
    assert after.min() >= 0
    assert after.max() <= 1
    away = ndimage.distance_transform_edt(~(probability > _THRESHOLD), sampling=zooms)
    far = (away > REACH_MM) | ~brain
    if not (probability > _THRESHOLD).any():
        far[...] = True
    np.testing.assert_array_equal(after[far], probability[far])


@pytest.mark.parametrize("change", [outline_by_contrast, drop_too_bright])
def test_arrays_must_have_one_shape(change):
    with pytest.raises(ValueError, match="shapes differ"):
        change(
            np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), np.ones((2, 2, 2), bool), (1, 1, 1),
            threshold=0.5,
        )  # fmt: skip


def _findings(*brightnesses: float) -> tuple[np.ndarray, np.ndarray]:
    """Return brain tissue of 1 with bright cubes, the first one the largest, and where they are."""
    image, places = np.ones((24 * len(brightnesses), 24, 24)), []
    for number, brightness in enumerate(brightnesses):
        half = 5 if number == 0 else 2
        middle = slice(12 - half, 12 + half)
        along = slice(24 * number + 12 - half, 24 * number + 12 + half)
        image[along, middle, middle] = brightness
        places.append(24 * number + 12)
    return 300.0 * image, np.array(places)


def _kept(image: np.ndarray, places: np.ndarray) -> list[bool]:
    found = np.where(image > 300.0, 0.9, 0.1)
    brain = np.ones(image.shape, bool)
    kept = drop_too_bright(found, image, brain, (1, 1, 1), threshold=_THRESHOLD)
    return (kept[places, 12, 12] > _THRESHOLD).tolist()


def test_what_is_far_brighter_than_the_lesions_is_none():
    assert _kept(*_findings(1.5, 1.8, 2.5)) == [True, True, False]


def test_where_lesions_are_bright_others_may_be():
    """An image with strong contrast: most of the lesion volume says what is usual there."""
    assert _kept(*_findings(1.9, 2.5)) == [True, True]
    assert _kept(*_findings(2.5)) == [True]


@given(st.lists(st.floats(1.05, 4.0), min_size=1, max_size=4))
@settings(deadline=None, max_examples=20)
def test_most_of_the_lesion_volume_and_all_that_is_dim_stays(brightnesses):
    kept = _kept(*_findings(*brightnesses))
    assert kept[0]
    dim = [brightness - 1 < MOST_CONTRAST - 0.05 for brightness in brightnesses]
    assert all(one for one, is_dim in zip(kept, dim, strict=True) if is_dim)


def test_a_bright_finding_without_tissue_around_it_stays():
    image = np.where(_ball(4.0), 3.0, 0.2)
    found = np.where(_ball(4.0), 0.9, 0.0)
    brain = np.ones(image.shape, bool)
    brain[:20] = False
    kept = drop_too_bright(found, image, brain, (1, 1, 1), threshold=_THRESHOLD)
    np.testing.assert_array_equal(kept, found.astype(np.float32))
