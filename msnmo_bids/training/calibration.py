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
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp

from msnmo_bids.model.calibration import Calibration

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


def fit_beta(logits: np.ndarray, labels: np.ndarray, data: str) -> Calibration:
    """Fit the temperature, and then what evidence for each class is worth.

    Parameters
    ----------
    logits : ndarray, (N, K)
        Of the network.
    labels : ndarray, (N,), int
        True classes; each occurs.
    data : str
        What to call these scans.

    Returns
    -------
    Calibration
        With the smallest cross entropy among those with powers of 0 and above, and no shift of the
        first class.
    """
    temperature = fit_temperature(logits, labels)
    scaled = log_softmax(logits / temperature, axis=1)
    classes = logits.shape[1]

    def loss(values: np.ndarray) -> float:
        powers, shifts = values[:classes], np.concatenate([[0.0], values[classes:]])
        return cross_entropy(scaled * powers + shifts, labels)

    start = np.concatenate([np.ones(classes), np.zeros(classes - 1)])
    bounds = [(0.0, None)] * classes + [(None, None)] * (classes - 1)
    found = minimize(loss, start, bounds=bounds).x.tolist()
    shifts = (0.0, *found[classes:])
    return Calibration(temperature, "beta calibration", data, tuple(found[:classes]), shifts)


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
    fitted = fit_beta(logits, labels, f"{len(rows)} simulated scans")
    print(
        f"--temperature {fitted.temperature:.3f} --calibrated-on '{fitted.data}'",
        "--powers", *(f"{value:.3f}" for value in fitted.powers),
        "--shifts", *(f"{value:.3f}" for value in fitted.shifts),
    )  # fmt: skip


if __name__ == "__main__":
    main()
