"""Lesion mask and labels of a probability map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: Probabilities are kept in steps of 1 / 4096: exact in float32, and the files stay small.
PROBABILITY_STEPS = 4096
#: Structure of the lesions of `scipy.ndimage.label`: all 26 neighbours of a voxel.
CONNECTIVITY_26 = np.ones((3, 3, 3), dtype=bool)


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
    components, count = ndimage.label(probability > threshold, structure=CONNECTIVITY_26)
    volumes = np.bincount(components.ravel(), minlength=count + 1)[1:] * voxel_volume
    order = np.argsort(-volumes, kind="stable")
    kept = order[volumes[order] >= min_volume - 1e-9]
    renumbered = np.zeros(count + 1, dtype=np.int32)
    renumbered[kept + 1] = np.arange(1, kept.size + 1)
    labels = renumbered[components]
    return (labels > 0).astype(np.uint8), labels


def rounded(probability: np.ndarray) -> np.ndarray:
    """Clip a probability to 0 .. 1 and round it to steps of 1 / 4096 (float32).

    >>> import numpy as np
    >>> float(rounded(np.array([0.50001]))[0])
    0.5
    """
    steps = np.rint(np.clip(probability, 0, 1) * PROBABILITY_STEPS)
    return (steps / PROBABILITY_STEPS).astype(np.float32)


def without_dropped(probability: np.ndarray, lesions: np.ndarray, threshold: float) -> np.ndarray:
    """Lower the probability of lesions that were too small to the threshold, no further.

    So the lesion mask is the written probability above the threshold, voxel by voxel, and the
    map still shows where a small lesion was dropped.

    Parameters
    ----------
    probability : ndarray of float32, (X, Y, Z)
        In steps of 1 / 4096.
    lesions : ndarray of bool, (X, Y, Z)
        The lesion mask.
    threshold : float
        Lesion above this probability.

    Returns
    -------
    ndarray of float32, (X, Y, Z)
        At most the threshold (rounded down to a step) outside of the mask.
    """
    highest = np.float32(np.floor(threshold * PROBABILITY_STEPS) / PROBABILITY_STEPS)
    return np.where(lesions, probability, np.minimum(probability, highest))
