"""What a segmentation makes of true lesions: which it misses, and what it marks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import expit

from dev.simulated_people import LOG_VOLUME, Person
from msnmo_bids.lesions.descriptors import DESCRIPTORS

#: What the chance to be found depends on: size, depth and location.
COLUMNS = ("log_volume", "cortex_least", "near_lateral", "near_lower", "brainstem", "cerebellum")
_INDEX = [list(DESCRIPTORS).index(name) for name in COLUMNS]
#: Before any mask was found: as weights 0.13.0 found the simulator's lesions (deep 59 %,
#: periventricular 51, infratentorial 29, lower ependyma and medulla 24, confluent all).
_COEFFICIENTS, _INTERCEPT = (0.8, 0.03, -0.3, -0.7, -1.2, -1.0), -2.8
_FALSE_PER_SCAN = 2.0
_LIKE_LOAD = 0.1  # false lesions come from this share of the people, those with the nearest loads


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
    """Tell which true lesions of people whom weights have looked at are found, at least in part.

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


@dataclass(frozen=True)
class Detection:
    """Which true lesions are found, and which false ones with them.

    Parameters
    ----------
    coefficients : ndarray, (len(COLUMNS),)
        Of the log odds to be found.
    intercept : float
        Likewise.
    false : list of ndarray, (M_k, D)
        False lesions of K people, who are sorted by load.
    loads : ndarray, (K,)
        Their loads (mm³).
    """

    coefficients: np.ndarray
    intercept: float
    false: list[np.ndarray]
    loads: np.ndarray

    @classmethod
    def assumed(cls, people: Sequence[Person]) -> Detection:
        """Before any mask was found: a lesion that is small and another's is pasted as false."""
        rng = np.random.default_rng(0)
        people = [person for person in people if len(person.true)]
        small = [p.true[p.true[:, LOG_VOLUME] < np.log(100)] for p in people]
        some = [rows[rng.random(len(rows)) < _FALSE_PER_SCAN / max(len(rows), 1)] for rows in small]
        return cls._sorted(np.array(_COEFFICIENTS), _INTERCEPT, some, people)

    @classmethod
    def fitted(cls, people: Sequence[Person]) -> Detection:
        """As the weights did that looked at these people."""
        from sklearn.linear_model import LogisticRegression

        rows = np.concatenate([p.true for p in people])[:, _INDEX]
        model = LogisticRegression(max_iter=2000).fit(
            rows, np.concatenate([p.seen for p in people])
        )
        false = [p.found[p.false] for p in people]
        return cls._sorted(model.coef_[0], float(model.intercept_[0]), false, people)

    @classmethod
    def _sorted(
        cls,
        coefficients: np.ndarray,
        intercept: float,
        false: list[np.ndarray],
        people: Sequence[Person],
    ) -> Detection:
        loads = np.array([person.load for person in people])
        order = np.argsort(loads, kind="stable")
        return cls(coefficients, intercept, [false[k] for k in order], loads[order])

    def chance(self, rows: np.ndarray) -> np.ndarray:
        """Chance of each lesion, (N, D), to be found, (N,)."""
        return expit(rows[:, _INDEX] @ self.coefficients + self.intercept)

    def apply(self, person: Person, rng: np.random.Generator) -> np.ndarray:
        """Draw what is found of a person, (M, D): some true lesions, and another's false ones."""
        kept = person.true[rng.random(len(person.true)) < self.chance(person.true)]
        reach = max(1, round(_LIKE_LOAD * len(self.loads)))
        nearest = np.searchsorted(self.loads, person.load) - reach // 2 + rng.integers(reach)
        return np.concatenate([kept, self.false[int(np.clip(nearest, 0, len(self.loads) - 1))]])
