"""Metrics of masks (the rules for empty ones, lesions, distances) and of class probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import calibration_binning
from scipy import ndimage
from sklearn.metrics import f1_score, precision_score, recall_score

from msnmo_bids.evaluation.metrics import (
    MASK_METRICS,
    VOLUMES,
    calibration_bins,
    calibration_error,
    compare_masks,
    lesion_wise,
    surface_distances,
)

EMPTY = np.zeros((12, 12, 12), dtype=bool)
masks = hnp.arrays(bool, (5, 4, 6))


def boxes(*corners, side: int = 2) -> np.ndarray:
    mask = EMPTY.copy()
    for x, y, z in corners:
        mask[x : x + side, y : y + side, z : z + side] = True
    return mask


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        (EMPTY, EMPTY, [1, None, None, None, 1, None, None, None, None]),
        (EMPTY, boxes((1, 1, 1)), [0, 0, None, None, 0, None, 1, None, None]),
        (boxes((1, 1, 1)), EMPTY, [0, None, 0, 1, 0, 0, None, None, None]),
        (boxes((1, 1, 1)), boxes((1, 1, 1)), [1, 1, 1, 0, 1, 1, 0, 0, 0]),
    ],
)
def test_empty_masks(truth, prediction, expected):
    measures = compare_masks(truth, prediction, (1, 1, 1))
    assert [measures[name] for name in MASK_METRICS] == expected
    assert list(measures) == [*MASK_METRICS, *VOLUMES]


def test_volumes_know_the_voxel_size():
    measures = compare_masks(boxes((0, 0, 0)), boxes((0, 0, 0), (5, 5, 5)), (1, 2, 3.5))
    assert measures["true_volume_ml"] == pytest.approx(8 * 7 / 1000)
    assert measures["predicted_volume_ml"] == pytest.approx(16 * 7 / 1000)
    assert measures["vd"] == 1


@settings(max_examples=40)
@given(masks, masks)
def test_voxel_metrics_are_those_of_scikit_learn(truth, prediction):
    assume(truth.any() and prediction.any())
    measures = compare_masks(truth, prediction, (1, 1, 1))
    flat = truth.ravel(), prediction.ravel()
    assert measures["dsc"] == pytest.approx(f1_score(*flat))
    assert measures["ppv"] == pytest.approx(precision_score(*flat))
    assert measures["tpr"] == pytest.approx(recall_score(*flat))
    assert measures["dsc"] <= (measures["ppv"] + measures["tpr"]) / 2 + 1e-12


@settings(max_examples=40)
@given(masks, masks)
def test_swapping_the_masks_swaps_what_is_found_and_what_is_true(truth, prediction):
    one = compare_masks(truth, prediction, (1, 1, 1))
    other = compare_masks(prediction, truth, (1, 1, 1))
    for name in ("dsc", "lesion_f1", "hd95", "assd"):
        assert one[name] == pytest.approx(other[name])
    assert one["ppv"] == pytest.approx(other["tpr"])
    if one["lesion_fpr"] is not None:
        assert 1 - one["lesion_fpr"] == pytest.approx(other["lesion_tpr"])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="two grids"):
        compare_masks(EMPTY, EMPTY[1:], (1, 1, 1))


def test_lesions_are_counted_once_each():
    truth = boxes((0, 0, 0), (5, 5, 5), (9, 0, 9))
    prediction = boxes((1, 1, 1), (9, 9, 0))  # one found by a corner, two missed, one false
    measures = lesion_wise(truth, prediction, (1, 1, 1))
    assert measures["lesion_tpr"] == pytest.approx(1 / 3)
    assert measures["lesion_fpr"] == pytest.approx(1 / 2)
    assert measures["lesion_f1"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_voxels_that_touch_by_a_corner_are_one_lesion():
    truth = boxes((0, 0, 0), (2, 2, 2))
    assert lesion_wise(truth, boxes((0, 0, 0)), (1, 1, 1))["lesion_tpr"] == 1


@pytest.mark.parametrize(("corner", "found"), [(1, 1), (2, 0)])
def test_one_common_voxel_is_enough(corner, found):
    """One of eight voxels is common, or none."""
    truth, prediction = boxes((0, 0, 0)), boxes((corner, corner, corner))
    measures = lesion_wise(truth, prediction, (1, 1, 1))
    assert measures["lesion_tpr"] == found
    assert measures["lesion_fpr"] == 1 - found


def test_small_lesions_are_not_counted_but_count_as_overlap():
    speck = boxes((5, 5, 5), side=1)
    truth, prediction = boxes((0, 0, 0)) | speck, boxes((0, 0, 0), (5, 5, 5))
    assert lesion_wise(truth, prediction, (1, 1, 1)) == {
        "lesion_f1": 1,
        "lesion_tpr": 1,
        "lesion_fpr": 0,
    }
    # 2 mm voxels: the speck is 8 mm³ and a lesion of its own.
    missed = lesion_wise(truth, boxes((0, 0, 0)), (2, 2, 2))
    assert missed["lesion_tpr"] == 0.5


def test_only_specks_to_find():
    """No lesion of a counted size: F1 is what is known, the share of true predictions."""
    measures = lesion_wise(boxes((5, 5, 5), side=1), boxes((5, 5, 5)), (1, 1, 1))
    assert measures == {"lesion_f1": 1, "lesion_tpr": None, "lesion_fpr": 0}


def surface(mask: np.ndarray) -> np.ndarray:
    return np.pad(mask, 1) & ~ndimage.binary_erosion(np.pad(mask, 1))


@settings(max_examples=40)
@given(masks, masks, st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3))
def test_distances_are_those_of_a_distance_transform(truth, prediction, zooms):
    assume(truth.any() and prediction.any())
    measures = surface_distances(truth, prediction, zooms)
    there, back = (
        ndimage.distance_transform_edt(~surface(b), sampling=zooms)[surface(a)]
        for a, b in ((prediction, truth), (truth, prediction))
    )
    assert measures["assd"] == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    assert measures["hd95"] == pytest.approx(hd95, rel=1e-5, abs=1e-5)


def test_a_shift_is_measured_in_mm():
    measures = surface_distances(boxes((2, 2, 2)), boxes((2, 2, 7)), (1, 1, 3))
    assert measures["hd95"] == pytest.approx(15)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.999)), min_size=1, max_size=40))
def test_calibration_is_that_of_monai(pairs):
    labels, scores = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if (np.abs(scores * 10 - np.round(scores * 10)) < 1e-6).any():
        return  # on a border of two bins MONAI chooses by its rounding
    found = calibration_bins(labels, scores)
    shape = (1, 1, len(scores))
    expected = calibration_binning(
        torch.tensor(scores).reshape(shape), torch.tensor(labels).reshape(shape), num_bins=10
    )
    filled = expected[2].flatten() > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.flatten()[filled].numpy(), rtol=1e-5)
    assert 0 <= calibration_error(labels, scores) <= 1


def test_a_sure_classifier_is_calibrated_when_it_is_right():
    assert calibration_error(np.array([0, 1]), np.array([0.0, 1.0])) == 0
    assert calibration_error(np.array([1, 0]), np.array([0.0, 1.0])) == 1
