"""The space half-way between two visits.

Both images are moved by half of the rigid motion between them, so both are interpolated alike:
else the one that stays where it is would look sharper, and its lesions larger or smaller (Reuter
et al. 2012, doi:10.1016/j.neuroimage.2012.02.084).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

#: Voxel size of the half-way space (mm).
SPACING_MM = 1.0
_MARGIN_MM = 4.0


@dataclass(frozen=True)
class HalfwaySpace:
    """A grid between two visits and the ways from it to both."""

    shape: tuple[int, int, int]  #: (3,): voxels.
    #: (4, 4): index to mm of the half-way space (RAS, along the scanner's axes), multiplies column
    #: vectors.
    affine: np.ndarray
    #: (4, 4): half-way mm to the scanner mm of each visit; rigid, and inverse to each other.
    to_earlier: np.ndarray
    to_later: np.ndarray


def square_root(motion: np.ndarray) -> np.ndarray:
    """Return the rigid motion that, done twice, is the given one.

    Half of the rotation's angle about the same axis, and the translation s with
    ``(sqrt(R) + 1) s = t``. Motions are (4, 4) and multiply column vectors.

    >>> quarter = np.array([[0, -1, 0, 3], [1, 0, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    >>> half = square_root(quarter)
    >>> bool(np.allclose(half @ half, quarter))
    True
    """
    turn = Rotation.from_matrix(motion[:3, :3])
    half = np.eye(4)
    half[:3, :3] = Rotation.from_rotvec(turn.as_rotvec() / 2).as_matrix()
    half[:3, 3] = np.linalg.solve(half[:3, :3] + np.eye(3), motion[:3, 3])
    return half


def halfway_space(
    earlier: tuple[np.ndarray, np.ndarray],
    later: tuple[np.ndarray, np.ndarray],
    motion: np.ndarray,
) -> HalfwaySpace:
    """Lay a grid of 1 mm around both brains in the space between two visits.

    Of each visit: brain mask (X, Y, Z) and affine (4, 4; index to scanner mm). The `motion` (4, 4),
    earlier to later scanner mm, is rigid.

    Raises
    ------
    ValueError
        A brain mask is empty.
    """
    forth = square_root(motion)
    back = np.linalg.inv(forth)
    corners = []
    for (brain, affine), move in ((earlier, forth), (later, back)):
        index = np.argwhere(brain)
        if not index.size:
            raise ValueError("a brain mask is empty")
        corners.append(nib.affines.apply_affine(move @ affine, index))
    places = np.concatenate(corners)
    low = np.floor(places.min(axis=0) - _MARGIN_MM)
    high = np.ceil(places.max(axis=0) + _MARGIN_MM)
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = low
    x, y, z = (int(n) for n in (high - low) / SPACING_MM + 1)
    return HalfwaySpace((x, y, z), affine, back, forth)


def resample(
    array: np.ndarray,
    affine: np.ndarray,
    space: HalfwaySpace,
    to_visit: np.ndarray,
    *,
    order: int = 1,
) -> np.ndarray:
    """Bring an image of a visit to the half-way space, as float32, 0 outside of the image.

    `array` is (X, Y, Z), `affine` (4, 4) brings its index to scanner mm, and `to_visit` (4, 4), one
    of the space's two, half-way mm to those. `order` 1 is trilinear, 0 the nearest, for labels.
    """
    matrix = np.linalg.inv(affine) @ to_visit @ space.affine
    values = np.asarray(array, dtype=np.float32)
    return ndimage.affine_transform(
        values, matrix[:3, :3], matrix[:3, 3], output_shape=space.shape, order=order
    )


def border_width(affines: Sequence[np.ndarray], space: HalfwaySpace) -> np.ndarray:
    """Return how far off (mm) a lesion's border may be along each axis of the half-way space, (3,).

    Half of a voxel of the coarser image, by the affines (4, 4) of both as acquired, and half a
    millimetre for the registration.
    """
    ways = (np.linalg.inv(space.to_earlier), np.linalg.inv(space.to_later))
    sizes = [
        np.abs(way[:3, :3] @ affine[:3, :3]).max(axis=1)
        for way, affine in zip(ways, affines, strict=True)
    ]
    return 0.5 * np.max(sizes, axis=0) + 0.5
