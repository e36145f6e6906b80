"""Findings between the lateral ventricles and beyond the brain are given up; others are not."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from msnmo_bids.lesions.misplaced import SEPTUM_MM, between_ventricles, drop_misplaced
from msnmo_bids.lesions.regions import (
    DEEP,
    VENTRICLE,
    Regions,
    atlas_on_grid,
    load_atlas,
    refine,
)
from msnmo_bids.lesions.sites import NMOSD_SITES, SITES

_THRESHOLD = 0.6
_ZOOMS = (2.0, 2.0, 2.0)
_SEPTUM, _THALAMUS, _GENU, _HORN = (0, 10, 12), (12, -18, 8), (0, 34, 4), (19, 30, 6)
_CAVERNOUS_SINUS = (12, -4, -29)


def _head(matrix: np.ndarray, shape: tuple[int, ...], zooms) -> tuple[np.ndarray, Regions]:
    """Return the brain and the regions of the atlas's mean head, with the septum of one head.

    ``matrix`` leads from the index of this scan to that of the atlas.
    """
    _, flair, affine = load_atlas()
    prior = atlas_on_grid(matrix, shape)
    values = ndimage.affine_transform(
        flair, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1
    )
    brain = (prior.sum(axis=0) > 0.1) & (values > 0)
    regions = Regions(refine(prior, values, brain, zooms), affine @ matrix)
    x, _, z = np.moveaxis(_places(regions), -1, 0)
    septum = (regions.codes == VENTRICLE) & (np.abs(x) <= 2) & (z > 4)
    regions.codes[septum] = DEEP
    return brain, regions


def _places(regions: Regions) -> np.ndarray:
    """MNI mm of each voxel, (X, Y, Z, 3)."""
    index = np.stack(np.indices(regions.codes.shape), axis=-1)
    return nib.affines.apply_affine(regions.to_mni, index)


@pytest.fixture(scope="module")
def atlas() -> tuple[np.ndarray, Regions]:
    """A head that lies as the atlas does."""
    return _head(np.eye(4), load_atlas()[1].shape, _ZOOMS)


def _ball(regions: Regions, place: tuple[float, float, float], radius: float) -> np.ndarray:
    return np.linalg.norm(_places(regions) - np.array(place), axis=-1) <= radius


def _kept(atlas: tuple[np.ndarray, Regions], finding: np.ndarray) -> bool:
    brain, regions = atlas
    probability = np.where(finding, 0.9, 0.1)
    kept = drop_misplaced(probability, brain, _ZOOMS, regions, threshold=_THRESHOLD)
    np.testing.assert_array_equal(kept[~finding], probability[~finding].astype(np.float32))
    assert set(np.unique(kept[finding])) in ({np.float32(0.9)}, {np.float32(0.0)})
    return bool(kept[finding].any())


def test_between_the_ventricles_lies_the_septum_and_nothing_else(atlas):
    _, regions = atlas
    found = between_ventricles(regions, _ZOOMS)
    assert 3 < found.sum() * np.prod(_ZOOMS) / 1000 < 12  # ml
    assert found[_ball(regions, _SEPTUM, 1.5)].all()
    places = _places(regions)[found]
    assert np.abs(places[:, 0]).max() < SEPTUM_MM
    assert np.abs(np.median(places[:, 0])) < 3
    for place in (_THALAMUS, _GENU, (0, -44, 12), (0, -5, -8)):
        assert not found[_ball(regions, place, 3)].any(), place


@pytest.mark.parametrize("place", [_SEPTUM, (0, -26, 18), _CAVERNOUS_SINUS])
def test_what_lies_where_no_lesion_does_is_given_up(atlas, place):
    assert not _kept(atlas, _ball(atlas[1], place, 3))


@pytest.mark.parametrize(
    "place", [_THALAMUS, _GENU, _HORN, (0, -44, 12), (0, -10, 28), (-45, -20, 40)]
)
def test_what_lies_elsewhere_stays(atlas, place):
    assert _kept(atlas, _ball(atlas[1], place, 3))


@pytest.mark.parametrize("name", NMOSD_SITES)
def test_lesions_at_the_sites_of_nmosd_stay(atlas, name):
    for place in SITES[name].line:
        assert _kept(atlas, _ball(atlas[1], place, 4)), place


def test_a_lesion_that_reaches_into_the_septum_stays(atlas):
    lesion = _ball(atlas[1], _SEPTUM, 3) | _ball(atlas[1], (0, 10, 24), 12)
    assert _kept(atlas, lesion)


@given(shift=st.tuples(*[st.floats(-4, 4)] * 3), turn=st.floats(-0.12, 0.12), coarse=st.booleans())
@settings(deadline=None, max_examples=10)
def test_tilted_heads_and_other_voxels_change_nothing(atlas, shift, turn, coarse):
    """The septum is found where the head is turned in the scanner and where slices are thick."""
    shape = np.array(atlas[0].shape)
    zooms = np.array([1.5, 1.5, 6.0]) if coarse else np.array(_ZOOMS)
    spin = np.eye(4)
    spin[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    spin[:3, 3] = shape / 2 - spin[:3, :3] @ (shape / 2) + shift
    matrix = spin @ np.diag([*(zooms / 2), 1.0])
    _, regions = _head(matrix, tuple(np.ceil(shape / (zooms / 2)).astype(int)), zooms)
    found = between_ventricles(regions, zooms)
    assert 3 < found.sum() * np.prod(zooms) / 1000 < 12  # ml
    assert np.abs(np.median(_places(regions)[found][:, 0])) < 3


def test_an_atlas_that_does_not_fit_judges_nothing(atlas):
    brain, regions = atlas
    away = regions.to_mni.copy()
    away[2, 3] -= 90
    finding = _ball(regions, _SEPTUM, 3)
    misfit = Regions(regions.codes, away)
    kept = drop_misplaced(np.where(finding, 0.9, 0.0), brain, _ZOOMS, misfit, threshold=_THRESHOLD)
    assert (kept[finding] == np.float32(0.9)).all()


def test_without_findings_nothing_changes_and_shapes_are_checked(atlas):
    brain, regions = atlas
    nothing = np.full(brain.shape, 0.2, np.float32)
    kept = drop_misplaced(nothing, brain, _ZOOMS, regions, threshold=_THRESHOLD)
    np.testing.assert_array_equal(kept, nothing)
    with pytest.raises(ValueError, match="shapes differ"):
        drop_misplaced(nothing[1:], brain, _ZOOMS, regions, threshold=_THRESHOLD)
