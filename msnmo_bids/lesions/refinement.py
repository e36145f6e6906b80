"""From the lesion probability that a network gives to that of the scan's mask.

One chain for the app, the cross-validation and the test on simulated scans, so that what is
measured is what is written.
"""

from __future__ import annotations

import numpy as np

from msnmo_bids.lesions.contrast import drop_too_bright, outline_by_contrast
from msnmo_bids.lesions.misplaced import drop_misplaced
from msnmo_bids.lesions.regions import Regions


def refine(
    probability: np.ndarray,
    image: np.ndarray,
    brain: np.ndarray,
    zooms: tuple[float, float, float],
    regions: Regions,
    *,
    threshold: float,
    outline: str,
) -> np.ndarray:
    """Outline lesions as asked; give up those that are too bright or lie where no lesion does.

    Parameters
    ----------
    probability : ndarray of float, (X, Y, Z)
        Lesion probability, on the scan's own grid (RAS order).
    image : ndarray, (X, Y, Z)
        The FLAIR, in any unit.
    brain : ndarray of bool, (X, Y, Z)
        Brain mask.
    zooms : tuple of float, (3,)
        Voxel size (mm).
    regions : Regions
        Of the scan.
    threshold : float
        Lesion above this probability, before and after.
    outline : {"probability", "contrast"}
        Where a lesion ends, see :class:`~msnmo_bids.settings.ProcessingSettings`.

    Returns
    -------
    ndarray of float32, (X, Y, Z)
        The probability.

    Raises
    ------
    ValueError
        If the arrays differ in shape.
    """
    if outline == "contrast":
        probability = outline_by_contrast(probability, image, brain, zooms, threshold=threshold)
    probability = drop_too_bright(probability, image, brain, zooms, threshold=threshold)
    return drop_misplaced(probability, brain, zooms, regions, threshold=threshold)
