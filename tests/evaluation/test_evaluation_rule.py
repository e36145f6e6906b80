"""The rule's signs on synthetic geometry: 1 mm voxels, MNI mm."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.evaluation.rule import (
    find_signs,
    is_u_fibre,
    principal_axes,
    rule_diagnosis,
    solidity,
)
from msnmo_bids.lesions.regions import CORTEX, DEEP, INFRATENTORIAL, VENTRICLE

SHAPE = (120, 110, 80)
ORIGIN = np.array([-60, -70, -40])
TO_MNI = np.eye(4)
TO_MNI[:3, 3] = ORIGIN


def box(x, y, z) -> tuple[slice, ...]:
    """Index of a box in MNI mm, (first, past the last) along each axis."""
    return tuple(slice(a - o, b - o) for (a, b), o in zip((x, y, z), ORIGIN, strict=True))


@pytest.fixture
def codes() -> np.ndarray:
    """Two lateral ventricles along y, cortex above z = 35, the infratentorial space behind."""
    found = np.full(SHAPE, DEEP, np.int8)
    for x in ((-14, -6), (7, 15)):
        found[box(x, (-32, 10), (12, 24))] = VENTRICLE
    found[box((-60, 60), (-70, 40), (35, 40))] = CORTEX
    found[box((-40, 40), (-70, -40), (-40, -15))] = INFRATENTORIAL
    return found


def lesions(*boxes) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    for number, (x, y, z) in enumerate(boxes, start=1):
        labels[box(x, y, z)] = number
    return labels


ROUND_AT_BODY = ((15, 19), (-10, -6), (16, 20))
TEMPORAL = ((-45, -41), (-30, -26), (-25, -21))
FINGER = ((15, 27), (-10, -6), (16, 20))  # out of the right ventricle
ALONG = ((15, 19), (-20, -4), (16, 20))  # as long, but along it


def test_no_lesion_is_no_ms(codes):
    assert rule_diagnosis(lesions(), codes, TO_MNI) == "NMOSD"


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([ROUND_AT_BODY], "NMOSD"),
        ([TEMPORAL], "NMOSD"),
        ([ROUND_AT_BODY, TEMPORAL], "MS"),
        ([FINGER], "MS"),
        ([ALONG], "NMOSD"),
    ],
)
def test_the_rule(codes, boxes, expected):
    assert rule_diagnosis(lesions(*boxes), codes, TO_MNI) == expected


def test_each_sign_names_its_lesions(codes):
    on_the_left = ((-26, -14), (-30, -26), (16, 20))
    signs = find_signs(lesions(ROUND_AT_BODY, TEMPORAL, on_the_left), codes, TO_MNI)
    assert signs.body == [1, 3]
    assert signs.temporal == [2]
    assert signs.dawson == [3]
    assert signs.u_fibre == []


def test_a_finger_not_at_the_body_is_none(codes):
    """Around a ventricle below the body's box the same shape says nothing."""
    low = codes.copy()
    low[low == VENTRICLE] = DEEP
    low[box((7, 15), (-32, 10), (-10, 2))] = VENTRICLE
    finger = ((15, 27), (-10, -6), (-6, -2))
    assert find_signs(lesions(finger), low, TO_MNI).dawson == []


def test_a_finger_stays_one_when_the_image_is_turned(codes):
    """Axes of the scan do not matter, only MNI space."""
    turn = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    labels = lesions(FINGER).transpose(2, 0, 1)  # turned[z, x, y] = labels[x, y, z]
    signs = find_signs(labels, codes.transpose(2, 0, 1), TO_MNI @ turn)
    assert signs.dawson == [1]


@pytest.mark.parametrize("degrees", [0, 20, 40, 50, 70, 90])
def test_up_to_45_degrees_from_perpendicular(codes, degrees):
    """A rod out of the ventricle, turned towards the ventricle's long axis (y)."""
    angle = np.radians(degrees)
    direction = np.array([np.cos(angle), np.sin(angle), 0])
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) + ORIGIN - np.array([15.0, -10.0, 18.0])
    along = grid @ direction
    across = np.linalg.norm(grid - along[..., None] * direction, axis=-1)
    rod = (along >= 0) & (along < 16) & (across <= 2) & (codes == DEEP)
    signs = find_signs(rod.astype(np.int32), codes, TO_MNI)
    assert signs.body == [1]
    assert bool(signs.dawson) == (degrees < 45)


def test_infratentorial_lesions_are_not_temporal(codes):
    cerebellar = ((-38, -34), (-55, -51), (-25, -21))
    assert find_signs(lesions(cerebellar), codes, TO_MNI).temporal == []


def arc(radius: float, width: float, degrees: float) -> np.ndarray:
    """A bent rod in the plane of x and z, 4 voxels deep, under the cortex."""
    x, _, z = np.indices((40, 4, 40))
    x, z = x - 20.0, z - 20.0
    angle = np.degrees(np.arctan2(np.abs(x), z))
    return np.argwhere((np.abs(np.hypot(x, z) - radius) <= width / 2) & (angle <= degrees / 2))


def test_an_arc_is_a_u_fibre_and_a_disc_or_rod_is_none():
    bent = arc(9, 3, 180)
    assert is_u_fibre(bent, (1, 1, 1))
    assert not is_u_fibre(arc(9, 3, 30), (1, 1, 1))  # hardly bent
    assert not is_u_fibre(np.argwhere(np.ones((3, 4, 20))), (1, 1, 1))  # straight
    assert not is_u_fibre(arc(9, 3, 180), (0.3, 0.3, 0.3))  # too short
    assert not is_u_fibre(arc(9, 12, 180), (1, 2, 1))  # too thick


@pytest.mark.parametrize(("tissue", "expected"), [(CORTEX, "MS"), (DEEP, "NMOSD")])
def test_a_u_fibre_lesion_lies_around_a_fold_of_the_cortex(codes, tissue, expected):
    """The same arc, around cortex or around white matter."""
    x, _, z = np.indices((40, 4, 40))
    corner = np.array([15, -20, -5]) - ORIGIN
    window = tuple(slice(a, a + size) for a, size in zip(corner, x.shape, strict=True))
    codes[window][np.hypot(x - 20, z - 20) < 8.5] = tissue
    labels = np.zeros(SHAPE, np.int32)
    labels[tuple((arc(9, 3, 180) + corner).T)] = 1
    assert rule_diagnosis(labels, codes, TO_MNI) == expected


def test_solidity_of_a_cross():
    cross = np.zeros((3, 3, 1))
    cross[1, :, 0] = cross[:, 1, 0] = 1
    assert solidity(np.argwhere(cross)) == pytest.approx(5 / 7)


def test_principal_axes_are_sorted_unit_vectors():
    lengths, axes = principal_axes(np.argwhere(np.ones((3, 20, 6))).astype(float))
    assert lengths[0] > lengths[1] > lengths[2]
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert abs(axes[0, 1]) == pytest.approx(1)
    assert lengths[0] == pytest.approx(2 * 20 / np.sqrt(12), rel=0.02)
