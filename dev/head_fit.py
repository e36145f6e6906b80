"""Fit what lies on top of finished features: the last layer, its calibration and the density.

``python -m dev.head_fit --initial FILE --anatomy DIR --lesion-shapes F --out DIR``

The features of each simulated scan are kept in OUT, so that a run that was killed goes on. The
loads of both classes are drawn alike, so that the volume tells nothing; half of the scans are less
typical. A network with location maps decides by them alone: what they say is learnt from the true
lesions of many more people, for which no network has to run, and how much it counts from the scans.
The convolutions beside them fit the scans better and mislead where the loads are the diseases' own.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from dev.asset_options import add_asset_options, assets_of
from dev.joint_recipe import RECIPE, read_recipe
from dev.simulated_summary import LARGEST_RISK, least_confidence
from dev.simulated_test import ANY_PROTOCOL, HEALTHY, SICK, Case, simulate_case
from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.model.inference import LesionModel
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.location import location_channels, location_maps
from msnmo_bids.simulation.acquisition import PRESETS
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.sample import SimulatedScan, prepared_scan, training_cube
from msnmo_bids.training.checkpoint import trained_weights
from msnmo_bids.training.fitting import cross_entropy, fit_temperature

SEED = 800
SCANS = 400
PEOPLE = 2000
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
class Places:
    """Where the true lesions of M people with a disease lie.

    Parameters
    ----------
    pooled : ndarray, (M, C)
        The location maps, pooled over the true lesions as the network pools them over those that it
        finds.
    labels : ndarray of int, (M,)
        Number of the class.
    """

    pooled: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class HeadFit:
    """What was fitted, and how well it does on scans that were left out.

    Parameters
    ----------
    logits : ndarray, (N, K)
        Of the scans with a disease, each from a fit without it.
    labels : ndarray of int, (N,)
        Their classes.
    temperature : float
        That fits `logits` to `labels`.
    penalty : float
        The C with the smallest cross entropy of the scans that were left out.
    max_distance : float
        Within which `WITHIN` of the scans lie, each by a density without it.
    """

    logits: np.ndarray
    labels: np.ndarray
    temperature: float
    penalty: float
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
def features_of(
    network: JointNetwork, cube: np.ndarray, lesion_model: LesionModel | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled features and the statistics of one scan.

    Parameters
    ----------
    network : JointNetwork
        With both tasks.
    cube : ndarray, (D, H, W)
        Preprocessed as for the app.
    lesion_model : LesionModel, optional
        Gives the lesion probability over which features are pooled; default: the network itself.

    Returns
    -------
    tuple of ndarray
        One-dimensional, float32.
    """
    image = torch.from_numpy(np.asarray(cube, dtype=np.float32))[None, None]
    features = network.forward_features(image)
    statistics = network.forward_statistics(features, image)
    if lesion_model is None:
        lesions = network.forward_segmentation(features, image).lesion_probability
    else:
        lesions = lesion_model.probability(image)
    pooled, _ = network.forward_classification(features, lesions, pre_logits=True)
    return pooled[0].numpy(), statistics[0].numpy()


def place_of(network: JointNetwork, mask: np.ndarray) -> np.ndarray:
    """Return the location maps pooled over lesions.

    Parameters
    ----------
    network : JointNetwork
        With location maps.
    mask : ndarray, (D, H, W)
        Lesions, in the cube that the network would see.

    Returns
    -------
    ndarray, (C,), float32
    """
    lesions = torch.from_numpy((np.asarray(mask) > 0).astype(np.float32))[None, None]
    counts = network.classification.pooling_weights(lesions)
    assert counts is not None, "location maps need the pooling weighted by lesions"
    maps = location_maps(counts[-1].shape[2:], network.config.location_waves)
    return (maps * counts[-1][0]).mean(dim=(1, 2, 3)).numpy()


