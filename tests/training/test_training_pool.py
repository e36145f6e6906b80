"""The pool of simulated brains."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.labelled.samples import Sample
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.training.pool import BrainPool


def make_pool(head, size=2, nmosd_share=0.5, **more) -> BrainPool:
    return BrainPool(
        SimulationAssets([head]),
        (32, 32, 32),
        size=size,
        nmosd_share=nmosd_share,
        **{"classes": ("MS", "NMOSD"), **more},
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


@pytest.mark.parametrize(("share", "label"), [(0.0, 1), (1.0, 2)])
def test_a_brain_without_lesions_is_healthy_where_that_is_a_class(ball_head, share, label):
    pool = make_pool(
        ball_head, nmosd_share=1.0, classes=("MS", "NMOSD", "HC"), lesion_free_share=share
    )
    pool.refresh(np.random.default_rng(0))
    (only,) = pool.brains
    assert only.diagnosis == label
    assert only.lesions.any() == (label == 1)
    assert pool.draw(np.random.default_rng(0), label) is only


def test_a_class_is_drawn_with_lesions_where_the_pool_has_it(ball_head):
    pool = make_pool(ball_head, size=4)
    empty = np.zeros((4, 4, 4), np.uint8)
    full = np.ones_like(empty)
    image = np.zeros(empty.shape, np.float16)
    brains = [Sample(image, full, 0), Sample(image, empty, 1), Sample(image, full, 1)]
    pool.brains.extend(brains)
    rng = np.random.default_rng(0)
    assert all(pool.draw(rng, 1) is brains[2] for _ in range(20))
    assert {id(pool.draw(rng)) for _ in range(50)} == {id(brain) for brain in brains}
    pool.brains.pop()
    assert all(pool.draw(rng, 1) is brains[1] for _ in range(20))  # none of it has lesions
    pool.brains.pop()
    assert pool.draw(rng, 1) is brains[0]  # better than none
