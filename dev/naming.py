"""From logits of simulated people to scores that can be believed, and to when a class is named."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import beta

from msnmo_bids.model.calibration import DIRICHLET_CALIBRATION, Calibration

#: What may be wrong among the named of a class, and how sure that must be.
LARGEST_RISK, CONFIDENCE = 0.05, 0.95
LIMITS = np.arange(50, 100) / 100
_OFF_DIAGONAL = 1e-3  # weight of the squares of what is off the diagonal


def fit_calibration(logits: np.ndarray, labels: np.ndarray, data: str) -> Calibration:
    """Fit a Dirichlet calibration, what is off the diagonal held small (Kull et al. 2019).

    By the cross entropy of the logits, (N, K), of people whom no fit has seen and their true
    classes, (N,); `data` is what to call these people.
    """
    known = log_softmax(logits, axis=1)
    classes = known.shape[1]
    off = ~np.eye(classes, dtype=bool)

    def parts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values[:-classes].reshape(classes, classes), values[-classes:]

    def loss(values: np.ndarray) -> float:
        matrix, offset = parts(values)
        given = log_softmax(known @ matrix.T + offset, axis=1)
        penalty = _OFF_DIAGONAL * (np.square(matrix[off]).sum() + np.square(offset).sum())
        return -float(given[np.arange(len(labels)), labels].mean()) + penalty

    start = np.concatenate([np.eye(classes).ravel(), np.zeros(classes)])
    bounds = [(0, None) if one else (None, None) for one in np.eye(classes).ravel()]
    fitted = minimize(loss, start, bounds=bounds + [(None, None)] * classes).x
    matrix, offset = parts(fitted.round(4))
    return Calibration(
        method=DIRICHLET_CALIBRATION,
        data=data,
        matrix=tuple(tuple(row) for row in matrix.tolist()),
        offset=tuple(offset.tolist()),
    )


def class_limits(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find from which probability each class may be named: (K,).

    It is the lowest limit at which the upper confidence bound (Clopper & Pearson 1934, one-sided)
    of the share of wrong names is `LARGEST_RISK` or less; infinite if there is none. The
    probabilities, (N, K), are calibrated, of people whom no fit has seen, with true classes (N,).
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
