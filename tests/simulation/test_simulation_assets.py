"""What simulated scans are made of: heads, lesion shapes, and how often lesions lie at a place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msnmo_bids.simulation import assets
from msnmo_bids.simulation.anatomy import Head, Tissue
from msnmo_bids.simulation.assets import (
    ShapeLibrary,
    lesion_frequency,
    mni_affine,
    mni_head,
    with_frequency,
)
from msnmo_bids.simulation.deformation import deform
from msnmo_bids.simulation.lesion_placement import place_lesions
from msnmo_bids.simulation.stamping import Stamper

HORN = (-22.0, 30.0, 10.0)  # MNI mm, in the white matter beside the left frontal horn


def test_without_anatomy_there_is_the_head_of_the_mni_maps(monkeypatch, ball_head):
    monkeypatch.setattr(assets, "mni_head", lambda: ball_head)
    assert assets.load_assets(None) == assets.SimulationAssets([ball_head])


def test_heads_learn_where_the_lesions_of_a_library_lie(monkeypatch, ball_head):
    everywhere = np.indices((40, 40, 40)).reshape(3, -1).T * 4.0 - 80
    library = ShapeLibrary((), lesion_frequency([everywhere]))
    monkeypatch.setattr(assets, "load_shapes", lambda path: library)
    (head,) = assets.assets_with([ball_head], Path("shapes.npz")).heads
    assert head.frequency.any()
    assert not ball_head.frequency.any()


def lesion(centre: tuple[float, float, float], radius: int = 3) -> np.ndarray:
    axis = np.arange(-radius, radius + 1)
    ball = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return ball[(ball**2).sum(axis=1) <= radius**2] + np.array(centre)


@pytest.fixture(scope="module")
def brain() -> Head:
    return mni_head().cropped(12).resampled(2.0)


def test_a_sulcus_is_drawn_where_two_gyri_meet():
    tissue = np.zeros((50, 30, 30), np.uint8)
    tissue[1:-1, 1:-1, 1:-1] = Tissue.CORTEX
    for first in (6, 32):  # two gyri, 14 voxels of grey between them
        tissue[first : first + 12, 6:-6, 6:-6] = Tissue.WHITE_MATTER
    assets._fold(tissue)
    across = tissue[:, 15, 15]
    fluid = np.flatnonzero(across == Tissue.CSF)
    assert fluid.size, "no sulcus"
    np.testing.assert_allclose(fluid, 24.5, atol=1.5)  # midway from 17 to 32
    for step in (-1, 1):
        beside = across[fluid[0 if step < 0 else -1] + step :: step]
        cortex = np.flatnonzero(beside != Tissue.CORTEX)[0]
        assert 2 <= cortex <= 4, "cortex is 3 mm thick"
        assert beside[cortex] == Tissue.WHITE_MATTER
    assert {*across[6:18], *across[32:44]} == {Tissue.WHITE_MATTER}
    assert across[1] == Tissue.CORTEX, "the surface is cortex"


def test_the_mni_head_has_the_shares_of_a_person(brain):
    shares = np.bincount(brain.tissue.ravel(), minlength=len(Tissue))
    white, cortex = shares[Tissue.WHITE_MATTER], shares[Tissue.CORTEX]
    assert 0.5 < cortex / white < 0.9  # before the sulci were drawn: 1.5
    assert 0.1 < shares[Tissue.CSF] / (white + cortex) < 0.4


def test_lesions_are_counted_on_both_sides():
    found = lesion_frequency([lesion(HORN)])
    peaks = np.argwhere(found.values > 0.99) @ found.affine[:3, :3].T + found.affine[:3, 3]
    assert found.values.max() == 1.0
    np.testing.assert_array_equal(found.values, found.values[::-1])
    np.testing.assert_allclose(np.sort(peaks[:, 0])[[0, -1]], [-21, 21], atol=3)
    np.testing.assert_allclose(peaks[:, 1:], [HORN[1:]] * len(peaks), atol=3)


def test_a_confluent_lesion_does_not_hide_the_small_ones():
    small, large = lesion((-40.0, -50.0, 20.0), 2), lesion(HORN, 12)
    found = lesion_frequency([small, large])
    index = np.rint((small.mean(axis=0) - found.affine[:3, 3]) / found.affine[0, 0]).astype(int)
    share = len(small) / (len(small) + len(large))
    assert found.values[tuple(index)] > 2 * share


def test_no_lesion_and_lesions_outside_are_no_frequency():
    assert not lesion_frequency([]).values.any()
    assert not lesion_frequency([lesion((500.0, 0.0, 0.0))]).values.any()


def test_a_turned_and_scaled_head_is_registered(brain):
    """A point of the brain is found again within 5 mm, though the head was moved."""
    angle = np.deg2rad(6.0)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, :3] *= 1.06  # index of the moved head to index of the brain
    centre = (np.array(brain.tissue.shape) - 1) / 2
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    place = np.stack(np.meshgrid(*(np.arange(n) for n in brain.tissue.shape), indexing="ij"), -1)
    source = np.rint(place @ turn[:3, :3].T + turn[:3, 3]).astype(int)
    inside = ((source >= 0) & (source < brain.tissue.shape)).all(axis=-1)
    source = np.where(inside[..., None], source, 0)
    tissue = np.where(inside, brain.tissue[tuple(np.moveaxis(source, -1, 0))], Tissue.AIR)
    found = mni_affine(replace(brain, tissue=tissue.astype(np.uint8)))
    truth = brain.affine @ turn
    corners = np.array([[20, 20, 20, 1], [60, 80, 50, 1], [30, 60, 60, 1]]).T
    assert np.abs((found - truth) @ corners)[:3].max() < 5


def test_frequency_lies_where_the_lesions_do_and_moves_with_the_head(brain):
    head = with_frequency(brain, lesion_frequency([lesion(HORN)]))
    peaks = np.argwhere(head.frequency > 0.9 * head.frequency.max())
    x, y, z = (peaks @ head.affine[:3, :3].T + head.affine[:3, 3]).T
    assert (np.abs(x).mean(), y.mean(), z.mean()) == pytest.approx((22, 30, 10), abs=4)
    moved = deform(head, np.random.default_rng(3))
    assert moved.frequency.any()
    white = moved.frequency[moved.tissue == Tissue.WHITE_MATTER].mean()
    outside = moved.frequency[moved.tissue == Tissue.AIR].mean()
    assert white > 3 * outside


def test_lesions_of_ms_gather_where_they_are_frequent_and_others_do_not(brain):
    head = with_frequency(brain, lesion_frequency([lesion(HORN)]))
    near = {}
    for name, stamped in (("known", head), ("unknown", brain)):
        for diagnosis in ("MS", "NMOSD"):
            shares = []
            for seed in range(6):
                rng = np.random.default_rng(seed)
                lesions = place_lesions(stamped, diagnosis, 8.0, rng).mask
                shares.append(lesions[head.frequency > 100].sum() / lesions.sum())
            near[name, diagnosis] = np.mean(shares)
    assert near["known", "MS"] > 2 * near["unknown", "MS"]
    assert near["known", "NMOSD"] == near["unknown", "NMOSD"]


def test_a_place_without_lesions_is_not_excluded(brain):
    head = with_frequency(brain, lesion_frequency([lesion(HORN)]))
    stamper = Stamper(head, np.random.default_rng(0), None)
    voxels, sums = stamper.places.candidates("juxtacortical", gather=True)
    assert len(voxels) == len(stamper.places.candidates("juxtacortical")[0])
    assert np.diff(sums, prepend=0.0).min() > 0
    assert sums[-1] == 1.0
