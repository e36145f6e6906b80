"""Descriptors of lesions: places of the atlas, distances, axes; whatever the voxels and labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msnmo_bids.lesions.descriptors import DESCRIPTORS, describe_lesions
from msnmo_bids.lesions.regions import (
    CORTEX,
    DEEP,
    FOURTH_VENTRICLE,
    OUTSIDE,
    VENTRICLE,
    Regions,
)

#: Left lower corner of a box of 80 x 60 x 60 mm around the lateral ventricles, MNI mm.
CORNER, SIZE = np.array([-40.0, -40, 0]), np.array([80, 60, 60])


def box(regions: Regions, low, high) -> np.ndarray:
    """Voxels whose centres lie in a box of MNI mm, bool."""
    index = np.stack(np.indices(regions.codes.shape), axis=-1)
    places = nib.affines.apply_affine(regions.to_mni, index)
    return ((places >= low) & (places < high)).all(axis=-1)


def scan(zooms=(1.0, 1.0, 1.0), corner=CORNER, size=SIZE) -> Regions:
    """White matter under a cortex 5 mm thick, with lateral ventricles from z = 20 to 26."""
    shape = np.rint(size / zooms).astype(int)
    to_mni = np.diag([*zooms, 1.0])
    to_mni[:3, 3] = corner + np.array(zooms) / 2
    regions = Regions(np.full(shape, DEEP, np.int8), to_mni)
    regions.codes[box(regions, corner + np.array([0, 0, size[2] - 5]), corner + size)] = CORTEX
    regions.codes[box(regions, (-20, -30, 20), (20, 10, 26))] = VENTRICLE
    return regions


def described(
    regions: Regions, *masks: np.ndarray, zooms=(1.0, 1.0, 1.0)
) -> list[dict[str, float]]:
    labels = np.zeros(regions.codes.shape, np.int32)
    for number, mask in enumerate(masks, start=1):
        labels[mask] = number
    rows = describe_lesions(labels, regions, zooms)
    assert rows.shape == (len(masks), len(DESCRIPTORS))
    assert np.isfinite(rows).all()
    return [dict(zip(DESCRIPTORS, row.tolist(), strict=True)) for row in rows]


def test_a_finger_stands_on_the_ventricle_and_a_sheet_follows_it():
    regions = scan()
    finger = box(regions, (10, -20, 26), (13, -17, 40))
    sheet = box(regions, (-15, -20, 26), (-5, 0, 28))
    first, second = described(regions, finger, sheet)
    assert first["standing"] > 80
    assert second["standing"] < 15
    assert first["long_axis"] == pytest.approx(14 * (5 / 3) ** 0.5, rel=0.01)  # of the ellipsoid
    assert first["lateral_least"] == second["lateral_least"] == 1
    assert first["lateral_most"] == 14
    assert first["lateral_mean"] == pytest.approx(7.5)
    assert first["ventricle_mean"] == pytest.approx(7.5)
    assert second["near_lateral"] == 1
    assert first["near_lateral"] == pytest.approx(3 / 14)
    assert (first["thickness"], second["thickness"]) == pytest.approx((3, 2), abs=0.51)
    assert first["cortex_least"] == pytest.approx(15 + 1)  # 39.5 to 55.5
    assert first["log_volume"] == pytest.approx(np.log(9 * 14))
    assert (first["mni_x"], first["mni_y"], first["mni_z"]) == pytest.approx((11.5, -18.5, 33))
    assert (first["midline"], second["midline"]) == pytest.approx((10.5, 5.5))


def test_a_ball_has_the_axes_of_a_ball_whatever_the_voxels():
    for zooms in ((1.0, 1.0, 1.0), (0.5, 0.5, 0.5), (1.0, 1.0, 2.0)):
        regions = scan(zooms)
        index = np.stack(np.indices(regions.codes.shape), axis=-1)
        places = nib.affines.apply_affine(regions.to_mni, index)
        (ball,) = described(
            regions, np.linalg.norm(places - [12, -10, 40], axis=-1) < 6, zooms=zooms
        )
        for name in ("long_axis", "middle_axis", "short_axis"):
            assert ball[name] == pytest.approx(12, rel=0.06)
        assert ball["fill"] == pytest.approx(1, abs=0.08)
        assert ball["short_ratio"] > 0.93
        assert ball["thickness"] == pytest.approx(12, abs=2.8)
        assert ball["lateral_least"] == pytest.approx(40 - 6 - 26, abs=1.1 * zooms[2])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_rows_follow_the_labels_and_lesions_do_not_see_each_other(seed):
    rng = np.random.default_rng(seed)
    regions = scan((4.0, 4.0, 4.0))
    corners = rng.permuted(np.mgrid[0:20:5, 0:15:5, 0:15:5].reshape(3, -1).T, axis=0)[:4]
    masks = []
    for low in corners:
        mask = np.zeros(regions.codes.shape, bool)
        x, y, z = low + rng.integers(1, 4, 3)
        mask[low[0] : x, low[1] : y, low[2] : z] = True
        masks.append(mask & ~np.any(masks, axis=0) if masks else mask)
    masks = [mask for mask in masks if mask.any()]
    together = described(regions, *masks, zooms=(4, 4, 4))
    assert together[::-1] == described(regions, *masks[::-1], zooms=(4, 4, 4))
    for row, mask in zip(together, masks, strict=True):
        assert row == described(regions, mask, zooms=(4, 4, 4))[0]


@pytest.mark.parametrize(
    ("centre", "structure"),
    [((0, -28, -35), "brainstem"), ((25, -65, -40), "cerebellum"), ((-12, -18, 8), "deep_grey"),
     ((0, -22, 25), "callosum"), ((40, 8, -4), "cortex")],
)  # fmt: skip
def test_structures_of_the_atlas(centre, structure):
    corner = np.array(centre) - 10.0
    regions = scan(corner=corner, size=np.array([20, 20, 20]))
    (row,) = described(regions, box(regions, corner + 7, corner + 13))
    assert row[structure] > 0.5
    others = {"brainstem", "cerebellum", "deep_grey", "callosum"} - {structure}
    assert max(row[name] for name in others) < 0.3


def test_the_fourth_ventricle_is_that_of_the_scan_or_of_the_atlas():
    regions = scan(corner=np.array([-20.0, -60, -60]), size=np.array([40, 40, 40]))
    lesion = box(regions, (-2, -34, -36), (2, -30, -32))
    (by_atlas,) = described(regions, lesion)
    assert 1 < by_atlas["lower_least"] < 14
    regions.codes[box(regions, (-3, -30, -36), (3, -24, -30))] = FOURTH_VENTRICLE  # beside it
    (by_scan,) = described(regions, lesion)
    assert by_scan["lower_least"] == 1
    assert by_scan["near_lower"] > by_atlas["near_lower"]


def test_what_is_not_in_the_field_of_view_is_far():
    regions = Regions(np.full((9, 9, 9), OUTSIDE, np.int8), np.eye(4))
    lesion = np.zeros((9, 9, 9), bool)
    lesion[4, 4, 4] = True
    (row,) = described(regions, lesion)
    assert row["cortex_least"] == 100


def test_no_lesion_and_a_gap():
    regions = scan((4.0, 4.0, 4.0))
    labels = np.zeros(regions.codes.shape, np.int32)
    assert describe_lesions(labels, regions, (4, 4, 4)).shape == (0, len(DESCRIPTORS))
    labels[3, 3, 3] = 2
    with pytest.raises(ValueError, match="without a gap"):
        describe_lesions(labels, regions, (4, 4, 4))
