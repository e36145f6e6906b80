"""The radiologists' rule, MS against NMOSD, as far as lesions and regions can tell (baseline).

MS if (a lesion at the body of a lateral ventricle and one in an inferior temporal lobe), or a
Dawson's finger, or a U-fibre lesion (Matthews et al. 2013). People see these; here each sign is a
geometric stand-in, with the constants below:

* **body of a lateral ventricle**: a periventricular lesion touches ventricle voxels within the
  body's box in MNI space (`BODY`);
* **inferior temporal lobe**: at least half of a supratentorial lesion within the boxes of the two
  lobes (`TEMPORAL`);
* **Dawson's finger**: a lesion at the body, at least 1.5 times as long as wide, whose long axis is
  within 45 degrees of perpendicular to the ventricle's long axis and within 45 degrees of the way
  out from the ventricle;
* **U-fibre lesion**: a juxtacortical lesion, long (8 mm), thin (6 mm) and so curved that it fills
  less than 0.65 of its convex hull.

Lesions under 3 mm in diameter have no shape and count for none of these but the locations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial import ConvexHull, cKDTree

from msnmo_bids.lesions.morphometry import SMALL_LESION
from msnmo_bids.lesions.regions import INFRATENTORIAL, VENTRICLE, assign_regions

#: Boxes in MNI mm: (lowest, highest) along x (its magnitude), y and z.
BODY = ((0.0, 35.0), (-35.0, 10.0), (10.0, 35.0))
TEMPORAL = ((25.0, 75.0), (-65.0, 10.0), (-50.0, -12.0))

ELONGATION = 1.5
ANGLE = 45.0  # degrees
U_FIBRE_LENGTH, U_FIBRE_THICKNESS = 8.0, 6.0  # mm
U_FIBRE_SOLIDITY = 0.65


@dataclass(frozen=True)
class Signs:
    """What the rule looks at (see the module), as the labels of the lesions that show it."""

    body: list[int] = field(default_factory=list)
    temporal: list[int] = field(default_factory=list)
    dawson: list[int] = field(default_factory=list)
    u_fibre: list[int] = field(default_factory=list)


def rule_diagnosis(labels: np.ndarray, region_codes: np.ndarray, to_mni: np.ndarray) -> str:
    """Apply the rule to the lesions of a scan, by the arrays that `find_signs` takes: MS or NMOSD.

    It is NMOSD for a scan without lesions too: the rule knows no third answer.
    """
    signs = find_signs(labels, region_codes, to_mni)
    is_ms = (signs.body and signs.temporal) or signs.dawson or signs.u_fibre
    return "MS" if is_ms else "NMOSD"


def find_signs(labels: np.ndarray, region_codes: np.ndarray, to_mni: np.ndarray) -> Signs:
    """Look for the rule's signs in lesions, labelled 1 to n, (X, Y, Z).

    The codes, (X, Y, Z), are those of `msnmo_bids.lesions.regions`; `to_mni`, (4, 4), goes from
    index to MNI mm. Lengths and angles are measured there, so that the size of the head does not
    matter.
    """
    zooms = np.linalg.norm(to_mni[:3, :3], axis=0)
    regions = assign_regions(labels, region_codes, zooms)
    ventricle = apply_affine(to_mni, np.argwhere(region_codes == VENTRICLE))
    ventricle = ventricle[_inside(ventricle, BODY)]
    found = Signs()
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        corner = np.array([cut.start for cut in where])
        voxels = np.argwhere(labels[where] == number) + corner
        points = apply_affine(to_mni, voxels)
        at_body = regions[number] == "periventricular" and _touches(points, ventricle, zooms)
        if at_body:
            found.body.append(number)
        supratentorial = (region_codes[tuple(voxels.T)] == INFRATENTORIAL).mean() <= 0.5
        if supratentorial and _inside(points, TEMPORAL).mean() >= 0.5:
            found.temporal.append(number)
        if len(voxels) * abs(np.linalg.det(to_mni[:3, :3])) < SMALL_LESION:
            continue
        if at_body and is_dawsons_finger(points, ventricle):
            found.dawson.append(number)
        if regions[number] == "juxtacortical" and is_u_fibre(voxels, zooms):
            found.u_fibre.append(number)
    return found


def is_dawsons_finger(points: np.ndarray, ventricle: np.ndarray) -> bool:
    """Say whether a lesion that touches the ventricle is long and stands on it.

    `points` (N, 3) are its voxels, `ventricle` (M, 3) those of the bodies of both lateral
    ventricles (mm; x < 0 is left).
    """
    lengths, axes = principal_axes(points)
    if lengths[0] < ELONGATION * lengths[1]:
        return False
    centre = points.mean(axis=0)
    own = ventricle[np.sign(ventricle[:, 0]) == np.sign(centre[0])]
    if len(own) < 2:
        return False
    along = principal_axes(own)[1][0]
    out = centre - own[np.linalg.norm(own - centre, axis=1).argmin()]
    distance = np.linalg.norm(out)
    limit = np.cos(np.radians(ANGLE))
    upright = abs(axes[0] @ along) <= limit
    return bool(upright and distance > 0 and abs(axes[0] @ out) >= limit * distance)


def is_u_fibre(voxels: np.ndarray, zooms: Sequence[float] | np.ndarray) -> bool:
    """Say whether a juxtacortical lesion is long, thin and curved.

    `voxels` (N, 3) are indices, `zooms` (3,) the voxel size (mm).
    """
    lesion = np.zeros(np.ptp(voxels, axis=0) + 3, dtype=bool)
    lesion[tuple((voxels - voxels.min(axis=0) + 1).T)] = True
    # Twice the depth of the innermost voxel's centre, less half a voxel at either wall.
    depth = float(ndimage.distance_transform_edt(lesion, sampling=zooms).max())
    thickness = 2 * depth - float(np.min(zooms))
    length = float(np.linalg.norm(np.ptp(voxels, axis=0) * zooms))
    if length < U_FIBRE_LENGTH or thickness > U_FIBRE_THICKNESS:
        return False
    return solidity(voxels) < U_FIBRE_SOLIDITY


def solidity(voxels: np.ndarray) -> float:
    """Return the share of a lesion's convex hull that it fills; 1 for a box.

    `voxels` are indices, (N, 3); the hull is that of the voxels' corners.

    Examples
    --------
    >>> import numpy as np
    >>> round(solidity(np.argwhere(np.ones((2, 3, 4)))), 6)
    1.0
    """
    offsets = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    corners = np.unique((voxels[:, None, :] + offsets).reshape(-1, 3), axis=0)
    return len(voxels) / ConvexHull(corners).volume


def principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths and directions of the principal axes of points (N, 3), at least two (mm).

    Lengths, (3,), are twice the s.d. along each axis, longest first; a voxel's own extent (1 mm) is
    added in square, so that a line of voxels has a width. Directions are unit vectors, one per row.
    """
    variances, vectors = np.linalg.eigh(np.cov(points.T))
    lengths = 2 * np.sqrt(np.maximum(variances, 0) + 1 / 12)
    return lengths[::-1], vectors.T[::-1]


def _touches(points: np.ndarray, others: np.ndarray, zooms: np.ndarray) -> bool:
    """Say whether two sets of voxels are neighbours, corners included."""
    if not len(others):
        return False
    distance = cKDTree(others).query(points)[0].min()
    return bool(distance <= 1.01 * np.linalg.norm(zooms))


def _inside(points: np.ndarray, box: Sequence[tuple[float, float]]) -> np.ndarray:
    low, high = np.array(box).T
    folded = np.column_stack([np.abs(points[:, 0]), points[:, 1:]])
    return ((folded >= low) & (folded <= high)).all(axis=1)
