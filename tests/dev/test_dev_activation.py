"""What the class activation map of a prediction shows."""

from __future__ import annotations

import numpy as np
import pytest

from dev.activation import (
    MARKED_SHARE,
    cam_scores,
    compare_activation,
    contrast,
    delete_activated,
    marked,
    mirrored_elsewhere,
    remove_tissue,
)
from msnmo_bids.model.inference import Prediction

SHAPE = (20, 20, 20)
BRAIN = np.ones((20, 12, 10), bool)
LESION = np.zeros_like(BRAIN)
LESION[3:5, 4:6, 4:6] = True
BRIGHT = (slice(2, 6), slice(8, 13), slice(8, 13))  # left half; more than what a map marks


def predict_from_brightness(volume: np.ndarray, *, gain: float = 1.0) -> Prediction:
    """Speak for the second of two classes as much as a place is bright, and nothing else is."""
    cams = np.zeros((2, *SHAPE))
    cams[(1, *BRIGHT)] = gain * (volume[BRIGHT] - 1.0)
    logits = cams.sum(axis=(1, 2, 3))
    second = 1 / (1 + np.exp(logits[0] - logits[1]))
    return Prediction(None, cams, np.array([1 - second, second]), logits, ("A", "B"))


@pytest.fixture
def cube():
    volume = np.ones(SHAPE)
    volume[BRIGHT] = 3.0 + np.random.default_rng(0).random(volume[BRIGHT].shape)
    return volume


def test_the_map_of_the_likeliest_class_is_compared_on_the_own_grid(cube):
    lesions = np.zeros((20, 20, 40), bool)
    lesions[2:6, 8:13, 16:26] = True
    found = predict_from_brightness(cube)

    def to_native(cam: np.ndarray) -> np.ndarray:
        return np.repeat(cam, 2, axis=2)

    measures = compare_activation(found, to_native, lesions, np.ones_like(lesions), (1, 1, 0.5))
    assert (measures["cam_inside"], measures["cam_hit"]) == (1.0, 1.0)
    # Speaking against the second class is speaking for the first, by as much and there.
    against = predict_from_brightness(cube, gain=-1.0)
    assert against.class_probabilities.argmax() == 0
    assert compare_activation(against, to_native, lesions, lesions, (1, 1, 0.5)) == pytest.approx(
        compare_activation(found, to_native, lesions, lesions, (1, 1, 0.5))
    )


def test_the_margin_falls_without_what_is_marked_and_not_without_the_other_side(cube):
    found = predict_from_brightness(cube)
    falls = delete_activated(cube, found, predict_from_brightness)
    assert falls["fall_without_mirrored"] == 0
    # The brightest voxels go, each of which counts at least 2 beyond the tissue around.
    assert falls["fall_without_marked"] >= 2 * MARKED_SHARE * cube.size


def test_a_map_on_the_lesion_and_one_beside_it():
    on = cam_scores(LESION * 3.0, LESION, BRAIN, (1, 1, 1))
    assert (on["cam_inside"], on["cam_hit"]) == (1.0, 1.0)
    beside = cam_scores(LESION[::-1] * 3.0, LESION, BRAIN, (1, 1, 1))
    assert (beside["cam_inside"], beside["cam_hit"]) == (0.0, 0.0)
    flat = cam_scores(np.ones(BRAIN.shape), LESION, BRAIN, (1, 1, 1))
    assert flat["cam_inside"] == pytest.approx(flat["cam_expected"])
    assert cam_scores(LESION * 3.0, LESION & False, BRAIN, (1, 1, 1))["cam_hit"] is None


def test_reach_is_in_millimetres():
    one_off = np.roll(LESION, 3, axis=0) * 1.0
    assert cam_scores(one_off, LESION, BRAIN, (1, 1, 1))["cam_inside"] == pytest.approx(0.5)
    assert cam_scores(one_off, LESION, BRAIN, (3, 3, 3))["cam_inside"] == 0
    assert cam_scores(one_off, LESION, BRAIN, (0.5, 1, 1))["cam_inside"] == 1


def test_negative_parts_and_the_outside_do_not_count():
    brain = BRAIN.copy()
    brain[10:] = False
    cam = LESION * 1.0 - np.roll(LESION, 3, axis=0) + 9.0 * ~brain
    assert cam_scores(cam, LESION, brain, (1, 1, 1))["cam_inside"] == 1


def test_contrast_is_against_the_mean():
    cams = np.stack([np.full((2, 2, 2), 3.0), np.full((2, 2, 2), 1.0)])
    assert (contrast(cams, 0) == 1).all()


def test_tissue_is_removed_and_as_much_on_the_other_side():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.1, BRAIN.shape).astype(np.float32) + 3 * LESION
    where = marked(image, BRAIN)
    assert where.sum() == pytest.approx(0.01 * BRAIN.sum(), abs=1)
    other = mirrored_elsewhere(where, BRAIN)
    assert not (other & where).any()
    assert other.sum() >= where.sum() - 2
    without = remove_tissue(image, LESION, BRAIN)
    assert abs(without[LESION].mean()) < 0.1
    np.testing.assert_array_equal(without[~LESION], image[~LESION])
    assert remove_tissue(image, BRAIN, BRAIN) is not image
