"""Volume, place and size of known lesions."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from msnmo_bids.lesions.morphometry import SMALL_LESION, lesion_table, summary
from msnmo_bids.lesions.regions import REGIONS

ZOOMS = np.array([0.8, 1.1, 2.0])


def oblique() -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(0.3, -0.2, 0.15) @ np.diag(ZOOMS)
    affine[:3, 3] = (-40.0, 22.0, 9.5)
    return affine


def test_ellipsoid_under_an_oblique_affine():
    """An ellipsoid given in millimetres; its place is found in the world, not in the array."""
    affine = oblique()
    half_axes = np.array([9.0, 7.0, 12.0])
    shape = (40, 30, 24)
    centre_index = np.array([17.3, 14.1, 11.6])
    offset = (np.indices(shape).reshape(3, -1).T - centre_index) * ZOOMS
    labels = (((offset / half_axes) ** 2).sum(axis=1) <= 1).reshape(shape).astype(np.int32)
    (row,) = lesion_table(labels, np.full(shape, 0.75), {1: "deep"}, affine, {1: {}})
    volume = 4 / 3 * np.pi * half_axes.prod()
    assert row["volume_mm3"] == pytest.approx(volume, rel=0.01)
    assert row["diameter_mm"] == pytest.approx(2 * np.cbrt(half_axes.prod()), rel=0.005)
    world = nib.affines.apply_affine(affine, centre_index)
    np.testing.assert_allclose([row["x_mm"], row["y_mm"], row["z_mm"]], world, atol=0.1)
    assert row["mean_probability"] == 0.75
    assert (row["index"], row["region"], row["small"]) == (1, "deep", 0)


def test_one_row_a_lesion_in_the_order_of_the_labels():
    labels = np.zeros((8, 8, 8), np.int32)
    labels[1, 1, 1:4] = 2
    labels[5:7, 5:7, 5:7] = 1
    probability = np.where(labels == 1, 0.9, 0.6)
    probability[1, 1, 1] = 0.9
    regions = {1: "infratentorial", 2: "juxtacortical"}
    table = lesion_table(labels, probability, regions, np.diag([1, 1, 2, 1.0]), {1: {}, 2: {}})
    assert [row["index"] for row in table] == [1, 2]
    assert [row["volume_mm3"] for row in table] == [16.0, 6.0]
    assert [row["region"] for row in table] == ["infratentorial", "juxtacortical"]
    assert [row["small"] for row in table] == [0, 1]
    assert table[1]["mean_probability"] == 0.7
    assert (table[1]["x_mm"], table[1]["y_mm"], table[1]["z_mm"]) == (1, 1, 4)


@pytest.mark.parametrize(("voxels", "small"), [(13, 1), (14, 0)])
def test_small_is_below_14(voxels, small):
    labels = np.zeros((20, 3, 3), np.int32)
    labels[:voxels, 1, 1] = 1
    (row,) = lesion_table(labels, labels * 0.9, {1: "deep"}, np.eye(4), {1: {}})
    assert row["small"] == small
    assert SMALL_LESION == 14


def test_summary_adds_up():
    labels = np.zeros((12, 12, 12), np.int32)
    labels[0:4, 0:4, 0:4] = 1
    labels[6:9, 6:9, 6:9] = 2
    labels[11, 11, 11] = 3
    regions = {1: "periventricular", 2: "deep", 3: "periventricular"}
    locations = {1: {"corpus_callosum": 500.0}, 2: {}, 3: {"corpus_callosum": 8.0}}
    found = summary(lesion_table(labels, labels > 0, regions, np.diag([2, 2, 2, 1.0]), locations))
    assert found["Sites"]["corpus_callosum"] == {"Count": 2, "Volume": 0.508}
    assert found["Sites"]["area_postrema"] == {"Count": 0, "Volume": 0.0}
    assert found["LesionCount"] == 3
    assert found["LesionCountSmall"] == 1
    assert found["LesionVolume"] == pytest.approx((64 + 27 + 1) * 8 / 1000)
    assert tuple(found["Regions"]) == REGIONS
    assert found["Regions"]["periventricular"] == {"Count": 2, "Volume": 0.52}
    assert found["Regions"]["juxtacortical"] == {"Count": 0, "Volume": 0.0}
    assert sum(r["Count"] for r in found["Regions"].values()) == found["LesionCount"]
    assert sum(r["Volume"] for r in found["Regions"].values()) == pytest.approx(
        found["LesionVolume"]
    )


def test_no_lesion():
    empty = np.zeros((4, 4, 4), np.int32)
    assert lesion_table(empty, empty, {}, np.eye(4), {}) == []
    found = summary([])
    assert (found["LesionCount"], found["LesionVolume"]) == (0, 0)
    assert set(found["Regions"]) == set(REGIONS)