def fit_head(
    network: JointNetwork,
    features: Features,
    places: Places | None = None,
    seed: int = 0,
) -> HeadFit:
    """Set the last layer, by logistic regression, and the density.

    Parameters
    ----------
    network : JointNetwork
        Two classes; with a density. Changed in place.
    features : Features
        Of simulated scans.
    places : Places, optional
        Of other people, for the last layer of a network with location maps, which then reads
        nothing else: how the weights of these maps relate to each other is learnt from them, how
        much they count together from `features`.
    seed : int, optional
        Of the folds.

    Returns
    -------
    HeadFit
        Cross-validated: what is said of a scan comes from fits without it.

    Raises
    ------
    ValueError
        If the network names other than two classes, or has location maps and no `places` are given.
    """
    from sklearn.model_selection import KFold

    sick = features.labels >= 0
    labels = features.labels[sick]
    logits, penalty = _fit_last_layer(network, features.pooled[sick], labels, places, seed)
    statistics = torch.from_numpy(features.statistics)
    distances = np.zeros(len(statistics))
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(statistics):
        network.density.fit(statistics[train])
        distances[test] = network.density(statistics[test]).numpy()
    network.density.fit(statistics)
    return HeadFit(
        logits,
        labels,
        fit_temperature(logits, labels),
        penalty,
        float(np.quantile(distances, WITHIN)),
    )


def _fit_last_layer(
    network: JointNetwork, pooled: np.ndarray, labels: np.ndarray, places: Places | None, seed: int
) -> tuple[np.ndarray, float]:
    """Fit the last layer; return logits, each from a fit without the scan, and the penalty."""
    if len(network.config.classes) != 2:
        raise ValueError(f"two classes are needed, not {network.config.classes}")
    channels = location_channels(network.config.location_waves)
    if channels and places is None:
        raise ValueError("a network with location maps needs places")
    directions = np.eye(pooled.shape[1])
    if places is not None:
        _, direction, _, _ = _logistic_regression(places.pooled, places.labels, seed)
        directions = np.concatenate([np.zeros(pooled.shape[1] - channels), direction])[:, None]
    found, weight, bias, penalty = _logistic_regression(pooled @ directions, labels, seed)
    weight = directions @ weight
    signs = np.array([-0.5, 0.5])
    head = network.classification.head
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(signs[:, None] * weight))
        head.bias.copy_(torch.from_numpy(signs * bias))
    return found, penalty


