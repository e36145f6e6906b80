"""Half-way space, matching, change classes and rates, on small arrays."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from msnmo_bids.visits.compare import summary
from msnmo_bids.visits.halfway import border_width, halfway_space, resample, square_root
from msnmo_bids.visits.lesion_changes import Visit, classify, match_lesions
from msnmo_bids.vocabulary import CHANGE_REASONS, CHANGES

SHAPE = (48, 48, 48)
WIDTH = np.ones(3)
PLACE = np.indices(SHAPE)


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    return np.linalg.norm(PLACE - np.reshape(centre, (3, 1, 1, 1)), axis=0) < radius


def rigid(turn: list[float], shift: list[float]) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    motion[:3, 3] = shift
    return motion


def visit(lesions: np.ndarray, seed: int, bright: np.ndarray | None = None) -> Visit:
    """A brain of grey 100 with lesions of 150, noise, and what the mask says of them."""
    brain = ball((24, 24, 24), 22)
    noise = np.random.default_rng(seed).normal(0, 4, SHAPE)
    flair = 100 + 50 * (lesions if bright is None else bright) + noise
    return Visit((flair * brain).astype(np.float32), brain, lesions)


def changes_of(before: Visit, after: Visit) -> list[dict]:
    return classify(match_lesions(before.lesions, after.lesions, WIDTH), before, after, WIDTH)


angles = st.lists(st.floats(-50, 50), min_size=3, max_size=3)


@given(angles, angles)
def test_half_of_a_motion_twice_is_the_motion(turn, shift):
    half = square_root(rigid(turn, shift))
    assert np.allclose(half @ half, rigid(turn, shift), atol=1e-9)
    assert np.allclose(half[:3, :3] @ half[:3, :3].T, np.eye(3))


def test_both_visits_meet_in_the_half_way_space():
    motion = rigid([4, -6, 9], [3, -2, 5])
    affine = nib.affines.from_matvec(np.diag([1, 1, 2.5]), [-20, -25, -60])
    shape = (48, 48, 30)
    place = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    centre = np.array([4.0, -2, -20])
    images = [
        np.exp(-(np.linalg.norm(place - c, axis=-1) ** 2) / 60)
        for c in (centre, nib.affines.apply_affine(motion, centre))
    ]
    grid = (np.ones(shape, bool), affine)
    space = halfway_space(grid, grid, motion)
    peaks = [
        np.unravel_index(resample(image, affine, space, way).argmax(), space.shape)
        for image, way in zip(images, (space.to_earlier, space.to_later), strict=True)
    ]
    assert np.abs(np.subtract(*peaks)).max() <= 1
    assert np.allclose(space.to_later @ np.linalg.inv(space.to_earlier), motion)
    width = border_width([affine, affine], space)
    assert np.allclose(width, [1.0, 1.0, 1.75], atol=0.12)
    with pytest.raises(ValueError, match="empty"):
        halfway_space((np.zeros(shape, bool), affine), grid, motion)


def test_matching_joins_what_overlaps_or_moved_and_keeps_the_rest_apart():
    before = ball((12, 12, 24), 4) | ball((36, 12, 24), 2) | ball((30, 36, 24), 3)
    after = ball((13, 12, 24), 4) | ball((36, 14, 24), 2) | ball((20, 36, 24), 3)
    labels = match_lesions(before, after, np.full(3, 2.0))
    assert labels[12, 12, 24] == 1  # the largest
    assert labels[36, 12, 24] == labels[36, 14, 24]  # moved by two voxels
    assert labels[30, 36, 24] != labels[20, 36, 24]
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}
    assert ((labels > 0) == (before | after)).all()
    assert not match_lesions(before & False, after & False, WIDTH).any()


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (0, 3, "new"),
        (3, 0, "vanished"),
        (1.2, 5, "new"),
        (3, 4.5, "enlarging"),
        (4.5, 3, "shrinking"),
        (4, 4, "stable"),
        (4, 4.3, "stable"),
        (0, 1.1, "uncertain"),
    ],
)
def test_what_became_of_a_lesion(before, after, change):
    lesions = [ball((24, 20, 24), radius) for radius in (before, after)]
    [row] = changes_of(visit(lesions[0], 1), visit(lesions[1], 2))
    assert row["change"] == change
    assert row["volume_later_mm3"] == lesions[1].sum()
    assert (row["reason"] in CHANGE_REASONS) == (change == "uncertain")


def test_a_lesion_that_was_there_but_not_segmented_is_not_new():
    lesion, none = ball((24, 20, 24), 3), np.zeros(SHAPE, bool)
    [row] = changes_of(visit(none, 1, bright=lesion), visit(lesion, 2))
    assert (row["change"], row["reason"]) == ("uncertain", "no_difference")
    assert row["contrast_ratio"] == pytest.approx(1, abs=0.1)


def test_a_mask_that_grew_without_the_image_is_stable():
    small, large = ball((24, 20, 24), 3), ball((24, 20, 24), 5)
    [row] = changes_of(visit(small, 1, bright=large), visit(large, 2))
    assert row["change"] == "stable"


def test_what_the_other_visit_does_not_show_is_uncertain():
    lesion, none = ball((24, 20, 24), 3), np.zeros(SHAPE, bool)
    before, after = visit(none, 1), visit(lesion, 2)
    cut = before.brain & (PLACE[1] > 21)
    [row] = changes_of(Visit(before.flair, cut, none), after)
    assert (row["change"], row["reason"]) == ("uncertain", "not_covered")


def test_another_contrast_is_no_change():
    lesions = ball((24, 20, 24), 4) | ball((14, 24, 24), 4)
    before = visit(lesions, 1)
    after = Visit((7 * visit(lesions, 2).flair).astype(np.float32), before.brain, lesions)
    assert [row["change"] for row in changes_of(before, after)] == ["stable", "stable"]


def test_rates_need_time():
    table = [
        {"change": "new", "volume_earlier_mm3": 0.0, "volume_later_mm3": 500.0},
        {"change": "stable", "volume_earlier_mm3": 1000.0, "volume_later_mm3": 1000.0},
    ]
    found = summary(table, 730.5)
    assert found["Counts"] == {**dict.fromkeys(CHANGES, 0), "new": 1, "stable": 1}
    assert found["NewVolume"] == 0.5
    rates = {"New": 0.5, "Enlarging": 0.0, "VolumeChange": 0.25, "VolumeChangePercent": 25.0}
    assert found["RatesPerYear"] == rates
    assert summary(table, None)["RatesPerYear"] is summary(table, 20.0)["RatesPerYear"] is None
    assert summary([], 365.25)["RatesPerYear"]["VolumeChangePercent"] is None
