"""From class logits to probabilities that can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

#: What the two ways are called in metadata, derivatives and methods texts.
TEMPERATURE_SCALING = "temperature scaling"
ISOTONIC_CALIBRATION = "isotonic calibration"


@dataclass(frozen=True)
class Calibration:
    """How class probabilities are made of logits.

    Either softmax(logits / temperature) (Guo et al. 2017, "On calibration of modern neural
    networks", ICML), or, for two classes, by a curve that never falls: how often the second class
    was the true one among scans with such a margin of its logit over that of the first. Where
    evidence for one class is worth less than as much for the other, no temperature does (isotonic
    calibration: Zadrozny & Elkan 2002, "Transforming classifier scores into accurate multiclass
    probability estimates", KDD, 694-699).

    Parameters
    ----------
    temperature : float
        1 leaves the probabilities as they are. Not used with a curve.
    method : str
        How this was found.
    data : str
        On which data.
    margins, chances : tuple of float, (M,)
        The curve: margins of the logits, rising, and the probability of the second class there;
        linear between them, constant beyond the first and the last. Empty: none.

    Raises
    ------
    ValueError
        If the temperature is not above 0, the curve falls, leaves 0 to 1, or its margins do not
        rise or are not as many as its chances.

    Examples
    --------
    >>> Calibration(temperature=2.0).probabilities(np.array([0.0, 4.0])).round(2).tolist()
    [0.12, 0.88]
    >>> curve = Calibration(margins=(-1.0, 1.0), chances=(0.1, 0.7))
    >>> curve.probabilities(np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 9.0]])).round(2).tolist()
    [[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]
    """

    temperature: float = 1.0
    method: str = "none"
    data: str = "none"
    margins: tuple[float, ...] = ()
    chances: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("margins", "chances"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if len(self.margins) != len(self.chances):
            raise ValueError(f"{len(self.margins)} margins, but {len(self.chances)} chances")
        if any(low >= high for low, high in zip(self.margins, self.margins[1:], strict=False)):
            raise ValueError(f"margins must rise: {self.margins}")
        if list(self.chances) != sorted(self.chances):
            raise ValueError(f"chances must not fall: {self.chances}")
        if not all(0 <= chance <= 1 for chance in self.chances):
            raise ValueError(f"chances must be from 0 to 1: {self.chances}")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return class probabilities.

        Parameters
        ----------
        logits : ndarray, (..., K)
            As the network gives them; with a curve K is 2.

        Returns
        -------
        ndarray of float64, (..., K)
            Sum 1 over the last axis.
        """
        logits = np.asarray(logits, dtype=float)
        if not self.margins:
            return np.asarray(softmax(logits / self.temperature, axis=-1))
        second = np.interp(logits[..., 1] - logits[..., 0], self.margins, self.chances)
        return np.stack([1 - second, second], axis=-1)
