"""From class logits to probabilities that can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax


@dataclass(frozen=True)
class Calibration:
    """How class probabilities are made of logits.

    Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", ICML) gives
    q = softmax(logits / temperature). Evidence for one class may be worth more than as much for
    another; with `powers` and `shifts` the probability of class k is proportional to
    exp(shift_k) q_k^power_k: for two classes beta calibration (Kull, Silva Filho & Flach 2017,
    "Beyond sigmoids: how to obtain well-calibrated probabilities from binary classifiers with beta
    calibration", Electron J Stat 11:5052-5080).

    Parameters
    ----------
    temperature : float
        1 leaves the probabilities as they are.
    method : str
        How this was found.
    data : str
        On which data.
    powers, shifts : tuple of float, (K,)
        In the order of the classes; empty: the temperature alone. Powers are 0 or above, so that
        the order of scans is kept.

    Raises
    ------
    ValueError
        If the temperature is not above 0, a power is below 0, or `powers` and `shifts` differ in
        length.

    Examples
    --------
    >>> Calibration(temperature=2.0).probabilities(np.array([0.0, 4.0])).round(2).tolist()
    [0.12, 0.88]
    >>> flat = Calibration(powers=(0.0, 1.0), shifts=(0.0, 0.7))
    >>> flat.probabilities(np.array([[9.0, 0.0], [0.0, 9.0]])).round(2).tolist()
    [[1.0, 0.0], [0.33, 0.67]]
    """

    temperature: float = 1.0
    method: str = "none"
    data: str = "none"
    powers: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("powers", "shifts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if len(self.powers) != len(self.shifts):
            raise ValueError(f"powers {self.powers} and shifts {self.shifts} differ in length")
        if any(power < 0 for power in self.powers):
            raise ValueError(f"powers must be 0 or above, not {self.powers}")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return class probabilities.

        Parameters
        ----------
        logits : ndarray, (..., K)
            As the network gives them.

        Returns
        -------
        ndarray of float64, (..., K)
            Sum 1 over the last axis.
        """
        scaled = log_softmax(np.asarray(logits, dtype=float) / self.temperature, axis=-1)
        if self.powers:
            scaled = scaled * np.asarray(self.powers) + np.asarray(self.shifts)
        return np.asarray(softmax(scaled, axis=-1))