def _logistic_regression(
    columns: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Fit a logistic regression with the penalty that suits scans that are left out.

    Parameters
    ----------
    columns : ndarray, (N, F)
        Features.
    labels : ndarray of int, (N,)
        0 or 1.
    seed : int
        Of the folds.

    Returns
    -------
    logits : ndarray, (N, 2)
        Each from a fit without the scan.
    weight : ndarray, (F,)
        Of the fit to all.
    bias, penalty : float
        Of the fit to all; the C that was chosen.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    scaled = scaler.fit_transform(columns.astype(float))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    models = {penalty: LogisticRegression(C=penalty, max_iter=5000) for penalty in PENALTIES}
    found = {}
    for penalty, model in models.items():
        margin = cross_val_predict(model, scaled, labels, cv=folds, method="decision_function")
        found[penalty] = np.stack([-margin / 2, margin / 2], axis=1)
    penalty = min(found, key=lambda one: cross_entropy(found[one], labels))
    regression = models[penalty].fit(scaled, labels)
    weight = regression.coef_[0] / scaler.scale_
    bias = float(regression.intercept_[0] - weight @ scaler.mean_)
    return found[penalty], weight, bias, penalty


def collect_features(
    options: argparse.Namespace, network: JointNetwork, lesion_model: LesionModel | None
) -> Features:
    """Simulate scans and compute their features, as far as they are not in the folder."""

    def row_of(number: int, assets: SimulationAssets) -> dict[str, Any]:
        case, scan, rng = _simulate(number, assets, options.seed)
        cube, _, _ = prepared_scan(scan, rng, (options.side,) * 3)
        pooled, statistics = features_of(network, cube, lesion_model)
        names = network.config.classes
        label = names.index(case.diagnosis) if case.diagnosis in names else -1
        return {"pooled": pooled, "statistics": statistics, "label": label}

    rows = _collect(options, "features", options.scans, row_of)
    return Features(
        *(np.array([row[name] for row in rows]) for name in ("pooled", "statistics", "label"))
    )


def collect_places(options: argparse.Namespace, network: JointNetwork) -> Places:
    """Simulate people and pool the location maps over their true lesions."""

    def row_of(number: int, assets: SimulationAssets) -> dict[str, Any]:
        case, scan, rng = _simulate(number, assets, options.seed + 1)
        if case.diagnosis not in network.config.classes:
            return {"label": -1}
        _, mask = training_cube(scan, rng, (options.side,) * 3)
        label = network.config.classes.index(case.diagnosis)
        return {"pooled": place_of(network, mask), "label": label}

    rows = [row for row in _collect(options, "places", options.people, row_of) if row["label"] >= 0]
    return Places(*(np.array([row[name] for row in rows]) for name in ("pooled", "label")))


def _simulate(
    number: int, assets: SimulationAssets, seed: int
) -> tuple[Case, SimulatedScan, np.random.Generator]:
    """Simulate a scan; the generator goes on with the errors of skull stripping."""
    rng = np.random.default_rng((seed, number))
    case = plan_case(number, rng)
    return case, simulate_case(case, assets, rng, matched=True), rng


def _collect(
    options: argparse.Namespace,
    name: str,
    count: int,
    row_of: Callable[[int, SimulationAssets], dict[str, Any]],
) -> list[Mapping[str, Any]]:
    """Return the numbered rows of a folder of OUT; those that it lacks are made."""
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(count) if not (folder / f"{n}.npz").exists()]
    assets = SimulationAssets([])
    if missing:
        native = assets_of(options)
        assets = SimulationAssets(
            [head.resampled(_SPACING) for head in native.heads], native.shapes
        )
    for number in missing:
        row = row_of(number, assets)
        with atomic_path(folder / f"{number}.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, **row)
        logging.info("%s: %d of %d", name, number + 1, count)
    return [np.load(folder / f"{number}.npz") for number in range(count)]


def main() -> int:
    """Fit from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--initial", type=Path, required=True, help="checkpoint or weights (.pt)")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="default: %(default)s")
    add_asset_options(parser, needs_shapes=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of features and weights")
    parser.add_argument("--side", type=int, default=128, help="of the cubes (default: 128)")
    parser.add_argument("--scans", type=int, default=SCANS, help="default: %(default)s")
    parser.add_argument("--people", type=int, default=PEOPLE, help="for the places of lesions")
    parser.add_argument(
        "--lesion-network",
        type=Path,
        metavar="FILE",
        help="weights that give the lesion probability (default: the network itself)",
    )
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
        asked = options.lesion_network
        lesion_model = None if asked is None else LesionModel.load(asked)
        features = collect_features(options, network, lesion_model)
        located = network.config.location_waves
        places = collect_places(options, network) if located else None
        fitted = fit_head(network, features, places)
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    with atomic_path(options.out / "head_fit.pt") as temporary:
        torch.save(network.state_dict(), temporary)
    print(json.dumps(_summary(fitted), indent=2))
    return int(ExitCode.OK)


def _summary(fitted: HeadFit) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    calibrated = softmax(fitted.logits / fitted.temperature, axis=1)
    correct = calibrated.argmax(axis=1) == fitted.labels
    limit = least_confidence(correct, calibrated.max(axis=1), LARGEST_RISK)
    return {
        "scans": len(fitted.labels),
        "auc": float(roc_auc_score(fitted.labels, calibrated[:, 1])),
        "accuracy": float(correct.mean()),
        "min_class_probability": limit,
        "named": float((calibrated.max(axis=1) >= limit).mean()),
        "cross_entropy": cross_entropy(fitted.logits, fitted.labels),
        "temperature": fitted.temperature,
        "penalty": fitted.penalty,
        "max_distance": fitted.max_distance,
    }


if __name__ == "__main__":
    sys.exit(main())
