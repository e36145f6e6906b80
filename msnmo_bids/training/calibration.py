"""How far the class probabilities of weights can be believed, on simulated scans.

``python -m msnmo_bids.training.calibration --weights FILE --anatomy DIR --lesion-shapes FILE``

Simulates scans that the training has not drawn, with the same lesion loads for all classes, and
prints the area under the ROC curve of the classifier, of the predicted lesion volume alone, and the
temperature that fits the logits best, besides the DSC at several thresholds. This is no statement
about patients.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from msnmo_bids.evaluation.classification import roc_area
from msnmo_bids.model.inference import predict
from msnmo_bids.model.weights import read_metadata
from msnmo_bids.simulation.anatomy import Head, load_heads
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary, load_shapes
from msnmo_bids.simulation.sample import simulate_scan, training_cube

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
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
        scaled = logits / np.exp(log_temperature)
        true = scaled[np.arange(len(labels)), labels]
        return float(np.mean(logsumexp(scaled, axis=1) - true))

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def classify_simulated(
    weights: Path,
    heads: Sequence[Head],
    shapes: ShapeLibrary | None,
    *,
    scans: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Classify simulated scans whose lesion loads do not depend on the class.

    Parameters
    ----------
    weights : Path
        ``NAME.safetensors``.
    heads : sequence of Head
        Anatomies.
    shapes : ShapeLibrary or None
        Real lesion shapes.
    scans : int
        Number of scans; the classes take turns.
    seed : int
        Seed; the training takes small ones.

    Returns
    -------
    dict of str to ndarray
        ``labels`` (N,), ``logits`` (N, K), ``volume`` (N,): predicted lesion volume (voxels),
        ``dice`` (N, T): DSC of the lesions at each of `THRESHOLDS`.
    """
    metadata = read_metadata(weights)
    labels, logits, volumes, dice = [], [], [], []
    for number in range(scans):
        rng = np.random.default_rng((seed, number))
        label = number % len(metadata.class_names)
        load = float(np.clip(rng.lognormal(2.14, 1.1), 0.8, 45))
        scan = simulate_scan(
            heads[int(rng.integers(len(heads)))],
            rng,
            diagnosis=metadata.class_names[label],
            load=load,
            shapes=shapes,
        )
        cube, lesions = training_cube(scan, rng, metadata.cube_shape)
        found = predict(cube, weights)
        if found.probability is None or found.class_logits is None:
            raise ValueError("these weights do not segment and classify")
        labels.append(label)
        logits.append(found.class_logits)
        volumes.append(int((found.probability > metadata.threshold).sum()))
        dice.append([_dice(found.probability > level, lesions > 0) for level in THRESHOLDS])
    return {
        "labels": np.array(labels),
        "logits": np.array(logits),
        "volume": np.array(volumes),
        "dice": np.array(dice),
    }


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    both = found.sum() + true.sum()
    return float(2 * (found & true).sum() / both) if both else 1.0


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="NAME.safetensors")
    parser.add_argument("--anatomy", type=Path, required=True, help="folder of label maps")
    parser.add_argument("--lesion-shapes", type=Path, help="library of lesion shapes (.npz)")
    parser.add_argument("--cache", type=Path, help="folder for prepared heads")
    parser.add_argument("--scans", type=int, default=60, help="default: 60")
    parser.add_argument("--seed", type=int, default=777, help="default: 777")
    options = parser.parse_args()
    shapes = None if options.lesion_shapes is None else load_shapes(options.lesion_shapes)
    heads = load_heads(options.anatomy, options.cache)
    found = classify_simulated(
        options.weights, heads, shapes, scans=options.scans, seed=options.seed
    )
    labels, logits = found["labels"], found["logits"]
    result = {
        "scans": options.scans,
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "temperature": fit_temperature(logits, labels),
        "mean_dice": dict(
            zip(THRESHOLDS, found["dice"].mean(axis=0).round(3).tolist(), strict=True)
        ),
    }
    if logits.shape[1] == 2:
        by_volume = roc_area(labels, found["volume"])
        result["auc"] = roc_area(labels, logits[:, 1] - logits[:, 0])
        result["auc_of_volume_alone"] = max(by_volume, 1 - by_volume)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
