"""What a scan's own contrast says of the lesions that a network found.

**Where a lesion ends:** half-way between its brightness and that of the tissue around it. A network
finds lesions on a resized brain, and its outlines there are learnt. Raters outline on the scan
itself, often with a local threshold (Grimaud et al. 1996, "Quantification of MRI lesion load in
multiple sclerosis: a comparison of three computer-assisted techniques", Magn Reson Imaging
14:495-505). So on the scan's own grid the lesion probability p of a voxel of intensity I becomes

    logit p' = logit p + 8 (r - 1/2),    r = (I - B) / max(L - B, 0.4),  r - 1/2 cut at -1 and 1,

with the local means L of the lesions and B of the brain tissue around them (Gaussian, s.d. 5 mm)
and intensities relative to the brain's median. Only voxels within 2 mm of a lesion change.

**Too bright for a lesion:** fat of the skull base, skin or an eye that the brain mask holds, and
the pituitary stand out from the tissue around them by more than the brain's whole median; lesions
of the seven labelled scans at hand by at most 0.7 of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from msnmo_bids.lesions.mask import CONNECTIVITY_26

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
#: A finding that stands out from its surroundings by more than this is no lesion; relative to the
#: brain's median ...
MOST_CONTRAST = 1.0
#: ... and to the contrast that most of the lesion volume of the scan has.
MOST_RELATIVE_CONTRAST = 1.75
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
    result = np.array(probability, dtype=np.float32)
    found = _surroundings(result, image, brain, zooms, threshold)
    if found is None:
        return result
    window = found.window
    lesion_mean, _ = local_mean(found.relative, found.lesions, _neighbourhood(zooms))
    contrast = np.maximum(lesion_mean - found.tissue_mean, LEAST_CONTRAST)
    beyond_half = np.clip((found.relative - found.tissue_mean) / contrast - 0.5, -1, 1)
    before = logit(np.clip(result[window], 1 - _SUREST, _SUREST))
    near = (found.away <= REACH_MM) & brain[window] & np.isfinite(found.tissue_mean)
    result[window] = np.where(near, expit(before + CONTRAST_WEIGHT * beyond_half), result[window])
    return result


def drop_too_bright(
    probability: np.ndarray,
    image: np.ndarray,
    brain: np.ndarray,
    zooms: tuple[float, float, float],
    *,
    threshold: float,
) -> np.ndarray:
    """Give up lesions that are too bright to be any.

    Parameters
    ----------
    probability, image, brain, zooms, threshold
        As for `outline_by_contrast`. Lesions are what is connected (26 neighbours).

    Returns
    -------
    ndarray of float32, (X, Y, Z)
        The probability, 0 in lesions whose mean contrast to the brain tissue around them is above
        both limits: `MOST_CONTRAST`, and `MOST_RELATIVE_CONTRAST` times the median over the scan's
        lesion volume. So most of the volume always stays.

    Raises
    ------
    ValueError
        If the arrays differ in shape.

    Examples
    --------
    A lesion, and fat beyond the edge of the brain that the mask holds:

    >>> image, probability = np.ones((30, 10, 10)), np.zeros((30, 10, 10))
    >>> image[4:9, 4:8, 4:8], image[28:, 4:8, 4:8] = 1.5, 3.0
    >>> probability[image > 1] = 0.9
    >>> brain = np.ones(image.shape, dtype=bool)
    >>> kept = drop_too_bright(probability, image, brain, (1, 1, 1), threshold=0.5) > 0.5
    >>> np.flatnonzero(kept[:, 5, 5]).tolist()
    [4, 5, 6, 7, 8]
    """
    result = np.array(probability, dtype=np.float32)
    found = _surroundings(result, image, brain, zooms, threshold)
    if found is None:
        return result
    labels, count = ndimage.label(found.lesions, structure=CONNECTIVITY_26)
    numbers = np.arange(1, count + 1)
    contrasts = ndimage.mean(np.nan_to_num(found.relative - found.tissue_mean), labels, numbers)
    typical = np.median(contrasts[labels[found.lesions] - 1])
    too_bright = contrasts > max(MOST_CONTRAST, MOST_RELATIVE_CONTRAST * typical)
    result[found.window][np.isin(labels, numbers[too_bright])] = 0.0
    return result


class _Surroundings(NamedTuple):
    """Lesions and what is around them, in a box that holds both."""

    window: tuple[slice, ...]  # the box
    lesions: np.ndarray
    relative: np.ndarray  # the image; the brain's median is 1
    tissue_mean: np.ndarray  # local mean of the tissue beyond the reach; NaN where there is none
    away: np.ndarray  # from the lesions, mm


def _surroundings(
    probability: np.ndarray,
    image: np.ndarray,
    brain: np.ndarray,
    zooms: tuple[float, float, float],
    threshold: float,
) -> _Surroundings | None:
    """Look around the lesions; None where there are none, or in an image of nothing."""
    if not probability.shape == image.shape == brain.shape:
        raise ValueError(f"shapes differ: {probability.shape}, {image.shape}, {brain.shape}")
    lesions = probability > threshold
    if not lesions.any() or not brain.any():
        return None
    scale = float(np.median(image[brain]))
    if scale <= 0:
        return None
    window = _window(lesions, zooms)
    lesions = lesions[window]
    relative = np.asarray(image[window], dtype=np.float32) / np.float32(scale)
    away = ndimage.distance_transform_edt(~lesions, sampling=zooms)
    tissue = (away > REACH_MM) & brain[window] & (relative > _DARKEST_TISSUE)
    mean, weight = local_mean(relative, tissue, _neighbourhood(zooms))
    mean = np.where(weight > _LEAST_WEIGHT, mean, np.nan)
    return _Surroundings(window, lesions, relative, mean, away)


def _window(lesions: np.ndarray, zooms: tuple[float, float, float]) -> tuple[slice, ...]:
    """Return the box of the lesions and all of their neighbourhoods."""
    margins = [int(np.ceil(4 * NEIGHBOURHOOD_MM / size)) for size in zooms]
    boxes = ndimage.find_objects(lesions.astype(np.uint8))[0]
    return tuple(
        slice(max(0, box.start - margin), box.stop + margin)
        for box, margin in zip(boxes, margins, strict=True)
    )


def _neighbourhood(zooms: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the s.d. of the neighbourhood in voxels."""
    x, y, z = (NEIGHBOURHOOD_MM / size for size in zooms)
    return x, y, z


def local_mean(
    image: np.ndarray, where: np.ndarray, sigma: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gaussian mean of an image over a mask.

    Parameters
    ----------
    image : ndarray, (X, Y, Z)
        In any unit.
    where : ndarray of bool, (X, Y, Z)
        Voxels that count.
    sigma : tuple of float, (3,)
        s.d. of the Gaussian (voxels); it ends at three of them.

    Returns
    -------
    mean : ndarray of float32, (X, Y, Z)
        0 where no voxel is near.
    weight : ndarray of float32, (X, Y, Z)
        Share of the Gaussian that the mask holds, 0 to 1.
    """
    weight = ndimage.gaussian_filter(where.astype(np.float32), sigma, truncate=3.0)
    total = ndimage.gaussian_filter((image * where).astype(np.float32), sigma, truncate=3.0)
    return total / np.maximum(weight, 1e-6), weight
