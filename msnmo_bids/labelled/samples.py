"""A training sample: what the networks see of one scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One scan as a network sees it, and what is known of it.

    Parameters
    ----------
    image : ndarray, (D, H, W), float16
        z-scores, background 0.
    lesions : ndarray, (D, H, W), uint8, or None
        Lesion mask (0, 1); None: no mask is known.
    diagnosis : int or None
        Index of the class; None: unknown.
    name : str
        ``"dataset/sub-01_ses-1"``.
    """

    image: np.ndarray
    lesions: np.ndarray | None
    diagnosis: int | None
    name: str = ""
