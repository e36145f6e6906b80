"""What makes a finding a lesion, made up for tests."""

from __future__ import annotations

import numpy as np

from msnmo_bids.model.confirmation import Evidence, terms
from msnmo_bids.model.findings import FEATURES


def evidence_above(level: float, feature: str = "share_above_0.7") -> Evidence:
    """Return evidence that a finding is a lesion if a feature is above a level."""
    count = len(FEATURES)
    weights = np.zeros(terms(np.zeros((1, count))).shape[1])
    weights[FEATURES.index(feature)] = 1e4
    return Evidence(
        means=(0.0,) * count,
        scales=(1.0,) * count,
        lowest=(-100.0,) * count,
        highest=(100.0,) * count,
        weights=tuple(weights),
        intercept=-1e4 * level,
        data="nothing",
    )
