"""What the class activation map of a prediction shows."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.evaluation.cam import MARKED_SHARE
from msnmo_bids.model.inference import Prediction
from msnmo_bids.training.activation import compare_activation, delete_activated

SHAPE = (20, 20, 20)
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
