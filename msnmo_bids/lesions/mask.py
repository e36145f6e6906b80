"""Probabilities as they are written, and the labels of lesions."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: Probabilities are kept in steps of 1 / 4096: exact in float32, and the files stay small.
PROBABILITY_STEPS = 4096
#: Structure of the lesions of `scipy.ndimage.label`: all 26 neighbours of a voxel.
CONNECTIVITY_26 = np.ones((3, 3, 3), dtype=bool)


def label_lesions(mask: np.ndarray, voxel_volume: float, min_volume: float) -> np.ndarray:
    """Label the connected lesions of a mask and drop specks.

    Parameters
    ----------
    mask : ndarray, (X, Y, Z)
        Lesion where not 0.
    voxel_volume : float
        Volume of a voxel (mm³).
    min_volume : float
        Connected lesions (26 neighbours) smaller than this are dropped (mm³).

    Returns
    -------
    ndarray of int32, (X, Y, Z)
        1 to n by decreasing volume, ties in the order of the array; 0 elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((4, 4, 4))
    >>> mask[0, 0, :2] = mask[3, 3, 3] = 1
    >>> labels = label_lesions(mask, voxel_volume=1.0, min_volume=2)
    >>> int((labels > 0).sum()), int(labels.max())
    (2, 1)
    """
    components, count = ndimage.label(mask, structure=CONNECTIVITY_26)
    volumes = np.bincount(components.ravel(), minlength=count + 1)[1:] * voxel_volume
    order = np.argsort(-volumes, kind="stable")
    kept = order[volumes[order] >= min_volume - 1e-9]
    renumbered = np.zeros(count + 1, dtype=np.int32)
    renumbered[kept + 1] = np.arange(1, kept.size + 1)
    return renumbered[components]


def rounded(probability: np.ndarray) -> np.ndarray:
    """Clip a probability to 0 .. 1 and round it to steps of 1 / 4096 (float32).

    >>> import numpy as np
    >>> float(rounded(np.array([0.50001]))[0])
    0.5
    """
    steps = np.rint(np.clip(probability, 0, 1) * PROBABILITY_STEPS)
    return (steps / PROBABILITY_STEPS).astype(np.float32)
