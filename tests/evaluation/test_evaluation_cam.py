"""Class activation maps against lesions, and the removal of tissue."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.evaluation.cam import (
    cam_scores,
    contrast,
    marked,
    mirrored_elsewhere,
    remove_tissue,
)

BRAIN = np.ones((20, 12, 10), bool)
LESION = np.zeros_like(BRAIN)
LESION[3:5, 4:6, 4:6] = True


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
