"""From class logits to probabilities that can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, softmax

#: What the two ways are called in metadata, derivatives and methods texts.
TEMPERATURE_SCALING = "temperature scaling"
BETA_CALIBRATION = "beta calibration"


@dataclass(frozen=True)
class Calibration:
    """How class probabilities are made of logits.

    Either softmax(logits / temperature) (Guo et al. 2017, "On calibration of modern neural
    networks", ICML), or, for two classes, beta calibration (Kull, Silva Filho & Flach 2017, "Beyond
    sigmoids", Electronic Journal of Statistics 11:5052-5080): with p the logistic function of the
    margin of the second logit over the first, the log odds of the second class are
    ``a ln p - b ln(1 - p) + c``. With two slopes evidence for one class can be worth less than as
    much for the other.

    Parameters
    ----------
    temperature : float
        1 leaves the probabilities as they are. Not used with `beta`.
    method : str
        How this was found.
    data : str
        On which data.
    beta : tuple of float, (3,)
        a, b and c; a and b, 0 or above, are the slopes for margins far below and far above 0.
        Empty: temperature scaling.

    Raises
    ------
    ValueError
        If the temperature is not above 0, `beta` does not have three values, or a slope is
        negative.

    Examples
    --------
    >>> Calibration(temperature=2.0).probabilities(np.array([0.0, 4.0])).round(2).tolist()
    [0.12, 0.88]
    >>> Calibration(beta=(1.0, 0.5, 0.0)).probabilities(np.array([0.0, -3.0])).round(2).tolist()
    [0.95, 0.05]
    """

    temperature: float = 1.0
    method: str = "none"
    data: str = "none"
    beta: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", tuple(self.beta))
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if self.beta and (len(self.beta) != 3 or min(self.beta[:2]) < 0):
            raise ValueError(f"beta must be two slopes of 0 or above and an offset: {self.beta}")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return class probabilities.

        Parameters
        ----------
        logits : ndarray, (..., K)
            As the network gives them; with `beta` K is 2.

        Returns
        -------
        ndarray of float64, (..., K)
            Sum 1 over the last axis.
        """
        logits = np.asarray(logits, dtype=float)
        if not self.beta:
            return np.asarray(softmax(logits / self.temperature, axis=-1))
        margin = logits[..., 1] - logits[..., 0]
        below, above, offset = self.beta
        second = expit(below * log_expit(margin) - above * log_expit(-margin) + offset)
        return np.stack([1 - second, second], axis=-1)
