"""Outlines of lesions at half of their contrast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from msnmo_bids.lesions.outline import REACH_MM, outline_by_contrast

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


def test_arrays_must_have_one_shape():
    with pytest.raises(ValueError, match="shapes differ"):
        outline_by_contrast(
            np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), np.ones((2, 2, 2), bool), (1, 1, 1),
            threshold=0.5,
        )  # fmt: skip
