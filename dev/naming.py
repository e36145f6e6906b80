"""From logits of simulated people to scores that can be believed, and to when a class is named."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.stats import beta

from msnmo_bids.model.calibration import BETA_CALIBRATION, Calibration

#: What may be wrong among the named of a class, and how sure that must be.
LARGEST_RISK, CONFIDENCE = 0.05, 0.95
LIMITS = np.arange(50, 100) / 100


def fit_beta(margins: np.ndarray, labels: np.ndarray, data: str) -> Calibration:
    """Fit a beta calibration by cross entropy.

    Parameters
    ----------
    margins : ndarray, (N,)
        Logit of the second class less that of the first.
    labels : ndarray of int, (N,)
        True classes, 0 or 1.
    data : str
        What to call these scans.

    Returns
    -------
    Calibration
    """
    logits = np.stack([np.zeros(len(margins)), margins], axis=1)

    def loss(values: np.ndarray) -> float:
        probabilities = Calibration(beta=tuple(values)).probabilities(logits)
        true = probabilities[np.arange(len(labels)), labels]
        return -float(np.mean(np.log(np.maximum(true, 1e-12))))

    bounds = [(0, None), (0, None), (None, None)]
    fitted = minimize(loss, (1.0, 1.0, 0.0), bounds=bounds).x
    return Calibration(method=BETA_CALIBRATION, data=data, beta=tuple(map(float, fitted)))


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
