"""Regions: the rules, the fluid of the scan, and the registration of the atlas."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from msnmo_bids.lesions.regions import (
    ATLAS_MAPS,
    ATLAS_STEPS,
    CORTEX,
    DEEP,
    INFRATENTORIAL,
    OUTSIDE,
    REGIONS,
    VENTRICLE,
    assign_regions,
    atlas_on_grid,
    load_atlas,
    locate_regions,
    refine,
)
from msnmo_bids.lesions.registration import register_affine

SHAPE = (20, 20, 20)


def deep_brain() -> np.ndarray:
    return np.full(SHAPE, DEEP, np.int8)


def cube_at(*corner: int, side: int = 3) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    x, y, z = corner
    labels[x : x + side, y : y + side, z : z + side] = 1
    return labels


def region(labels: np.ndarray, codes: np.ndarray, zooms=(1.0, 1.0, 1.0)) -> str:
    assigned = assign_regions(labels, codes, zooms)
    assert list(assigned) == [1]
    assert assigned[1] in REGIONS
    return assigned[1]


@pytest.mark.parametrize(("gap", "expected"), [(0, "periventricular"), (1, "deep"), (2, "deep")])
def test_touching_the_ventricle(gap, expected):
    """Dilated by one voxel the lesion reaches a neighbour, not one voxel further."""
    codes = deep_brain()
    codes[:5] = VENTRICLE
    assert region(cube_at(5 + gap, 8, 8), codes) == expected


def test_a_corner_touches():
    codes = deep_brain()
    codes[4, 7, 7] = VENTRICLE
    assert region(cube_at(5, 8, 8), codes) == "periventricular"


@pytest.mark.parametrize(
    ("zooms", "expected"),
    [
        ((1, 1, 1), "periventricular"),
        ((1, 1, 6), "deep"),  # a slice away is 6 mm away
        ((1, 1, 2.5), "periventricular"),
        ((6, 6, 6), "periventricular"),  # no axis left: one voxel after all
    ],
)
def test_thick_slices_are_not_dilated_across(zooms, expected):
    codes = deep_brain()
    codes[:, :, 11] = VENTRICLE
    assert region(cube_at(8, 8, 8), codes, zooms) == expected


def test_ventricle_comes_before_infratentorial_and_cortex():
    codes = deep_brain()
    labels = cube_at(8, 8, 8)
    codes[labels > 0] = INFRATENTORIAL
    codes[7, 8, 8] = VENTRICLE
    codes[11] = CORTEX
    assert region(labels, codes) == "periventricular"
    codes[7, 8, 8] = DEEP
    assert region(labels, codes) == "infratentorial"
    codes[labels > 0] = DEEP
    assert region(labels, codes) == "juxtacortical"
    codes[11] = DEEP
    assert region(labels, codes) == "deep"


def test_infratentorial_needs_most_of_the_lesion():
    codes = deep_brain()
    labels = cube_at(8, 8, 8, side=4)
    codes[8:10] = INFRATENTORIAL  # half of it
    assert region(labels, codes) == "deep"
    codes[10, 8, 8] = INFRATENTORIAL
    assert region(labels, codes) == "infratentorial"


def test_juxtacortical_needs_a_fifth_of_the_neighbourhood():
    codes = deep_brain()
    labels = cube_at(8, 8, 8)  # with its neighbours 125 voxels
    codes[7, 7:12, 7:12] = CORTEX  # 25 of them
    assert region(labels, codes) == "juxtacortical"
    codes[7, 7, 7] = DEEP
    assert region(labels, codes) == "deep"


def test_each_lesion_on_its_own_and_at_the_border():
    codes = deep_brain()
    codes[:, :, :2] = OUTSIDE
    codes[:3] = VENTRICLE
    labels = cube_at(3, 0, 0) + 2 * cube_at(17, 17, 17)
    assert assign_regions(labels, codes, (1, 1, 1)) == {1: "periventricular", 2: "deep"}
    assert assign_regions(np.zeros(SHAPE, np.int32), codes, (1, 1, 1)) == {}


def prior_of(codes: np.ndarray) -> np.ndarray:
    return np.stack([(codes == code).astype(np.float32) for code in range(1, 6)])


def refined(prior, values, brain=None, zooms=(1.0, 1.0, 1.0)) -> np.ndarray:
    return refine(prior, values, np.ones(SHAPE, bool) if brain is None else brain, zooms)


def test_refine_takes_the_likeliest_class():
    codes = deep_brain()
    codes[:6], codes[6:9] = INFRATENTORIAL, CORTEX
    brain = np.ones(SHAPE, bool)
    brain[:, 0] = False
    found = refined(prior_of(codes), np.full(SHAPE, 100.0), brain)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found[brain], codes[brain])
    assert (found[~brain] == OUTSIDE).all()


@pytest.fixture
def prior() -> np.ndarray:
    """The atlas holds planes 8 to 10 to be ventricle and thinks it possible from 5 to 14."""
    prior = prior_of(deep_brain())
    prior[VENTRICLE - 1, 5:15] = 0.15
    prior[VENTRICLE - 1, 8:11] = 0.6
    return prior


def ventricle_planes(codes: np.ndarray) -> list[int]:
    """Planes that are ventricle; none may be so in part."""
    share = (codes == VENTRICLE).mean(axis=(1, 2))
    assert set(share) <= {0.0, 1.0}
    return np.flatnonzero(share).tolist()


def test_ventricle_follows_the_fluid_within_reach(prior):
    values = np.full(SHAPE, 100.0)
    values[9:18] = 40.0
    assert ventricle_planes(refined(prior, values)) == [9, 10, 11, 12, 13, 14]


def test_ventricle_is_where_the_atlas_and_the_scan_agree(prior):
    values = np.full(SHAPE, 100.0)
    assert ventricle_planes(refined(prior, values)) == []  # no fluid
    values[12:14] = 40.0  # a sulcus beside it, joined to no certain place
    values[18] = 40.0  # fluid elsewhere
    assert ventricle_planes(refined(prior, values)) == []


def test_half_filled_voxels_belong_to_the_ventricle(prior):
    """A lesion at the wall touches the ventricle although the voxel between is not pure fluid."""
    values = np.full(SHAPE, 100.0)
    values[8:11] = 40.0
    values[11] = 75.0
    values[12] = 75.0  # not beside the fluid
    codes = refined(prior, values)
    assert ventricle_planes(codes) == [8, 9, 10, 11]
    assert region(cube_at(12, 8, 8), codes) == "periventricular"
    values[11] = 130.0  # the lesion itself
    assert ventricle_planes(refined(prior, values)) == [8, 9, 10]


def test_half_filled_voxels_are_not_sought_across_thick_slices(prior):
    values = np.full(SHAPE, 100.0)
    values[8:11] = 40.0
    values[11] = 75.0
    assert ventricle_planes(refined(prior, values, zooms=(5.0, 1.0, 1.0))) == [8, 9, 10]


def test_a_bright_lesion_in_the_ventricles_wall_is_periventricular(prior):
    values = np.full(SHAPE, 100.0)
    values[8:11] = 40.0
    labels = cube_at(10, 8, 8, side=4)  # grows into the atlas's ventricle
    values[labels > 0] = 160.0
    assert region(labels, refined(prior, values)) == "periventricular"


def test_refine_beyond_the_atlas_is_surface():
    prior = prior_of(deep_brain())
    prior[:, 15:] = 0
    found = refined(prior, np.full(SHAPE, 100.0))
    assert (found[15:] == CORTEX).all()
    assert (found[:15] == DEEP).all()


def test_atlas_is_a_probability_of_a_plausible_brain():
    maps, flair, affine = load_atlas()
    assert maps.shape == (len(ATLAS_MAPS), *flair.shape)
    assert maps.min() >= 0
    assert maps.sum(axis=0).max() <= 1 + 4 / ATLAS_STEPS  # each of eight rounded to a step
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    ventricle, lower, cortex, deep, fourth = maps.sum(axis=(1, 2, 3)) * voxel_ml
    assert 5 < ventricle < 80
    assert 0.5 < fourth < 4
    assert 90 < lower < 260
    assert 300 < cortex < 900
    assert 300 < deep < 900
    # in MNI space: the ventricle near the midline, the cerebellum low and behind it
    for index, (low, high) in {
        0: ((-6, -45, -5), (6, 5, 30)),
        1: ((-6, -75, -60), (6, -30, -15)),
    }.items():
        centre = nib.affines.apply_affine(affine, ndimage.center_of_mass(maps[index]))
        assert (centre > low).all(), (index, centre)
        assert (centre < high).all(), (index, centre)
    assert (flair[maps.sum(axis=0) > 0.99] > 0).mean() > 0.99


@pytest.fixture(scope="module")
def moved_atlas() -> dict[str, np.ndarray]:
    """The atlas's FLAIR as a tilted, larger scan with thick slices."""
    _, flair, atlas_affine = load_atlas()
    shape, zooms = np.array([64, 76, 30]), np.array([3.2, 3.0, 6.0])
    # scan mm (centred) -> atlas mm (centred): 8, -5 and 6 degrees, scales, and a shift
    world = np.eye(4)
    world[:3, :3] = euler2mat(*np.deg2rad([6.0, -5.0, 8.0])) @ np.diag([0.94, 1.05, 1.0])
    world[:3, 3] = (5.0, -7.0, 4.0)
    to_mm = np.diag([*zooms, 1.0])
    to_mm[:3, 3] = -zooms * (shape - 1) / 2
    spacing = nib.affines.voxel_sizes(atlas_affine)
    from_mm = np.diag([*(1 / spacing), 1.0])
    from_mm[:3, 3] = (np.array(flair.shape) - 1) / 2
    matrix = from_mm @ world @ to_mm
    smooth = ndimage.gaussian_filter(flair, (0.4, 0.4, 1.0))
    values = 350 * ndimage.affine_transform(
        smooth, matrix[:3, :3], matrix[:3, 3], output_shape=tuple(shape), order=1
    )
    values *= values > 60
    affine = np.diag([*zooms, 1.0])
    affine[:3, :3] = euler2mat(0.2, 0.1, 0) @ affine[:3, :3]
    affine[:3, 3] = (300, -20, 1000)  # a scanner's origin says nothing
    return {"values": values.astype(np.float32), "affine": affine, "matrix": matrix}


