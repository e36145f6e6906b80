"""Lesions that a second network confirms: fewer false positives.

Of two networks in a row, the first finds lesions and gives them their outline, the second one says
which of them to believe (Valverde et al. 2017, "Improving automated multiple sclerosis lesion
segmentation with a cascaded 3D convolutional neural network approach", NeuroImage 155:159-168).
Here the second one sees the whole brain, as the first does, not patches around its findings. It was
trained longer and is stricter; its outlines, which are too narrow, do not count. What both say of a
finding, how it stands out and how much lesion there is elsewhere make the chance that it is one.
Two limits of it act as in hysteresis thresholding: where nothing is surely a lesion, what is
doubtful is none either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from msnmo_bids.model.findings import FEATURES, believed, describe_findings

if TYPE_CHECKING:
    from torch import Tensor

    from msnmo_bids.model.joint import JointNetwork


@dataclass(frozen=True)
class Evidence:
    """The chance that a finding is a lesion: a logistic regression with squares and products.

    Parameters
    ----------
    means, scales : tuple of float, (F,)
        Each feature of :data:`~msnmo_bids.model.findings.FEATURES` is made relative to them ...
    lowest, highest : tuple of float, (F,)
        ... after it was cut at these, between which the regression was fitted.
    weights : tuple of float, (F + F (F + 1) / 2,)
        Of the features, then of their products with each other: first with first, first with
        second, ..., second with second, ...
    intercept : float
        Of the regression.
    data : str
        What it was fitted to.
    """

    means: tuple[float, ...]
    scales: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    data: str

    def __post_init__(self) -> None:
        count = len(FEATURES)
        lengths = dict.fromkeys(("means", "scales", "lowest", "highest"), count)
        for name, length in {**lengths, "weights": count + count * (count + 1) // 2}.items():
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != length:
                raise ValueError(f"{name} must be {length} numbers, not {len(values)}")
            object.__setattr__(self, name, values)

    def chances(self, features: np.ndarray) -> np.ndarray:
        """Return the chance that findings are lesions.

        Parameters
        ----------
        features : ndarray, (N, F)
            Of :func:`~msnmo_bids.model.findings.describe_findings`; what is NaN counts as the mean.

        Returns
        -------
        ndarray of float, (N,)
            0 to 1.
        """
        relative = (np.clip(features, self.lowest, self.highest) - self.means) / self.scales
        return expit(terms(relative) @ np.array(self.weights) + self.intercept)


def terms(features: np.ndarray) -> np.ndarray:
    """Return features, and their squares and products.

    Parameters
    ----------
    features : ndarray, (N, F)
        Relative to their means, so that what is NaN counts as the mean: 0.

    Returns
    -------
    ndarray, (N, F + F (F + 1) / 2)
        In the order of `Evidence`.

    Examples
    --------
    >>> terms(np.array([[2.0, 3.0]])).tolist()
    [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    features = np.where(np.isnan(features), 0.0, features)
    pairs = list(combinations_with_replacement(range(features.shape[1]), 2))
    left, right = np.array(pairs).T
    return np.concatenate([features, features[:, left] * features[:, right]], axis=1)


@dataclass(frozen=True)
class Confirmation:
    """Which weights confirm the lesions of others, and how.

    Parameters
    ----------
    file : str
        Name of the safetensors file, beside the weights that it confirms.
    sha256 : str
        Its hash.
    evidence : Evidence
        What makes a finding a lesion.
    least_chance : float
        A finding that the second network believes and that is likelier is one, ...
    sure_chance : float
        ... if the volume has such a finding that is likelier than this; both between 0 and 1.
    """

    file: str
    sha256: str
    evidence: Evidence
    least_chance: float = 0.4
    sure_chance: float = 0.75

    def __post_init__(self) -> None:
        if isinstance(self.evidence, Mapping):
            object.__setattr__(self, "evidence", Evidence(**self.evidence))
        if not 0 < self.least_chance <= self.sure_chance < 1:
            raise ValueError(
                "least_chance and sure_chance must be between 0 and 1, the latter not smaller, "
                f"not {self.least_chance} and {self.sure_chance}"
            )


def keep_confirmed(
    probability: np.ndarray,
    second: np.ndarray,
    image: np.ndarray,
    *,
    threshold: float,
    confirmation: Confirmation,
) -> np.ndarray:
    """Lower the probability of findings that are not believed or not likely enough to be lesions.

    All findings of a volume are lowered where none is surely a lesion.

    Parameters
    ----------
    probability : ndarray of float32, (D, H, W)
        Lesion probability of the first network.
    second : ndarray, (D, H, W)
        That of the second one.
    image : ndarray, (D, H, W)
        Their input: z-scores, 0 outside of the brain.
    threshold : float
        Findings are what is connected (26 neighbours) above this probability.
    confirmation : Confirmation
        How likely they have to be.

    Returns
    -------
    ndarray of float32, (D, H, W)
        The probability; in a finding that is given up, times its chance (at most the least one), so
        that a lower threshold brings doubtful lesions back.

    Raises
    ------
    ValueError
        If the arrays differ in shape.
    """
    labels, features = describe_findings(probability, second, image, threshold)
    if not len(features):
        return probability
    chances = confirmation.evidence.chances(features)
    trusted = believed(features)
    any_sure = (trusted & (chances > confirmation.sure_chance)).any()
    kept = any_sure & trusted & (chances > confirmation.least_chance)
    factors = np.where(kept, 1.0, np.minimum(chances, confirmation.least_chance))
    factors = np.concatenate([[1.0], factors]).astype(np.float32)
    return np.asarray(probability * factors[labels], dtype=np.float32)


@dataclass(frozen=True)
class Confirmer:
    """A second network, ready to confirm lesions.

    Parameters
    ----------
    network : JointNetwork
        That segments.
    confirmation : Confirmation
        How it confirms.
    threshold : float
        Of the network whose lesions it confirms.
    """

    network: JointNetwork
    confirmation: Confirmation
    threshold: float

    def read(self, image: Tensor) -> Tensor:
        """Return its own lesion probability of a volume, ``(1, 1, D, H, W)`` float32."""
        return segment_cube(self.network, image)

    def confirm(self, lesions: Tensor, second: Tensor, image: Tensor) -> Tensor:
        """Return the lesion probability of the first network after `keep_confirmed`.

        Parameters
        ----------
        lesions, second, image : Tensor, (1, 1, D, H, W)
            Probability of the first network, what `read` gives, and the volume.

        Returns
        -------
        Tensor, (1, 1, D, H, W)
            On the device of `lesions`.
        """
        kept = keep_confirmed(
            *(values[0, 0].cpu().numpy() for values in (lesions, second, image)),
            threshold=self.threshold,
            confirmation=self.confirmation,
        )
        return lesions.new_tensor(kept)[None, None]


def segment_cube(network: JointNetwork, image: Tensor) -> Tensor:
    """Return a network's lesion probability of a volume, ``(1, 1, D, H, W)`` float32."""
    features = network.forward_features(image)
    return network.forward_segmentation(features, image).lesion_probability
