"""Lesion mask and labels of a probability map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_CONNECTIVITY_26 = np.ones((3, 3, 3), dtype=bool)


def segment(
    probability: np.ndarray, voxel_volume: float, *, threshold: float, min_volume: float
) -> tuple[np.ndarray, np.ndarray]:
    """Threshold a probability, drop specks and label the lesions.

    Parameters
    ----------
    probability : ndarray, (X, Y, Z)
        Lesion probability, 0 to 1.
    voxel_volume : float
        Volume of a voxel (mm³).
    threshold : float
        Lesion above this probability.
    min_volume : float
        Connected lesions (26 neighbours) smaller than this are dropped (mm³).

    Returns
    -------
    mask : ndarray, (X, Y, Z), uint8
        1 in a lesion.
    labels : ndarray, (X, Y, Z), int32
        1 to n by decreasing volume, ties in the order of the array; 0 elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> probability = np.zeros((4, 4, 4))
    >>> probability[0, 0, :2] = probability[3, 3, 3] = 0.9
    >>> mask, labels = segment(probability, 1.0, threshold=0.5, min_volume=2)
    >>> int(mask.sum()), int(labels.max())
    (2, 1)
    """
    components, count = ndimage.label(probability > threshold, structure=_CONNECTIVITY_26)
    volumes = np.bincount(components.ravel(), minlength=count + 1)[1:] * voxel_volume
    order = np.argsort(-volumes, kind="stable")
    kept = order[volumes[order] >= min_volume - 1e-9]
    renumbered = np.zeros(count + 1, dtype=np.int32)
    renumbered[kept + 1] = np.arange(1, kept.size + 1)
    labels = renumbered[components]
    return (labels > 0).astype(np.uint8), labels
