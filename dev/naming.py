"""From logits of simulated people to scores that can be believed, and to when a class is named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import beta

#: What may be wrong among the named of a class, and how sure that must be.
LARGEST_RISK, CONFIDENCE = 0.05, 0.95
LIMITS = np.arange(50, 100) / 100


@dataclass(frozen=True)
class BetaCalibration:
    """Beta calibration of the margin of the second class over the first.

    Kull, Silva Filho & Flach 2017, "Beta calibration", AISTATS: with p the logistic function of
    the margin, the log odds are ``a ln p - b ln(1 - p) + c``. With a = b it is Platt's scaling;
    with two slopes evidence for one class can be worth less than as much for the other.

    Parameters
    ----------
    a, b : float
        Slopes, 0 or above: for margins far below and far above 0.
    c : float
        Log odds at a margin of 0, but for ``(b - a) ln 2``.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    @classmethod
    def fit(cls, margins: np.ndarray, labels: np.ndarray) -> BetaCalibration:
        """Fit by cross entropy to margins, (N,), and classes, (N,), 0 or 1."""

        def loss(values: np.ndarray) -> float:
            odds = cls(*values).log_odds(margins)
            return -float(np.mean(log_expit(np.where(labels == 1, odds, -odds))))

        bounds = [(0, None), (0, None), (None, None)]
        return cls(*map(float, minimize(loss, (1.0, 1.0, 0.0), bounds=bounds).x))

    def log_odds(self, margins: np.ndarray) -> np.ndarray:
        """Log odds of the second class, of the shape of the margins."""
        return self.a * log_expit(margins) - self.b * log_expit(-np.asarray(margins)) + self.c

    def probabilities(self, margins: np.ndarray) -> np.ndarray:
        """Class probabilities, (N, 2)."""
        second = expit(self.log_odds(margins))
        return np.stack([1 - second, second], axis=-1)


def class_limits(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find from which probability on each class may be named.

    Parameters
    ----------
    probabilities : ndarray, (N, K)
        Calibrated, of people whom no fit has seen.
    labels : ndarray of int, (N,)
        True classes.

    Returns
    -------
    ndarray, (K,)
        The lowest limit at which the upper confidence bound (Clopper & Pearson 1934, one-sided) of
        the share of wrong names is `LARGEST_RISK` or less; infinite if there is none.
    """
    limits = np.full(probabilities.shape[1], np.inf)
    for number, column in enumerate(probabilities.T):
        for limit in LIMITS:
            named = column >= limit
            if named.any() and _bound(labels[named] != number) <= LARGEST_RISK:
                limits[number] = limit
                break
    return limits


def _bound(wrong: np.ndarray) -> float:
    """Upper confidence bound of the share of wrong names."""
    many, all_ = int(wrong.sum()), len(wrong)
    return 1.0 if many == all_ else float(beta.ppf(CONFIDENCE, many + 1, all_ - many))


def named(probabilities: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the class that is named, (N,), -1 for none."""
    likeliest = probabilities.argmax(axis=1)
    reached = probabilities.max(axis=1) >= limits[likeliest]
    return np.where(reached, likeliest, -1)
