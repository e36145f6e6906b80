"""A branch of the classification that reads lesions one by one, and tells what each adds."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from msnmo_bids.model.blocks import build_activation
from msnmo_bids.model.config import JointConfig

#: Added to the number of lesions and to the sum of their weights: few lesions count less.
_FEW, _LIGHT = 4.0, 2.0


class LesionBranch(nn.Module):
    """Class logits from the lesions of a scan, an exact sum over them.

    A lesion is a row of D descriptors. Two 1x1x1 layers, on a list of lesions linear ones, code it
    as phi, 64 values. With n lesions and the weight w of each, a tenth of the square root of its
    volume in mm³, one linear layer W reads ::

        sum phi / sqrt(n + 4)   and   sum w phi / sqrt(sum w + 2)

    so that logits = bias + a sum over lesions: Eq. 10 without a rest. The denominators grow more
    slowly than the sums, so many alike lesions say more than one, and the constants in them shrink
    what few or small lesions say. With several fits the contributions are their mean. The branch
    knows no atlas: where a lesion lies is in its descriptors.

    Parameters
    ----------
    config : JointConfig
        ``lesion_descriptors`` D, ``lesion_width`` (64), ``lesion_fits``, classes K and activation.
        The first descriptor is the natural logarithm of the volume (mm³).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(config.lesion_descriptors))
        self.register_buffer("deviation", torch.ones(config.lesion_descriptors))
        self.fits = nn.ModuleList(_Fit(config) for _ in range(config.lesion_fits))

    def standardize(self, descriptors: Tensor) -> None:
        """Read descriptors, from now on, relative to those of a training, ``(N, D)``."""
        self.mean.copy_(descriptors.mean(dim=0))
        self.deviation.copy_(descriptors.std(dim=0).clamp(min=1e-3))

    def contributions(
        self, descriptors: Tensor, scan: Tensor | None = None, scans: int = 1
    ) -> Tensor:
        """Return what each lesion adds to the logits of its scan, ``(N, K)``.

        Parameters
        ----------
        descriptors : Tensor
            ``(N, D)``, of the lesions of all scans.
        scan : Tensor of int64, optional
            Scan of each lesion, ``(N,)``; by default all are of one.
        scans : int, optional
            Number of scans.
        """
        scan = descriptors.new_zeros(len(descriptors), dtype=torch.long) if scan is None else scan
        weight = torch.exp(descriptors[:, :1] / 2) / 10
        each = torch.cat([torch.ones_like(weight), weight], dim=1)
        total = each.new_zeros(scans, 2).index_add(0, scan, each)
        share = each / torch.sqrt(total + total.new_tensor([_FEW, _LIGHT]))[scan]
        standard = (descriptors - self.mean) / self.deviation
        return torch.stack([fit(standard, share) for fit in self.fits]).mean(dim=0)

    @property
    def bias(self) -> Tensor:
        """Logits of a scan without lesions, ``(K,)``."""
        return torch.stack([cast(_Fit, fit).head.bias for fit in self.fits]).mean(dim=0)

    def forward(self, descriptors: Tensor, scan: Tensor | None = None, scans: int = 1) -> Tensor:
        """Map descriptors, as for `contributions`, to the class logits ``(scans, K)``."""
        parts = self.contributions(descriptors, scan, scans)
        scan = descriptors.new_zeros(len(descriptors), dtype=torch.long) if scan is None else scan
        return parts.new_zeros(scans, parts.shape[1]).index_add(0, scan, parts) + self.bias


class _Fit(nn.Module):
    """The layers of one fit."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        style, width = config.style("classification"), config.lesion_width
        self.layers = nn.Sequential(
            nn.Linear(config.lesion_descriptors, width),
            build_activation(style),
            nn.Linear(width, width),
            build_activation(style),
        )
        self.head = nn.Linear(2 * width, len(config.classes))

    def forward(self, standard: Tensor, share: Tensor) -> Tensor:
        """Map lesions ``(N, D)`` and their shares in both sums ``(N, 2)`` to ``(N, K)``."""
        coded = self.layers(standard)
        sums = (share[:, :, None] * coded[:, None, :]).flatten(1)
        return nn.functional.linear(sums, self.head.weight)
