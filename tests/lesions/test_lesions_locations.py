"""Locations of lesions: places that are known in MNI space, whatever the scan's grid."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.lesions.regions import LOCATIONS, NMOSD_LOCATIONS, lesion_locations
from msnmo_bids.vocabulary import LOCATION_NAMES

KNOWN = {
    (0, 32, 6): "corpus_callosum",  # genu
    (0, -38, 12): "corpus_callosum",  # splenium
    (0, -33, -12): "periaqueductal_fourth_ventricle",
    (0, -43, -54): "area_postrema",
    (0, -12, 2): "hypothalamus_third_ventricle",
    (24, -19, 12): "corticospinal_tract",  # internal capsule, posterior limb
    (-24, -19, 12): "corticospinal_tract",
}


@pytest.mark.parametrize(("place", "location"), KNOWN.items())
def test_known_places(place, location):
    assert LOCATIONS[location].holds(np.array(place, dtype=float))


@pytest.mark.parametrize("place", [(40, 20, 20), (0, 60, 0), (-30, -80, 0), (30, -60, -40)])
def test_no_location_in_the_lobes_and_the_cerebellum(place):
    assert not any(location.holds(np.array(place, dtype=float)) for location in LOCATIONS.values())


@pytest.mark.parametrize("zooms", [(1, 1, 1), (0.9, 0.9, 5), (-1, 1, 3)])
def test_the_volume_at_a_location_does_not_depend_on_the_grid(zooms):
    to_mni = np.diag([*zooms, 1.0])
    to_mni[:3, 3] = np.array([0, -43, -54]) - np.array(zooms) * 10
    labels = np.zeros((21, 21, 21), np.int32)
    reach = [max(1, round(3 / abs(zoom))) for zoom in zooms]
    labels[tuple(slice(10 - r, 11 + r) for r in reach)] = 1
    voxel = float(np.prod(np.abs(zooms)))
    found = lesion_locations(labels, to_mni, voxel)[1]
    assert 0 < found["area_postrema"] <= np.count_nonzero(labels) * voxel
    assert "corpus_callosum" not in found


def test_a_touch_is_not_enough_but_a_speck_may_lie_there():
    to_mni = np.eye(4)
    to_mni[:3, 3] = (0, -43, -60)
    labels = np.zeros((40, 4, 8), np.int32)
    labels[:, 1, 6] = 1  # along x: 7 of 40 voxels lie at the location
    labels[2, 3, 6] = 3
    found = lesion_locations(labels, to_mni, 1.0)
    assert found[1] == {}
    assert found[3]["area_postrema"] == 1.0
    assert 2 not in found


def test_a_large_lesion_that_the_corticospinal_tract_passes_through_does_not_lie_there():
    to_mni = np.eye(4)
    to_mni[:3, 3] = (0, -40, 10)
    labels = np.zeros((60, 40, 12), np.int32)
    labels[10:50, 10:34, 3:8] = 1
    labels[22:25, 19:22, 3:8] = 2
    found = lesion_locations(labels, to_mni, 1.0)
    assert (
        LOCATIONS["corticospinal_tract"].holds(np.argwhere(labels == 1) + to_mni[:3, 3]).sum() > 100
    )
    assert "corticospinal_tract" not in found[1]
    assert found[2]["corticospinal_tract"] > 40


def test_every_location_has_its_name_everywhere():
    assert set(LOCATIONS) == set(LOCATION_NAMES)
    assert set(LOCATIONS) - set(NMOSD_LOCATIONS) == {"corpus_callosum"}
