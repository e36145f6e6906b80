"""Class activation maps (Eq. 10): where the classification looked, which is the lesion map V.

Those of the lesion branch are exact: a lesion's voxels hold what the lesion adds to the logit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def class_activation_maps(
    features: Sequence[Tensor], weight: Tensor, class_index: int | Tensor
) -> list[Tensor]:
    """Return V_i = sum_k F_ik * w_ik^c for each scale (Eq. 10): ``(B, 1, D_i, H_i, W_i)``, float32.

    Parameters
    ----------
    features : sequence of Tensor
        F_i, ``(B, C_i, D_i, H_i, W_i)``.
    weight : Tensor
        Of the linear layer, ``(K, sum of C_i)``; the blocks are in the order of `features`.
    class_index : int or Tensor
        The class c; one for all samples, or ``(B,)``.

    Notes
    -----
    The mean of V_i over its own grid, summed over i, is the logit of class c minus its bias.
    """
    index = torch.as_tensor(class_index, device=weight.device).expand(len(features[0]))
    blocks = weight[index].split([scale.shape[1] for scale in features], dim=1)
    return [_project(scale, block[:, None]) for scale, block in zip(features, blocks, strict=True)]


def combined_cam(features: Sequence[Tensor], weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the sum of the V_i, upsampled trilinearly to a grid, for every class.

    Features and weight are as for `class_activation_maps`, `shape` is the grid ``(D, H, W)``. The
    result, ``(B, K, D, H, W)``, is in units of the logit: the mean of V_i over its own grid, summed
    over i, is the class logit minus the bias. Trilinear interpolation keeps that mean up to its
    handling of the border, so the mean of the result is close to it.
    """
    blocks = weight[None].split([scale.shape[1] for scale in features], dim=2)
    total = features[0].new_zeros((len(features[0]), len(weight), *shape), dtype=torch.float32)
    for scale, block in zip(features, blocks, strict=True):
        maps = _project(scale, block.expand(len(scale), -1, -1))
        total += F.interpolate(maps, tuple(shape), mode="trilinear")
    return total


def lesion_activation_maps(labels: np.ndarray, contributions: np.ndarray) -> np.ndarray:
    """Return what each lesion adds to each class logit, as maps, (K, X, Y, Z) float32.

    The values of the lesions, one voxel of each, and the bias add up to the logit.

    Parameters
    ----------
    labels : ndarray of int, (X, Y, Z)
        1 to n; 0 elsewhere.
    contributions : ndarray, (n, K)
        Of the lesions, in the order of the labels
        (:meth:`msnmo_bids.model.joint.JointNetwork.forward_lesions`).
    """
    values = np.concatenate([np.zeros((1, contributions.shape[1])), contributions])
    return np.moveaxis(values.astype(np.float32)[labels], -1, 0)


def _project(scale: Tensor, weight: Tensor) -> Tensor:
    """Weight feature maps: ``(B, C, D, H, W)`` by ``(B, K, C)`` to ``(B, K, D, H, W)``, float32."""
    # The class logits are float32 under autocast too: only so do the maps add up to them.
    with torch.autocast(scale.device.type, enabled=False):
        return torch.einsum("bcdhw,bkc->bkdhw", scale.float(), weight.float())
