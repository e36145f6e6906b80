"""From class logits to probabilities that can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: What the two ways are called in metadata, derivatives and methods texts.
TEMPERATURE_SCALING = "temperature scaling"
DIRICHLET_CALIBRATION = "Dirichlet calibration"


@dataclass(frozen=True)
class Calibration:
    """How class probabilities are made of logits.

    Either softmax(logits / temperature) (Guo et al. 2017, "On calibration of modern neural
    networks", ICML), or Dirichlet calibration (Kull et al. 2019, "Beyond temperature scaling",
    NeurIPS): softmax(W ln p + b) with p = softmax(logits). For two classes it is beta calibration
    (Kull, Silva Filho & Flach 2017, Electronic Journal of Statistics 11:5052-5080). Evidence for
    one class can so be worth less than as much for another.

    Parameters
    ----------
    temperature : float
        1 leaves the probabilities as they are. Not used with a matrix.
    method, data : str
        How this was found, and on which data.
    matrix, offset : tuple of tuple of float, tuple of float
        W, (K, K), a row per class, and b, (K,). Empty: temperature scaling.

    Raises
    ------
    ValueError
        If the temperature is not above 0, or the matrix is not square or not as large as the
        offset.

    Examples
    --------
    >>> Calibration(temperature=2.0).probabilities(np.array([0.0, 4.0])).round(2).tolist()
    [0.12, 0.88]
    >>> beta = Calibration(matrix=((1.0, 0.0), (0.0, 0.5)), offset=(0.0, 0.0))
    >>> beta.probabilities(np.array([[0.0, 3.0], [3.0, 0.0]])).round(2).tolist()
    [[0.05, 0.95], [0.81, 0.19]]
    """

    temperature: float = 1.0
    method: str = "none"
    data: str = "none"
    matrix: tuple[tuple[float, ...], ...] = ()
    offset: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", tuple(map(tuple, self.matrix)))
        object.__setattr__(self, "offset", tuple(self.offset))
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if {len(self.matrix), *map(len, self.matrix)} != {len(self.offset)}:
            raise ValueError(f"matrix and offset must fit: {self.matrix}, {self.offset}")

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return class probabilities, float64 with the sum 1, of the network's logits, (..., K)."""
        from scipy.special import log_softmax, softmax  # what only reads metadata needs none of it

        logits = np.asarray(logits, dtype=float)
        if not self.matrix:
            return np.asarray(softmax(logits / self.temperature, axis=-1))
        known = log_softmax(logits, axis=-1) @ np.transpose(self.matrix) + self.offset
        return np.asarray(softmax(known, axis=-1))
