"""The training sample: a preprocessed scan and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sample:
    """A training sample.

    Parameters
    ----------
    image : ndarray, (D, H, W), float16
        z-scores, background 0: the network's input cube.
    lesions : ndarray, (D, H, W), uint8, or None
        Lesion mask; None where no mask is known.
    diagnosis : int or None
        Index of the class; None where the diagnosis is not known.
    name : str
        Where it is from, such as ``"dataset/sub-01_ses-1"``.
    """

    image: np.ndarray
    lesions: np.ndarray | None
    diagnosis: int | None
    name: str = ""