def test_registration_recovers_a_known_affine(moved_atlas):
    values, true = moved_atlas["values"], moved_atlas["matrix"]
    _, flair, atlas_affine = load_atlas()
    spacing = nib.affines.voxel_sizes(atlas_affine)
    zooms = nib.affines.voxel_sizes(moved_atlas["affine"])
    found = register_affine(values, zooms, flair, spacing)
    brain = np.argwhere(values > 0)[::50]
    difference = nib.affines.apply_affine(found, brain) - nib.affines.apply_affine(true, brain)
    error = np.linalg.norm(difference * spacing, axis=1)
    assert error.mean() < 1.0
    assert error.max() < 2.5


def test_regions_of_a_scan(moved_atlas):
    values, affine, true = (moved_atlas[key] for key in ("values", "affine", "matrix"))
    zooms = nib.affines.voxel_sizes(affine)
    codes, to_mni = locate_regions(values, values > 0, zooms)
    _, _, atlas_affine = load_atlas()
    corners = np.argwhere(values > 0)[[0, -1]]
    off = [nib.affines.apply_affine(m, corners) for m in (to_mni, atlas_affine @ true)]
    assert np.abs(off[0] - off[1]).max() < 4  # mm
    expected = refine(atlas_on_grid(true, values.shape), values, values > 0, zooms)
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(codes > 0, values > 0)
    for code in (VENTRICLE, INFRATENTORIAL, CORTEX, DEEP):
        one, other = codes == code, expected == code
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.9, code
    again = locate_regions(values, values > 0, zooms)
    np.testing.assert_array_equal(again.to_mni, to_mni)
    np.testing.assert_array_equal(again.codes, codes)  # a rerun gives the same
