"""The pool of simulated brains and the crops."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.training.pool import Brain, BrainPool, random_crop


def make_pool(head, size=2, nmosd_share=0.5) -> BrainPool:
    return BrainPool(
        [head], None, (32, 32, 32), size=size, classes=("MS", "NMOSD"), nmosd_share=nmosd_share
    )


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


def brain_with_a_lesion() -> Brain:
    image = np.arange(24**3, dtype=np.float32).reshape(24, 24, 24) / 1e4 + 0.1
    image[:2] = 0
    lesions = np.zeros((24, 24, 24), np.uint8)
    lesions[5:7, 18:20, 12] = 1
    return Brain(image.astype(np.float16), lesions, 0)


def test_crops_hold_matching_image_and_lesions():
    brain = brain_with_a_lesion()
    values = {float(v) for v in brain.image[brain.lesions > 0]}
    with_lesion = 0
    for seed in range(40):
        image, lesions = random_crop(brain, 8, np.random.default_rng(seed), on_lesion=1.0)
        assert image.shape == lesions.shape == (8, 8, 8)
        assert image.dtype == lesions.dtype == np.float32
        assert {float(v) for v in image[lesions > 0]} <= values
        with_lesion += lesions.any()
    assert with_lesion == 40  # the jitter keeps the chosen voxel inside


def test_crops_are_mirrored_in_half_of_the_cases():
    brain = brain_with_a_lesion()
    forward = 0
    for seed in range(60):
        image, _ = random_crop(brain, 24, np.random.default_rng(seed))
        if np.array_equal(image, brain.image):
            forward += 1
        else:
            np.testing.assert_array_equal(image[::-1], brain.image)
    assert 15 < forward < 45


def test_crops_of_a_brain_without_lesions_lie_in_the_brain():
    brain = brain_with_a_lesion()
    healthy = Brain(brain.image, np.zeros_like(brain.lesions), 0)
    for seed in range(10):
        image, lesions = random_crop(healthy, 8, np.random.default_rng(seed), on_lesion=1.0)
        assert image.any()
        assert not lesions.any()


def test_a_class_is_drawn_with_lesions_where_the_pool_has_it(ball_head):
    pool = make_pool(ball_head, size=4)
    empty = np.zeros((4, 4, 4), np.uint8)
    full = np.ones_like(empty)
    image = np.zeros(empty.shape, np.float16)
    brains = [Brain(image, full, 0), Brain(image, empty, 1), Brain(image, full, 1)]
    pool.brains.extend(brains)
    rng = np.random.default_rng(0)
    assert all(pool.draw(rng, 1) is brains[2] for _ in range(20))
    assert {id(pool.draw(rng)) for _ in range(50)} == {id(brain) for brain in brains}
    pool.brains.pop()
    assert id(pool.draw(rng, 1)) in {id(brain) for brain in pool.brains}  # better than none
