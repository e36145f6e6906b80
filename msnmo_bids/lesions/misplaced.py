"""Findings at places where no lesion lies: between the lateral ventricles, and beyond the brain.

The septum pellucidum and the fornix are bright on many FLAIR images, and so is what a brain mask
holds below the brain (cavernous sinus, skull base). Networks mark both. Of 2,229 lesions of people
with MS in MNI space (the library that the simulator takes its shapes from) none lies for the most
part between the lateral ventricles of the atlas, and each has at least 0.47 of itself in the
atlas's brain (mean probability). No such library is at hand for NMOSD; its typical sites
(`sites`) lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.mask import CONNECTIVITY_26
from msnmo_bids.lesions.regions import VENTRICLE, Regions, atlas_at, atlas_fits

#: Tissue between the walls of the two lateral ventricles is septum or fornix where they are at most
#: this far apart (mm), ...
SEPTUM_MM = 16.0
#: ... and so far above too (mm), since the corpus callosum roofs the ventricles; thicker slices are
#: not compared with those above.
_ROOF_MM = 4.0
#: A finding with more of itself there is none.
MOST_SHARE_IN_SEPTUM = 2 / 3
#: A finding is none where less than this share of the atlas's heads have brain (mean over the
#: finding).
LEAST_BRAIN = 0.2


def between_ventricles(regions: Regions, zooms: Sequence[float]) -> np.ndarray:
    """Find the septum pellucidum and the fornix: tissue between the lateral ventricles.

    Parameters
    ----------
    regions : Regions
        Of the scan.
    zooms : sequence of float, (3,)
        Voxel size (mm).

    Returns
    -------
    ndarray of bool, (X, Y, Z)
        Voxels with the wall of a ventricle on their left and one on their right, on both sides of
        the midsagittal plane and at most `SEPTUM_MM` apart, and again 4 mm above. So neither the
        thalamus, between the third and a lateral ventricle, belongs to it nor the corpus callosum.
    """
    found = np.zeros(regions.codes.shape, dtype=bool)
    boxes = ndimage.find_objects((regions.codes == VENTRICLE).astype(np.uint8))
    if not boxes:
        return found
    ventricle = regions.codes[boxes[0]] == VENTRICLE
    corner = [part.start for part in boxes[0]]
    size = len(ventricle)
    index = np.arange(size).reshape(-1, 1, 1)
    left = np.maximum.accumulate(np.where(ventricle, index, -1), axis=0)
    right = np.minimum.accumulate(np.where(ventricle, index, size)[::-1], axis=0)[::-1]
    near = ~ventricle & (left >= 0) & (right < size)
    near &= (right - left - 1) * zooms[0] <= SEPTUM_MM
    x_left, x_right = (_across(regions.to_mni, wall, near, corner) for wall in (left, right))
    found[boxes[0]][near] = (x_left < 0) & (x_right > 0)
    above = int(_ROOF_MM / zooms[2])
    if above:
        found[..., :-above] &= found[..., above:].copy()
        found[..., -above:] = False
    return found


def _across(
    to_mni: np.ndarray, wall: np.ndarray, where: np.ndarray, corner: Sequence[int]
) -> np.ndarray:
    """Return how far right of the midsagittal plane the walls of voxels are, (N,), MNI mm."""
    places = np.argwhere(where)
    places[:, 0] = wall[where]
    x: np.ndarray = (places + corner) @ to_mni[0, :3] + to_mni[0, 3]
    return x


def drop_misplaced(
    probability: np.ndarray,
    brain: np.ndarray,
    zooms: Sequence[float],
    regions: Regions,
    *,
    threshold: float,
) -> np.ndarray:
    """Give up findings that lie where no lesion does.

    Parameters
    ----------
    probability : ndarray of float, (X, Y, Z)
        Lesion probability, on the scan's own grid (RAS order).
    brain : ndarray of bool, (X, Y, Z)
        Brain mask.
    zooms : sequence of float, (3,)
        Voxel size (mm).
    regions : Regions
        Of the scan.
    threshold : float
        Lesion above this probability; lesions are what is connected (26 neighbours).

    Returns
    -------
    ndarray of float32, (X, Y, Z)
        The probability, 0 in findings that lie for the most part between the lateral ventricles or
        beyond the brain. The same probability where the atlas does not fit the scan.

    Raises
    ------
    ValueError
        If the arrays differ in shape.
    """
    result = np.array(probability, dtype=np.float32)
    if not result.shape == brain.shape == regions.codes.shape:
        raise ValueError(f"shapes differ: {result.shape}, {brain.shape}, {regions.codes.shape}")
    labels, count = ndimage.label(result > threshold, structure=CONNECTIVITY_26)
    if not count:
        return result
    if not atlas_fits(regions.to_atlas, brain):
        return result
    numbers = np.arange(1, count + 1)
    in_septum = ndimage.mean(between_ventricles(regions, zooms), labels, numbers)
    places = np.argwhere(labels)
    in_atlas = atlas_at(regions.to_atlas, places).sum(axis=0)
    in_brain = ndimage.mean(in_atlas, labels[tuple(places.T)], numbers)
    misplaced = (in_septum > MOST_SHARE_IN_SEPTUM) | (in_brain < LEAST_BRAIN)
    result[np.isin(labels, numbers[misplaced])] = 0.0
    return result
