"""Fit what lies on top of finished features: the last layer, its calibration and the density.

``python -m msnmo_bids.training.readout --initial FILE --anatomy DIR --lesion-shapes F --out DIR``

The features of each simulated scan are kept in OUT, so that a run that was killed goes on. The
loads of both classes are drawn alike, so that the volume tells nothing; half of the scans are less
typical.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.evaluation.classification import least_confidence
from msnmo_bids.evaluation.simulated import LARGEST_RISK
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.simulation.acquisition import PRESETS
from msnmo_bids.simulation.material import Material, add_material_options, material_of
from msnmo_bids.simulation.sample import prepared_scan
from msnmo_bids.training.calibration import cross_entropy, fit_temperature
from msnmo_bids.training.checkpoint import trained_weights
from msnmo_bids.training.recipe import RECIPE, read_recipe
from msnmo_bids.training.simulated_test import ANY_PROTOCOL, HEALTHY, SICK, Case, simulate_case

SEED = 800
SCANS = 400
FOLDS = 10
#: Strengths of the penalty on the last layer (the C of scikit-learn) that are tried.
PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
#: Share of the training scans that are within the limit of the density.
WITHIN = 0.99
_SPACING = 1.25  # mm: of the heads; half the time of 1 mm
_PROTOCOLS = (*PRESETS, *(ANY_PROTOCOL,) * 3)
_TYPICALITIES = (1.0, 1.0, 0.8, 0.6)
_HEALTHY_EVERY = 9


@dataclass(frozen=True)
class Features:
    """Features of N scans.

    Parameters
    ----------
    pooled : ndarray, (N, F)
        What the last layer reads.
    statistics : ndarray, (N, G)
        Of :meth:`JointNetwork.forward_statistics`.
    labels : ndarray of int, (N,)
        Number of the class; -1 for a scan without a disease.
    """

    pooled: np.ndarray
    statistics: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Readout:
    """What was fitted, and how well it does on scans that were left out.

    Parameters
    ----------
    logits : ndarray, (N, K)
        Of the scans with a disease, each from a fit without it.
    labels : ndarray of int, (N,)
        Their classes.
    temperature : float
        That fits `logits` to `labels`.
    penalty : float or None
        The C with the smallest cross entropy of the scans that were left out.
    max_distance : float
        Within which `WITHIN` of the scans lie, each by a density without it.
    """

    logits: np.ndarray
    labels: np.ndarray
    temperature: float
    penalty: float | None
    max_distance: float


def plan_case(number: int, rng: np.random.Generator) -> Case:
    """Plan a scan: the classes take turns, and every ninth person is healthy."""
    healthy = number % _HEALTHY_EVERY == _HEALTHY_EVERY - 1
    return Case(
        number=number,
        diagnosis=HEALTHY if healthy else SICK[number // 2 % 2],
        protocol=_PROTOCOLS[number // 4 % len(_PROTOCOLS)],
        typicality=float(rng.choice(_TYPICALITIES)),
    )


@torch.inference_mode()
def features_of(network: JointNetwork, cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled features and the statistics of one scan.

    Parameters
    ----------
    network : JointNetwork
        With both tasks.
    cube : ndarray, (D, H, W)
        Preprocessed as for the app.

    Returns
    -------
    tuple of ndarray
        One-dimensional, float32.
    """
    image = torch.from_numpy(np.asarray(cube, dtype=np.float32))[None, None]
    features = network.forward_features(image)
    statistics = network.forward_statistics(features, image)
    lesions = network.forward_segmentation(features, image).lesion_logits.sigmoid()
    pooled, _ = network.forward_classification(features, lesions, pre_logits=True)
    return pooled[0].numpy(), statistics[0].numpy()


def fit_readout(
    network: JointNetwork, features: Features, *, last_layer: bool = True, seed: int = 0
) -> Readout:
    """Set the last layer, by logistic regression, and the density.

    Parameters
    ----------
    network : JointNetwork
        Two classes; with a density. Changed in place.
    features : Features
        Of simulated scans.
    last_layer : bool, optional
        False leaves the last layer as it is; then `Readout.logits` are its own.
    seed : int, optional
        Of the folds.

    Returns
    -------
    Readout
        Cross-validated: what is said of a scan comes from fits without it.

    Raises
    ------
    ValueError
        If the network names other than two classes.
    """
    from sklearn.model_selection import KFold

    sick = features.labels >= 0
    labels, penalty = features.labels[sick], None
    if last_layer:
        logits, penalty = _fit_last_layer(network, features.pooled[sick], labels, seed)
    else:
        with torch.no_grad():
            logits = network.classification.head(torch.from_numpy(features.pooled[sick])).numpy()
    statistics = torch.from_numpy(features.statistics)
    distances = np.zeros(len(statistics))
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(statistics):
        network.density.fit(statistics[train])
        distances[test] = network.density(statistics[test]).numpy()
    network.density.fit(statistics)
    return Readout(
        logits,
        labels,
        fit_temperature(logits, labels),
        penalty,
        float(np.quantile(distances, WITHIN)),
    )


