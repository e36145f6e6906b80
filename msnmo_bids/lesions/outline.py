"""Where a lesion ends: half-way between its brightness and that of the tissue around it.

A network finds lesions on a resized brain, and its outlines there are learnt. Raters outline on
the scan itself, often with a local threshold (Grimaud et al. 1996, "Quantification of MRI lesion
load in multiple sclerosis: a comparison of three computer-assisted techniques", Magn Reson Imaging
14:495-505). So on the scan's own grid the lesion probability p of a voxel of intensity I becomes

    logit p' = logit p + 8 (r - 1/2),    r = (I - B) / max(L - B, 0.4),  r - 1/2 cut at -1 and 1,

with the local means L of the lesions and B of the brain tissue around them (Gaussian, s.d. 5 mm)
and intensities relative to the brain's median. Only voxels within 2 mm of a lesion change.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

#: How much a whole contrast counts, in units of the probability's logit.
CONTRAST_WEIGHT = 8.0
#: A lesion that is less bright than this against its surroundings is outlined as if it were so
#: bright, and so more narrowly; relative to the brain's median.
LEAST_CONTRAST = 0.4
#: s.d. of the Gaussian that the local means are weighted by (mm).
NEIGHBOURHOOD_MM = 5.0
#: How far an outline may move outwards; tissue farther away is what lesions are compared with (mm).
REACH_MM = 2.0
#: Darker voxels (fluid) are not compared with; relative to the brain's median.
_DARKEST_TISSUE = 0.7
_SUREST = 0.999  # probabilities count as at most this, and at least as 1 minus this
_LEAST_WEIGHT = 1e-3  # of the tissue in a neighbourhood; with less there is nothing to compare with


def outline_by_contrast(
    probability: np.ndarray,
    image: np.ndarray,
    brain: np.ndarray,
    zooms: tuple[float, float, float],
    *,
    threshold: float,
) -> np.ndarray:
    """Move the outlines of lesions to where they have half of their contrast.

    Parameters
    ----------
    probability : ndarray of float, (X, Y, Z)
        Lesion probability, on the scan's own grid.
    image : ndarray, (X, Y, Z)
        The FLAIR, in any unit.
    brain : ndarray of bool, (X, Y, Z)
        Brain mask.
    zooms : tuple of float, (3,)
        Voxel size (mm).
    threshold : float
        Lesion above this probability, before and after.

    Returns
    -------
    ndarray of float32, (X, Y, Z)
        The probability; another one in lesions and within 2 mm of them, inside the brain.

    Raises
    ------
    ValueError
        If the arrays differ in shape.

    Examples
    --------
    A bright square, whose probability stops short of one side and goes beyond the other:

    >>> image, probability = np.ones((2, 20, 20, 1))
    >>> image[5:15, 5:15], probability[...], probability[7:17, 5:15] = 2.0, 0.3, 0.8
    >>> brain = np.ones(image.shape, dtype=bool)
    >>> moved = outline_by_contrast(probability, image, brain, (1, 1, 1), threshold=0.5) > 0.5
    >>> np.flatnonzero(moved[:, 10, 0]).tolist()
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    """
    if not probability.shape == image.shape == brain.shape:
        raise ValueError(f"shapes differ: {probability.shape}, {image.shape}, {brain.shape}")
    result = np.array(probability, dtype=np.float32)
    lesions = result > threshold
    scale = float(np.median(image[brain])) if brain.any() else 0.0
    if not lesions.any() or scale <= 0:
        return result
    window = _window(lesions, zooms)
    lesions, inside = lesions[window], brain[window]
    relative = np.asarray(image[window], dtype=np.float32) / np.float32(scale)
    away = ndimage.distance_transform_edt(~lesions, sampling=zooms)
    tissue = (away > REACH_MM) & inside & (relative > _DARKEST_TISSUE)
    lesion_mean, _ = _local_mean(relative, lesions, zooms)
    tissue_mean, weight = _local_mean(relative, tissue, zooms)
    contrast = np.maximum(lesion_mean - tissue_mean, LEAST_CONTRAST)
    beyond_half = np.clip((relative - tissue_mean) / contrast - 0.5, -1, 1)
    before = logit(np.clip(result[window], 1 - _SUREST, _SUREST))
    near = (away <= REACH_MM) & inside & (weight > _LEAST_WEIGHT)
    result[window] = np.where(near, expit(before + CONTRAST_WEIGHT * beyond_half), result[window])
    return result


def _window(lesions: np.ndarray, zooms: tuple[float, float, float]) -> tuple[slice, ...]:
    """Return the box of the lesions and all of their neighbourhoods."""
    margins = [int(np.ceil(4 * NEIGHBOURHOOD_MM / size)) for size in zooms]
    boxes = ndimage.find_objects(lesions.astype(np.uint8))[0]
    return tuple(
        slice(max(0, box.start - margin), box.stop + margin)
        for box, margin in zip(boxes, margins, strict=True)
    )


def _local_mean(
    image: np.ndarray, where: np.ndarray, zooms: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gaussian mean of an image over a mask, and the mask's weight (0 to 1)."""
    sigma = [NEIGHBOURHOOD_MM / size for size in zooms]
    weight = ndimage.gaussian_filter(where.astype(np.float32), sigma, truncate=3.0)
    total = ndimage.gaussian_filter(image * where, sigma, truncate=3.0)
    return total / np.maximum(weight, 1e-6), weight
