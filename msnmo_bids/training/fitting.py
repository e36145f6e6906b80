"""Train one network on a site's own scans, and write its weights in the app's format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import nn

from msnmo_bids.lesions.threshold import LesionCriteria
from msnmo_bids.model.calibration import TEMPERATURE_SCALING, Calibration
from msnmo_bids.model.config import LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.engine import Trainer
from msnmo_bids.training.prepared import PreparedScan, data_fingerprint
from msnmo_bids.training.processes import Ranks, keep_freed_memory
from msnmo_bids.training.samples import (
    EpochSource,
    MixedSource,
    PreparedSamples,
    SampleSource,
    SimulatedSource,
)
from msnmo_bids.training.steps import forward
from msnmo_bids.version import get_version

#: Fewer scans than this, of a class, fit no temperature.
LEAST_OF_A_CLASS = 5
_TEMPERATURES = (0.2, 100.0)


class Simulation(NamedTuple):
    """Simulated brains beside the real ones, in a share (below 1) of the samples."""

    assets: SimulationAssets
    share: float


def fit(
    network: nn.Module,
    loss: LossConfig,
    config: TrainingConfig,
    training: Sequence[PreparedScan],
    validation: Sequence[PreparedScan],
    out: Path,
    *,
    classes: Sequence[str],
    simulation: Simulation | None = None,
    initial: WeightsMetadata | None = None,
    ranks: Ranks | None = None,
) -> nn.Module:
    """Train a network of the registry, from its checkpoint if there is one.

    Parameters
    ----------
    network : Module
        Returned with the weights to use, in evaluation mode.
    training, validation : sequence of PreparedScan
        Of different people.
    out : Path
        Folder of checkpoint and curves.
    classes : sequence of str
        Names of the classes, in the network's order.
    initial : WeightsMetadata, optional
        Of the weights that the network has.
    """
    ranks = ranks or Ranks()
    if ranks.device == "cpu":
        keep_freed_memory()
    source = _source(config, training, classes, simulation, ranks)
    trainer = Trainer(
        network, JointLoss(loss), config, source, out,
        validation=PreparedSamples(validation, classes), ranks=ranks,
        about=about([*training, *validation], classes, simulation, initial),
    )  # fmt: skip
    network.load_state_dict(trainer.run())
    return network.eval()


def about(
    scans: Sequence[PreparedScan],
    classes: Sequence[str],
    simulation: Simulation | None = None,
    initial: WeightsMetadata | None = None,
) -> dict[str, Any]:
    """Return what a training depends on besides its settings, by names that a reader knows."""
    return {
        "version": get_version(),
        "data (images, masks, diagnoses)": data_fingerprint(scans),
        "classes": list(classes),
        "simulated share": 0.0 if simulation is None else simulation.share,
        "initial weights": None if initial is None else initial.fingerprint,
    }


def _source(
    config: TrainingConfig,
    training: Sequence[PreparedScan],
    classes: Sequence[str],
    simulation: Simulation | None,
    ranks: Ranks,
) -> SampleSource:
    samples = PreparedSamples(training, classes)
    real = EpochSource(
        samples, config.samples_per_step, seed=config.seed, rank=ranks.rank, processes=ranks.count
    )
    if simulation is None:
        return real
    shape = (samples[0].image.shape[0],) * 3
    simulated = SimulatedSource(
        simulation.assets, shape, classes=tuple(classes), seed=config.seed, rank=ranks.rank
    )
    return MixedSource(real, simulated, simulation.share)


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
    initial: WeightsMetadata | None = None,
) -> None:
    """Write weights for ``--weights`` of the app.

    Parameters
    ----------
    file : Path
        ``NAME.safetensors``; its description goes beside it.
    network : Module
        A trained network, in evaluation mode, on `device`. Nothing is written for baselines: they
        are not networks of the app.
    training, validation : sequence of PreparedScan
        What it was trained on, and what the weights and the temperature were chosen by.
    initial : WeightsMetadata, optional
        Of the weights that the training started from: a branch that classifies lesions was not
        trained, and keeps its calibration and limits.
    """
    if not isinstance(network, JointNetwork):
        return
    classes = network.config.classes
    sets = Counter(scan.labelled.dataset for scan in training)
    metadata = WeightsMetadata(
        name=name,
        version=get_version(),
        class_names=classes,
        cube_shape=training[0].load(classes).image.shape,
        threshold=criteria.threshold,
        min_lesion_volume=criteria.min_volume,
        calibration=calibrate(network, validation, device=device, precision=config.precision),
        trained_on=tuple(f"{name}: {number} scans" for name, number in sorted(sets.items())),
        licence="as the data that they were trained on",
    )
    if initial is not None and initial.classifies_lesions:
        metadata = replace(
            metadata,
            calibration=initial.calibration,
            naming_limits=initial.naming_limits,
            lesion_descriptors=initial.lesion_descriptors,
        )
    save_weights(file, network, metadata)


def calibrate(
    network: JointNetwork,
    validation: Sequence[PreparedScan],
    *,
    device: str = "cpu",
    precision: str = "fp32",
) -> Calibration:
    """Fit the temperature of the class probabilities of a network in evaluation mode.

    It is fitted on validation scans, which were not trained on; none is with fewer than 5 scans of
    a class.
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

    `logits` are the network's, (N, K), `labels` the true classes, (N,). T is from 0.2 to 100: 100
    (nearly equal probabilities) when the logits tell nothing.
    """

    def loss(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scores[np.arange(len(labels)), labels].mean())

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))
