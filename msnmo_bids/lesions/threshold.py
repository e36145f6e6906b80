"""From a lesion probability to lesions, by threshold and smallest lesion: the one chain of all.

The options read their defaults here, so numpy and scipy are imported only where they compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

#: Probabilities are kept in steps of 1 / 4096: exact in float32, and the files stay small.
PROBABILITY_STEPS = 4096
#: Structure of the lesions of `scipy.ndimage.label`: all 26 neighbours of a voxel.
CONNECTIVITY_26 = (((True,) * 3,) * 3,) * 3


@dataclass(frozen=True)
class LesionCriteria:
    """What counts as a lesion; the one place of the defaults.

    A voxel is lesion above the threshold, a probability from 0 to 1. Connected lesions (26
    neighbours) smaller than the least volume (mm³) are dropped. A ValueError names a value that is
    out of range.
    """

    threshold: float = 0.5
    min_volume: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1, not {self.threshold}")
        if self.min_volume < 0:
            raise ValueError(f"the smallest lesion must be 0 mm³ or more, not {self.min_volume}")


class Lesions(NamedTuple):
    """The lesions of a scan, on its own grid, (X, Y, Z).

    The probability is float32 in steps of 1 / 4096. Where a lesion was dropped it is lowered to the
    last step that is not above the threshold: the mask (uint8, 1 in a lesion) is the probability
    above the threshold, voxel by voxel, and the map still shows where a small lesion was dropped.
    Labels (int32) are 1 to n by decreasing volume, 0 elsewhere.
    """

    probability: np.ndarray
    mask: np.ndarray
    labels: np.ndarray


def find_lesions(probability: np.ndarray, voxel_volume: float, criteria: LesionCriteria) -> Lesions:
    """Threshold a probability, drop specks and label the lesions.

    The lesion probability, (X, Y, Z), is on the scan's own grid, 0 to 1, 0 outside of the brain. It
    is rounded to steps of 1 / 4096 before it is compared with the threshold. The volume of a voxel
    is in mm³.

    Examples
    --------
    A lesion of two voxels, and one that is too small:

    >>> import numpy as np
    >>> probability = np.zeros((4, 4, 4))
    >>> probability[0, 0, :2] = probability[3, 3, 3] = 0.9
    >>> found = find_lesions(probability, 1.0, LesionCriteria(threshold=0.5, min_volume=2))
    >>> int(found.mask.sum()), int(found.labels.max()), float(found.probability[3, 3, 3])
    (2, 1, 0.5)
    """
    import numpy as np

    probability = rounded(probability)
    labels = label_lesions(probability > criteria.threshold, voxel_volume, criteria.min_volume)
    highest = np.float32(np.floor(criteria.threshold * PROBABILITY_STEPS) / PROBABILITY_STEPS)
    written = np.where(labels > 0, probability, np.minimum(probability, highest))
    return Lesions(written, (labels > 0).astype(np.uint8), labels)


def label_lesions(mask: np.ndarray, voxel_volume: float, min_volume: float) -> np.ndarray:
    """Label the connected lesions of a mask (X, Y, Z), not 0 in a lesion, and drop specks.

    The volumes, of a voxel and of the smallest lesion that is kept, are in mm³. Labels (int32) are
    1 to n by decreasing volume, ties in the order of the array; 0 elsewhere.
    """
    import numpy as np
    from scipy import ndimage

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
    import numpy as np

    steps = np.rint(np.clip(probability, 0, 1) * PROBABILITY_STEPS)
    return (steps / PROBABILITY_STEPS).astype(np.float32)