def _fit_last_layer(
    network: JointNetwork, pooled: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
    """Fit the last layer; return logits, each from a fit without the scan, and the penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(network.config.classes) != 2:
        raise ValueError(f"two classes are needed, not {network.config.classes}")
    pooled = pooled.astype(float)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    models = {
        penalty: make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=5000))
        for penalty in PENALTIES
    }
    found = {}
    for penalty, model in models.items():
        margin = cross_val_predict(model, pooled, labels, cv=folds, method="decision_function")
        found[penalty] = np.stack([-margin / 2, margin / 2], axis=1)
    penalty = min(found, key=lambda one: cross_entropy(found[one], labels))
    scaler, regression = models[penalty].fit(pooled, labels)
    weight = regression.coef_[0] / scaler.scale_
    bias = regression.intercept_[0] - weight @ scaler.mean_
    signs = np.array([-0.5, 0.5])
    head = network.classification.head
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(signs[:, None] * weight))
        head.bias.copy_(torch.from_numpy(signs * bias))
    return found[penalty], penalty


def collect(options: argparse.Namespace, network: JointNetwork) -> Features:
    """Simulate scans and compute their features, as far as they are not in the folder."""
    folder = options.out / "features"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(options.scans) if not (folder / f"{n}.npz").exists()]
    material = Material([])
    if missing:
        native = material_of(options)
        material = Material([head.resampled(_SPACING) for head in native.heads], native.shapes)
    for number in missing:
        rng = np.random.default_rng((options.seed, number))
        case = plan_case(number, rng)
        scan = simulate_case(case, material, rng, matched=True)
        cube, _, _ = prepared_scan(scan, rng, (options.side,) * 3)
        pooled, statistics = features_of(network, cube)
        names = network.config.classes
        label = names.index(case.diagnosis) if case.diagnosis in names else -1
        with atomic_path(folder / f"{number}.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, pooled=pooled, statistics=statistics, label=label)
        logging.info("scan %d of %d", number + 1, options.scans)
    rows = [np.load(folder / f"{number}.npz") for number in range(options.scans)]
    return Features(
        *(np.array([row[name] for row in rows]) for name in ("pooled", "statistics", "label"))
    )


def main() -> int:
    """Fit from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--initial", type=Path, required=True, help="checkpoint or weights (.pt)")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="default: %(default)s")
    add_material_options(parser, needs_shapes=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of features and weights")
    parser.add_argument("--side", type=int, default=128, help="of the cubes (default: 128)")
    parser.add_argument("--scans", type=int, default=SCANS, help="default: %(default)s")
    parser.add_argument("--keep-last-layer", action="store_true", help="fit the density alone")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    try:
        network = JointNetwork(replace(read_recipe(options.recipe).network, density=True))
        fresh = {k: v for k, v in network.state_dict().items() if k.startswith("density.")}
        network.load_state_dict(fresh | trained_weights(options.initial))
        network.eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        features = collect(options, network)
        readout = fit_readout(network, features, last_layer=not options.keep_last_layer)
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    with atomic_path(options.out / "readout.pt") as temporary:
        torch.save(network.state_dict(), temporary)
    print(json.dumps(_summary(readout), indent=2))
    return int(ExitCode.OK)


def _summary(readout: Readout) -> dict[str, float | None]:
    from sklearn.metrics import roc_auc_score

    calibrated = softmax(readout.logits / readout.temperature, axis=1)
    correct = calibrated.argmax(axis=1) == readout.labels
    limit = least_confidence(correct, calibrated.max(axis=1), LARGEST_RISK)
    return {
        "scans": len(readout.labels),
        "auc": float(roc_auc_score(readout.labels, calibrated[:, 1])),
        "accuracy": float(correct.mean()),
        "min_class_probability": limit,
        "named": float((calibrated.max(axis=1) >= limit).mean()),
        "cross_entropy": cross_entropy(readout.logits, readout.labels),
        "temperature": readout.temperature,
        "penalty": readout.penalty,
        "max_distance": readout.max_distance,
    }


if __name__ == "__main__":
    sys.exit(main())
