"""Locations inside the regions: corpus callosum, and those typical of NMOSD.

Each is a tube around a line in MNI space, wide enough for what an affine registration misses. A
lesion can lie at several locations, and lies in its region (`regions`) all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import nibabel as nib
import numpy as np
from scipy import ndimage

#: A lesion lies at a location with this much of it there (mm³: a sphere of 3 mm) or with a half; at
#: one that passes through tissue in which lesions of any kind lie, with a half.
LEAST_VOLUME, LEAST_SHARE = 14.0, 0.5


@dataclass(frozen=True)
class Location:
    """A tube in MNI space.

    Parameters
    ----------
    line : tuple of (float, float, float)
        Points (MNI mm) that straight lines join.
    radius : float
        Distance from the line that belongs to the location (mm).
    half_width : float
        Distance across the midsagittal plane that is free (mm): a sheet instead of a tube.
    both_sides : bool
        Whether the mirrored line belongs to it too.
    nmosd : bool
        Whether the location is typical of NMOSD.
    with_half : bool
        Whether a lesion must have half of itself there, however large it is.
    """

    line: tuple[tuple[float, float, float], ...]
    radius: float
    half_width: float = 0.0
    both_sides: bool = False
    nmosd: bool = True
    with_half: bool = False

    def holds(self, places: np.ndarray) -> np.ndarray:
        """Say which places lie in the location.

        Parameters
        ----------
        places : ndarray, (..., 3)
            MNI mm.

        Returns
        -------
        ndarray of bool, (...)
        """
        points = np.array(places, dtype=float)
        if self.both_sides:
            points[..., 0] = np.abs(points[..., 0])
        across = points[..., 0]
        points[..., 0] = np.sign(across) * np.maximum(np.abs(across) - self.half_width, 0)
        line = np.array(self.line)
        nearest = [_distance(points, start, end) for start, end in pairwise(line)]
        return np.min(nearest, axis=0) <= self.radius


LOCATIONS = {
    "corpus_callosum": Location(
        ((0, 22, -4), (0, 29, 6), (0, 20, 20), (0, 0, 26), (0, -22, 25), (0, -36, 16), (0, -37, 8)),
        radius=6.0,
        half_width=9.0,
        nmosd=False,
    ),
    "periaqueductal_fourth_ventricle": Location(
        ((0, -29, -4), (0, -34, -14), (0, -39, -24), (0, -43, -34), (0, -43, -44)), radius=9.0
    ),
    "area_postrema": Location(((0, -42, -48), (0, -43, -56)), radius=6.0),
    "hypothalamus_third_ventricle": Location(
        ((0, 2, -10), (0, -5, -6), (0, -14, 0), (0, -25, 1)), radius=8.0
    ),
    "corticospinal_tract": Location(
        ((34, -24, 54), (27, -22, 32), (23, -19, 10), (15, -17, -12), (7, -23, -32), (4, -36, -54)),
        radius=5.0,
        both_sides=True,
        with_half=True,
    ),
}
NMOSD_LOCATIONS = tuple(name for name, location in LOCATIONS.items() if location.nmosd)


def lesion_locations(
    labels: np.ndarray, to_mni: np.ndarray, voxel_volume: float
) -> dict[int, dict[str, float]]:
    """Find the locations at which each lesion lies.

    Parameters
    ----------
    labels : ndarray, (X, Y, Z)
        1 to n.
    to_mni : ndarray, (4, 4)
        Index to MNI mm.
    voxel_volume : float
        Volume of a voxel (mm³).

    Returns
    -------
    dict
        For each label the volume (mm³) within each location at which it lies; empty at none.
    """
    found: dict[int, dict[str, float]] = {}
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        index = np.argwhere(labels[box] == number) + [part.start for part in box]
        places = nib.affines.apply_affine(to_mni, index)
        volumes = {
            name: float(np.count_nonzero(location.holds(places))) * voxel_volume
            for name, location in LOCATIONS.items()
        }
        half = LEAST_SHARE * len(index) * voxel_volume
        found[number] = {
            name: volume
            for name, volume in volumes.items()
            if volume >= (half if LOCATIONS[name].with_half else min(LEAST_VOLUME, half)) > 0
        }
    return found


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distance of points (..., 3) from the line between two points."""
    along = end - start
    share = np.clip((points - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - start - share[..., None] * along, axis=-1)
