"""Inference on one preprocessed volume: lesion probability, diagnosis, class activation maps.

What is a lesion is decided behind it (``lesions/threshold.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msnmo_bids.errors import BadInputError, ExitCode
from msnmo_bids.model.config import SIDE_MULTIPLE
from msnmo_bids.model.device import DeviceError, select_device, select_precision
from msnmo_bids.model.weights import WeightsMetadata, load_weights_cached
from msnmo_bids.preprocessing.cube import Z_SCORE, normalize_brain

if TYPE_CHECKING:
    from torch import Tensor

    from msnmo_bids.model.joint import JointNetwork


@dataclass(frozen=True)
class Prediction:
    """What the joint model says of one volume; None for a task that the weights lack.

    Parameters
    ----------
    probability : ndarray or None
        Lesion probability, ``(D, H, W)`` float32, on the grid of the input.
    cams : ndarray or None
        Class activation maps, ``(K, D, H, W)`` float32, in units of the class logit
        (:func:`msnmo_bids.model.cam.combined_cam`).
    class_probabilities, class_logits : ndarray or None
        ``(K,)`` float64 in the order of `class_names`: calibrated, sum 1; before calibration.
    distance : float or None
        From the training scans (:mod:`msnmo_bids.model.sharing`); None when the weights hold no
        density.
    """

    probability: np.ndarray | None
    cams: np.ndarray | None
    class_probabilities: np.ndarray | None
    class_logits: np.ndarray | None
    class_names: tuple[str, ...]
    distance: float | None = None


def predict(
    cube: np.ndarray,
    weights: str | Path,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    n_threads: int | None = None,
    deterministic: bool = False,
) -> Prediction:
    """Segment and classify one volume.

    Parameters
    ----------
    cube : ndarray
        ``(D, H, W)``, RAS, z-scored, background 0; sides are multiples of 16. The network sees it
        normalised as its metadata says.
    weights : str or Path
        ``NAME.safetensors``.
    device, precision : str, optional
        See :mod:`msnmo_bids.model.device`.
    n_threads, deterministic : int, bool, optional
        Threads of the CPU (default: as torch is set); deterministic algorithms only.

    Raises
    ------
    ValueError
        If `cube` has a wrong shape or values that are not finite.
    WeightsError, DeviceError
        If the weights cannot be used, or the device does not compute or lacks memory.
    BadInputError
        If the network asks for a normalisation that the volume does not admit.
    """
    import torch

    cube = _check_cube(cube)
    with _torch_settings(n_threads, deterministic):
        chosen = select_device(device)
        try:
            return _predict_on(cube, weights, chosen, select_precision(precision, chosen))
        except torch.cuda.OutOfMemoryError as error:
            problem = f"the memory of {chosen} does not suffice for a volume of {cube.shape}"
            remedy = "Choose --device cpu, or free the GPU's memory and run again"
            code = ExitCode.TEMPORARY_FAILURE
            raise DeviceError(problem, remedy=remedy, exit_code=code) from error


@dataclass(frozen=True)
class LesionClassification:
    """What the lesion branch says of one scan.

    Parameters
    ----------
    class_probabilities, class_logits : ndarray, (K,) float64
        Calibrated, and before calibration, in the order of `class_names`.
    contributions : ndarray, (N, K) float64
        What each lesion adds to the logits: their sum and the bias are the logits.
    bias : ndarray, (K,) float64
        Logits of a scan without lesions.
    logits_without : ndarray, (N, K) float64
        Logits of the scan without each of its lesions, computed again: they are not the logits less
        the contribution, because the other lesions then count more.
    """

    class_names: tuple[str, ...]
    class_probabilities: np.ndarray
    class_logits: np.ndarray
    contributions: np.ndarray
    bias: np.ndarray
    logits_without: np.ndarray

    def margins(self, names: Sequence[str]) -> LesionMargins:
        """Return what each lesion does to the lead of the first of some classes over the next."""
        those = [self.class_names.index(name) for name in names]
        first = max(those, key=self.class_probabilities.__getitem__)
        second = max(set(those) - {first}, key=self.class_logits.__getitem__)
        logits = (self.class_logits, self.bias, self.contributions, self.logits_without)
        margin, bias, parts, without = (one[..., first] - one[..., second] for one in logits)
        return LesionMargins(
            self.class_names[first], self.class_names[second],
            float(margin), float(bias), parts, without,
        )  # fmt: skip


@dataclass(frozen=True)
class LesionMargins:
    """The margin: the logit of a class (first), the likeliest of some, less that of the next.

    `bias` is that of a scan without lesions; `contributions`, (N,), are what each lesion adds: with
    the bias they add up to the margin. `without`, (N,), is the margin without each of the lesions.
    """

    first: str
    second: str
    margin: float
    bias: float
    contributions: np.ndarray
    without: np.ndarray


def classify_lesions(descriptors: np.ndarray, weights: str | Path) -> LesionClassification:
    """Classify a scan by its lesions (:class:`msnmo_bids.model.classification.LesionBranch`).

    The descriptors, (N, D) float32, have a row per lesion (:mod:`msnmo_bids.lesions.descriptors`).

    Raises
    ------
    ValueError
        If the weights have no lesion branch, or it reads another number of descriptors.
    WeightsError
        If the weights cannot be used.
    """
    import torch

    rows = torch.from_numpy(np.ascontiguousarray(descriptors, dtype=np.float32))
    others = ~torch.eye(len(rows), dtype=torch.bool)
    network, metadata = load_weights_cached(weights, "cpu", "fp32")  # as `predict` asks for it
    with torch.inference_mode():
        logits, parts = network.forward_lesions(rows)
        bias = network.lesion_branch.bias
        without = [network.forward_lesions(rows[kept])[0] for kept in others]
    alone = torch.stack(without) if without else parts
    found = [one.double().numpy() for one in (logits, parts, bias, alone)]
    scores = metadata.calibration.probabilities(found[0])
    return LesionClassification(metadata.class_names, scores, *found)


def _predict_on(cube: np.ndarray, weights: str | Path, device: str, precision: str) -> Prediction:
    import torch

    network, metadata = load_weights_cached(weights, device, precision)
    image = torch.from_numpy(_normalized(cube, metadata.normalization))[None, None].to(device)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    autocast = torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), autocast:
        return _run(network, metadata, image)


def _normalized(cube: np.ndarray, normalization: str) -> np.ndarray:
    """Normalise the brain of a z-scored volume: gain and offset of the scan make no difference."""
    if normalization == Z_SCORE:
        return cube
    try:
        return normalize_brain(cube, normalization)
    except ValueError as error:
        remedy = "Check the brain mask and the image"
        raise BadInputError(str(error), remedy=remedy) from error


def _run(network: JointNetwork, metadata: WeightsMetadata, image: Tensor) -> Prediction:
    """Run the subnetworks one after the other, so that each frees its maps before the next."""
    from msnmo_bids.model.cam import combined_cam

    features = network.forward_features(image)
    lesions = cams = logits = probabilities = distance = None
    if network.config.density:
        distance = float(network.density(network.forward_statistics(features, image))[0])
    if network.config.segments:
        lesions = network.forward_segmentation(features, image).lesion_probability
    probability = None if lesions is None else lesions[0, 0].cpu().numpy()
    features = features._replace(segmentation=None)
    if network.config.classifies:
        scores, maps = network.forward_classification(features, lesions)
        del features
        weight = network.classification.head.weight
        cams = combined_cam(maps, weight, image.shape[2:])[0].cpu().numpy()
        logits = scores[0].double().cpu().numpy()
        probabilities = metadata.calibration.probabilities(logits)
    return Prediction(probability, cams, probabilities, logits, metadata.class_names, distance)


def _check_cube(cube: np.ndarray) -> np.ndarray:
    if cube.ndim != 3 or 0 in cube.shape or any(side % SIDE_MULTIPLE for side in cube.shape):
        raise ValueError(
            f"the volume must have three sides that are multiples of {SIDE_MULTIPLE}, "
            f"not {cube.shape}"
        )
    if not np.isfinite(cube).all():
        raise ValueError("the volume holds values that are not finite")
    return np.ascontiguousarray(cube, dtype=np.float32)


@contextmanager
def _torch_settings(n_threads: int | None, deterministic: bool) -> Iterator[None]:
    """Set torch's threads and determinism; put them back afterwards."""
    import torch

    threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    if n_threads is not None:
        torch.set_num_threads(n_threads)
    if deterministic:
        # cuBLAS reads it when it starts, and refuses deterministic work without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):  # the network's first weights are drawn
            yield
    finally:
        torch.set_num_threads(threads)
        if deterministic:  # a second's imports, where they are not needed
            torch.use_deterministic_algorithms(was_deterministic)
