"""Which true lesions a segmentation finds, by site and size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dev.simulated_people import LOG_VOLUME, Person
from msnmo_bids.lesions.descriptors import DESCRIPTORS

#: Sites, the first that holds: a descriptor and its least and greatest value.
_SITES = {
    "brainstem": ("brainstem", 0.5, None),
    "cerebellum": ("cerebellum", 0.5, None),
    "lower ventricles": ("lower_least", None, 3.0),
    "lateral ventricles": ("lateral_least", None, 3.0),
    "cortex": ("cortex_least", None, 3.0),
    "deep": ("log_volume", None, None),
}
_SIZES = (0.0, 14.0, 100.0, 1000.0, np.inf)  # mm³


def sensitivity_by_site(people: Sequence[Person]) -> dict[str, dict[str, tuple[int, float]]]:
    """Tell which true lesions of people are found, at least in part.

    Site -> range of volumes (mm³) -> number of lesions, and share of them that is found.
    """
    rows = np.concatenate([person.true for person in people])
    seen = np.concatenate([person.seen for person in people])
    volumes, left = np.exp(rows[:, LOG_VOLUME]), np.ones(len(rows), bool)
    table: dict[str, dict[str, tuple[int, float]]] = {}
    for site, (name, least, most) in _SITES.items():
        values = rows[:, list(DESCRIPTORS).index(name)]
        here = left & (values >= (-np.inf if least is None else least))
        here &= values <= (np.inf if most is None else most)
        left &= ~here
        table[site] = {}
        for low, high in pairwise(_SIZES):
            inside = here & (volumes >= low) & (volumes < high)
            if inside.any():
                size = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and above"
                table[site][size] = int(inside.sum()), round(float(seen[inside].mean()), 3)
    return table
