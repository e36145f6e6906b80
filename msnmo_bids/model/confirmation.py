"""Lesions that a second network confirms: fewer false positives.

Of two networks in a row, the first finds lesions and gives them their outline, the second one says
which of them to believe (Valverde et al. 2017, "Improving automated multiple sclerosis lesion
segmentation with a cascaded 3D convolutional neural network approach", NeuroImage 155:159-168).
Here the second one sees the whole brain, as the first does, not patches around its findings. It was
trained longer and is stricter; its outlines, which are too narrow, do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from torch import Tensor

    from msnmo_bids.model.joint import JointNetwork

_CONNECTIVITY_26 = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Confirmation:
    """Which weights confirm the lesions of others, and how.

    Parameters
    ----------
    file : str
        Name of the safetensors file, beside the weights that it confirms.
    sha256 : str
        Its hash.
    share : float
        Of the voxels of a lesion that the second network has to mark, above 0 and up to 1.
    threshold : float
        It marks a voxel above this probability.
    """

    file: str
    sha256: str
    share: float = 0.25
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and up to 1, not {self.share}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, not {self.threshold}")


def keep_confirmed(
    probability: np.ndarray, second: np.ndarray, *, threshold: float, confirmation: Confirmation
) -> np.ndarray:
    """Lower the probability of the lesions that a second network does not confirm.

    Parameters
    ----------
    probability : ndarray of float32, (D, H, W)
        Lesion probability of the first network.
    second : ndarray, (D, H, W)
        That of the second one.
    threshold : float
        Lesions are what is connected (26 neighbours) above this probability.
    confirmation : Confirmation
        How many of their voxels the second network has to mark.

    Returns
    -------
    ndarray of float32, (D, H, W)
        The probability; in a lesion that is not confirmed, times the share of its voxels that the
        second network marks, so that a lower threshold brings doubtful lesions back.

    Raises
    ------
    ValueError
        If the two differ in shape.

    Examples
    --------
    >>> first = np.array([[[0.9, 0.9, 0.0, 0.9, 0.9]]], dtype=np.float32)
    >>> second = np.array([[[0.8, 0.1, 0.0, 0.2, 0.0]]], dtype=np.float32)
    >>> asked = Confirmation("second.safetensors", sha256="", share=0.5)
    >>> keep_confirmed(first, second, threshold=0.6, confirmation=asked).round(1).tolist()
    [[[0.9, 0.9, 0.0, 0.0, 0.0]]]
    """
    if probability.shape != second.shape:
        raise ValueError(f"shapes differ: {probability.shape} and {second.shape}")
    lesions, count = ndimage.label(probability > threshold, structure=_CONNECTIVITY_26)
    if not count:
        return probability
    marked = lesions[second > confirmation.threshold]
    voxels = np.bincount(lesions.ravel(), minlength=count + 1)
    shares = np.bincount(marked, minlength=count + 1) / np.maximum(voxels, 1)
    factors = np.where(shares >= confirmation.share, 1.0, shares).astype(np.float32)
    factors[0] = 1.0
    return np.asarray(probability * factors[lesions], dtype=np.float32)


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
        features = self.network.forward_features(image)
        found = self.network.forward_segmentation(features, image)
        return found.lesion_logits.float().sigmoid()

    def confirm(self, lesions: Tensor, second: Tensor) -> Tensor:
        """Return the lesion probability of the first network after `keep_confirmed`.

        Parameters
        ----------
        lesions, second : Tensor, (1, 1, D, H, W)
            Probability of the first network, and what `read` gives.

        Returns
        -------
        Tensor, (1, 1, D, H, W)
            On the device of `lesions`.
        """
        kept = keep_confirmed(
            lesions[0, 0].cpu().numpy(),
            second[0, 0].cpu().numpy(),
            threshold=self.threshold,
            confirmation=self.confirmation,
        )
        return lesions.new_tensor(kept)[None, None]
