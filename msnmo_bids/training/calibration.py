"""How far the class probabilities of weights can be believed.

``python -m msnmo_bids.training.calibration OUT/simulated.jsonl ...`` fits a calibration to scans
that ``benchmarks/accuracy.py`` has measured, and prints it as options of
``msnmo_bids.training.export``. Scans that weights are tested with have to be others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from msnmo_bids.model.calibration import ISOTONIC_CALIBRATION, Calibration

_TEMPERATURES = (0.2, 100.0)
_GROUPS = 10  # of scans with like margins: the points of a curve


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


def fit_curve(logits: np.ndarray, labels: np.ndarray, data: str) -> Calibration:
    """Fit how often the second of two classes is the true one, by the margin of its logit.

    Parameters
    ----------
    logits : ndarray, (N, 2)
        Of the network; N is 10 or more.
    labels : ndarray, (N,), int
        True classes, 0 or 1.
    data : str
        What to call these scans.

    Returns
    -------
    Calibration
        With the tenths of the scans, by margin, as points: their mean margin, and how many of them
        are of the second class (half a scan added to each), made to rise by isotonic regression.
    """
    from sklearn.isotonic import IsotonicRegression

    margins = logits[:, 1] - logits[:, 0]
    groups = np.array_split(np.argsort(margins, kind="stable"), _GROUPS)
    means = np.array([margins[group].mean() for group in groups])
    shares = np.array([(labels[group].sum() + 0.5) / (len(group) + 1) for group in groups])
    chances = IsotonicRegression().fit_transform(means, shares)
    means, first = np.unique(means, return_index=True)
    points = tuple(means.tolist()), tuple(chances[first].tolist())
    return Calibration(1.0, ISOTONIC_CALIBRATION, data, *points)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross entropy of ``(N, K)`` logits and ``(N,)`` classes."""
    true = logits[np.arange(len(labels)), labels]
    return float(np.mean(logsumexp(logits, axis=1) - true))


def main() -> None:
    """Fit from the command line, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+", metavar="simulated.jsonl")
    parser.add_argument("--classes", nargs="+", default=["MS", "NMOSD"], help="default: MS NMOSD")
    options = parser.parse_args()
    lines = [line for file in options.scans for line in file.read_text("utf-8").splitlines()]
    rows = [row for row in map(json.loads, lines) if row["diagnosis"] in options.classes]
    logits = np.array([[row[f"logit_{name}"] for name in options.classes] for row in rows])
    labels = np.array([options.classes.index(row["diagnosis"]) for row in rows])
    fitted = fit_curve(logits, labels, f"{len(rows)} simulated scans")
    print(
        f"--calibrated-on '{fitted.data}'",
        "--margins", *(f"{value:.3f}" for value in fitted.margins),
        "--chances", *(f"{value:.3f}" for value in fitted.chances),
    )  # fmt: skip


if __name__ == "__main__":
    main()
