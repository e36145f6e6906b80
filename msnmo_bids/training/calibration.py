"""How far the class probabilities of weights can be believed: temperature scaling."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

_TEMPERATURES = (0.2, 100.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature T for which softmax(logits / T) has the smallest cross entropy.

    Parameters
    ----------
    logits : ndarray, (N, K)
        Of the network.
    labels : ndarray, (N,), int
        True classes.

    Returns
    -------
    float
        From 0.2 to 100; 100 (nearly equal probabilities) when the logits tell nothing.
    """

    def loss(log_temperature: float) -> float:
        return cross_entropy(logits / np.exp(log_temperature), labels)

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross entropy of ``(N, K)`` logits and ``(N,)`` classes."""
    true = logits[np.arange(len(labels)), labels]
    return float(np.mean(logsumexp(logits, axis=1) - true))
