"""Rounding, threshold, smallest volume, labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    smooth=st.floats(0, 1.5),
    threshold=st.sampled_from([0.2, 0.5, 0.8]),
    voxel_volume=st.floats(0.3, 8.0),
    min_volume=st.floats(0, 40),
)
def test_properties(seed, shape, smooth, threshold, voxel_volume, min_volume):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), smooth)
    values = (noise - noise.min()) / max(np.ptp(noise), 1e-9) * 1.25 - 0.125
    probability = np.rint(values.clip(0, 1) * 4096) / 4096
    found = find_lesions(values, voxel_volume, LesionCriteria(threshold, min_volume))
    written, mask, labels = found
    assert (written.dtype, mask.dtype, labels.dtype) == (np.float32, np.uint8, np.int32)
    assert mask.shape == labels.shape == shape
    np.testing.assert_array_equal(mask > 0, labels > 0)

    above = probability > threshold
    assert not (mask.astype(bool) & ~above).any()
    components, _ = ndimage.label(above, np.ones((3, 3, 3)))
    for part in range(1, components.max() + 1):
        inside = components == part
        kept = inside.sum() * voxel_volume >= min_volume - 1e-9
        assert (mask[inside] == kept).all()
        assert np.unique(labels[inside]).size == 1  # a lesion is not split

    count = int(labels.max(initial=0))
    counts = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    assert (counts > 0).all()  # 1 to n without a gap
    assert (np.diff(counts) <= 0).all()  # by decreasing volume
    assert counts.sum() * voxel_volume == pytest.approx(mask.sum() * voxel_volume)
    _, again = ndimage.label(mask, np.ones((3, 3, 3)))
    assert again == count  # no two lesions share a label, none touch

    np.testing.assert_array_equal(written > threshold, mask > 0)
    np.testing.assert_array_equal(written.astype(np.float64) > threshold, mask > 0)
    kept_as_it_is = (mask > 0) | (probability <= threshold)
    np.testing.assert_array_equal(written[kept_as_it_is], probability[kept_as_it_is])
    assert (written[~kept_as_it_is] > threshold - 1 / 4096).all()  # a dropped lesion is still seen


def test_without_a_smallest_volume_the_mask_is_the_threshold():
    probability = np.random.default_rng(0).random((9, 8, 7))
    mask = find_lesions(probability, 1.0, LesionCriteria(0.5, 0)).mask
    np.testing.assert_array_equal(mask, np.rint(probability * 4096) > 2048)


@pytest.mark.parametrize(("value", "lesion"), [(0.5, 0), (0.50001, 0), (0.5002, 1)])
def test_the_written_probability_must_be_above_the_threshold(value, lesion):
    found = find_lesions(np.full((3, 3, 3), value), 1.0, LesionCriteria(0.5, 0))
    assert found.mask.max() == found.labels.max() == lesion
    assert (found.probability.max() > 0.5) == lesion


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"threshold": -0.1}, {"min_volume": -1}])
def test_criteria_out_of_range(wrong):
    with pytest.raises(ValueError, match="must be"):
        LesionCriteria(**wrong)


def test_corners_connect():
    probability = np.zeros((5, 5, 5))
    probability[0, 0, 0] = probability[1, 1, 1] = probability[2, 2, 2] = 1
    probability[4, 4, 4] = 1
    labels = find_lesions(probability, 1.0, LesionCriteria(0.5, 0)).labels
    assert labels[0, 0, 0] == labels[1, 1, 1] == labels[2, 2, 2] == 1
    assert labels[4, 4, 4] == 2


@pytest.mark.parametrize(("min_volume", "kept"), [(2.9, 1), (3.0, 1), (3.1, 0)])
def test_smallest_volume_is_kept_at_equality(min_volume, kept):
    """Ten voxels of 0.3 mm³ are 3 mm³, whatever floating point makes of it."""
    probability = np.zeros((12, 3, 3))
    probability[:10, 1, 1] = 0.9
    criteria = LesionCriteria(0.5, min_volume)
    assert find_lesions(probability, 0.3, criteria).labels.max() == kept


def test_ties_are_in_the_order_of_the_array():
    probability = np.zeros((9, 3, 3))
    probability[[0, 2, 4, 6]] = 0.0
    probability[6, 0, 0] = probability[2, 0, 0] = probability[8, 0, 0] = 1
    probability[4, 0, :2] = 1
    labels = find_lesions(probability, 1.0, LesionCriteria(0.5, 0)).labels
    assert labels[[4, 2, 6, 8], 0, 0].tolist() == [1, 2, 3, 4]
