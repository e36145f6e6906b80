"""Fit how far the class probabilities of weights can be believed: a curve.

``python -m dev.calibration OUT/simulated.jsonl ... --out FILE`` fits it to scans that
``dev.accuracy`` has measured, and writes it for ``dev.export_joint``. Scans that weights are tested
with have to be others.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from msnmo_bids.bids.dataset import write_json
from msnmo_bids.model.calibration import ISOTONIC_CALIBRATION, Calibration

_GROUPS = 10  # of scans with like margins: the points of a curve
_DIGITS = 3


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
    means, first = np.unique(means.round(_DIGITS), return_index=True)
    points = tuple(means.tolist()), tuple(chances[first].round(_DIGITS).tolist())
    return Calibration(1.0, ISOTONIC_CALIBRATION, data, *points)


def main() -> None:
    """Fit from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+", metavar="simulated.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the calibration")
    parser.add_argument("--classes", nargs="+", default=["MS", "NMOSD"], help="default: MS NMOSD")
    options = parser.parse_args()
    lines = [line for file in options.scans for line in file.read_text("utf-8").splitlines()]
    rows = [row for row in map(json.loads, lines) if row["diagnosis"] in options.classes]
    logits = np.array([[row[f"logit_{name}"] for name in options.classes] for row in rows])
    labels = np.array([options.classes.index(row["diagnosis"]) for row in rows])
    write_json(options.out, asdict(fit_curve(logits, labels, f"{len(rows)} simulated scans")))


if __name__ == "__main__":
    main()
