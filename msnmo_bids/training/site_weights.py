"""Weights that were trained on a site's own data, in the app's format."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import nn

from msnmo_bids.lesions.pipeline import LesionCriteria
from msnmo_bids.model.calibration import TEMPERATURE_SCALING, Calibration
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.gradients import forward
from msnmo_bids.training.prepared import PreparedScan
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)

#: Fewer scans than this, of a class, fit no temperature.
LEAST_OF_A_CLASS = 5
_TEMPERATURES = (0.2, 100.0)


def write_site_weights(
    file: Path,
    network: nn.Module,
    *,
    name: str,
    training: Sequence[PreparedScan],
    validation: Sequence[PreparedScan],
    criteria: LesionCriteria,
    config: TrainingConfig,
    device: str = "cpu",
) -> bool:
    """Write weights for ``--weights`` of the app.

    Parameters
    ----------
    file : Path
        ``NAME.safetensors``; its description goes beside it.
    network : Module
        A trained network, in evaluation mode. Baselines are not networks of the app: nothing is
        written for them.
    name : str
        Name of the weights.
    training, validation : sequence of PreparedScan
        What it was trained on, and what the weights and the temperature were chosen by.
    criteria : LesionCriteria
        What counts as a lesion.
    config : TrainingConfig
        How it was trained.
    device : str, optional
        Where the network is.

    Returns
    -------
    bool
        Whether weights were written.
    """
    if not isinstance(network, JointNetwork):
        return False
    classes = network.config.classes
    metadata = WeightsMetadata(
        name=name,
        version=get_version(),
        class_names=classes,
        cube_shape=training[0].load(classes).image.shape,
        threshold=criteria.threshold,
        min_lesion_volume=criteria.min_volume,
        calibration=calibrate(network, validation, device=device, precision=config.precision),
        trained_on=_data_sets(training),
        licence="as the data that they were trained on",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    save_weights(file, network, metadata, dtype="fp32")
    return True


def calibrate(
    network: JointNetwork,
    validation: Sequence[PreparedScan],
    *,
    device: str = "cpu",
    precision: str = "fp32",
) -> Calibration:
    """Fit the temperature of the class probabilities on validation scans.

    Parameters
    ----------
    network : JointNetwork
        In evaluation mode.
    validation : sequence of PreparedScan
        Scans that were not trained on.
    device, precision : str, optional
        Where and how to compute.

    Returns
    -------
    Calibration
        None is fitted with fewer than 5 scans of a class.
    """
    classes = network.config.classes
    diagnosed = [scan for scan in validation if scan.labelled.diagnosis in classes]
    counts = Counter(scan.labelled.diagnosis for scan in diagnosed)
    if not network.config.classifies or min(counts[name] for name in classes) < LEAST_OF_A_CLASS:
        return Calibration()
    logits, labels = [], []
    for scan in diagnosed:
        sample = scan.load(classes)
        image = torch.from_numpy(sample.image.astype(np.float32))[None, None].to(device)
        with torch.inference_mode():
            output = forward(network, image, None, precision)
        logits.append(output.class_logits[0].double().cpu().numpy())
        labels.append(sample.diagnosis)
    temperature = fit_temperature(np.array(logits), np.array(labels))
    return Calibration(temperature, TEMPERATURE_SCALING, f"{len(labels)} validation scans")


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


def _data_sets(scans: Sequence[PreparedScan]) -> tuple[str, ...]:
    counts = Counter(scan.labelled.dataset for scan in scans)
    return tuple(f"{name}: {number} scans" for name, number in sorted(counts.items()))
