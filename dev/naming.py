"""From logits of simulated people to scores that can be believed, and to when a class is named."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import beta

from dev.simulated_people import CLASSES, SICK
from msnmo_bids.decision import doubt_of_scores, likeliest_disease
from msnmo_bids.model.calibration import DIRICHLET_CALIBRATION, Calibration

#: What may be wrong among the named of a class, and how sure that must be.
LARGEST_RISK, CONFIDENCE = 0.05, 0.95
LIMITS = np.arange(50, 100) / 100
SCORES_OF_LOOK_ALIKES = np.arange(50, 0, -1) / 100
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


def find_limits(
    probabilities: np.ndarray, labels: np.ndarray, own: np.ndarray
) -> dict[str, float | None]:
    """Find the limits with which diseases are named (:func:`~msnmo_bids.decision.doubt_of_scores`).

    That of a disease is the lowest share at which the upper confidence bound (Clopper & Pearson
    1934, one-sided) of the wrong names, among people with one of the diseases, is `LARGEST_RISK` or
    less; None if there is none. That of what looks like them is the highest score with which the
    bound of the share of such people on whom a disease is named is no larger; None if no disease
    has a limit, or there are no such people. If no score is low enough no disease has a limit.

    Parameters
    ----------
    probabilities : ndarray, (N, K)
        Calibrated, of people whom no fit has seen, by `CLASSES`.
    labels : ndarray of int, (N,)
        True classes.
    own : ndarray of bool, (N,)
        Who has the load of their own disease; limits of diseases are found with them alone.
    """
    limits: dict[str, float | None] = dict.fromkeys(CLASSES)
    sick = own & (labels < len(SICK))
    shares, true = probabilities[sick, : len(SICK)], labels[sick]
    shares = shares / shares.sum(axis=1, keepdims=True)
    for number, name in enumerate(SICK):
        for limit in LIMITS:
            reached = shares[:, number] >= limit
            if reached.any() and _bound(true[reached] != number) <= LARGEST_RISK:
                limits[name] = float(limit)
                break
    alike = labels >= len(SICK)
    if all(limits[name] is None for name in SICK) or not alike.any():
        return limits
    for most in SCORES_OF_LOOK_ALIKES:
        tried = limits | dict.fromkeys(CLASSES[len(SICK) :], float(most))
        if _bound(named(probabilities[alike], tried) >= 0) <= LARGEST_RISK:
            return tried
    return limits | dict.fromkeys(SICK)


def _bound(wrong: np.ndarray) -> float:
    """Upper confidence bound of the share of wrong names."""
    many, all_ = int(wrong.sum()), len(wrong)
    return 1.0 if many == all_ else float(beta.ppf(CONFIDENCE, many + 1, all_ - many))


def named(probabilities: np.ndarray, limits: Mapping[str, float | None]) -> np.ndarray:
    """Return the number of the disease that is named, (N,) int, -1 for none."""
    scores = [dict(zip(CLASSES, row, strict=True)) for row in probabilities.tolist()]
    names = [disease_named(one, limits) for one in scores]
    return np.array([-1 if name is None else CLASSES.index(name) for name in names], dtype=int)


def disease_named(scores: Mapping[str, float], limits: Mapping[str, float | None]) -> str | None:
    """Return the disease that scores, by class, allow to name."""
    return None if doubt_of_scores(scores, limits) else likeliest_disease(scores)[0]
