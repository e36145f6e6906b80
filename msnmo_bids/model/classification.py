"""Disease classification subnetwork (Eq. 6): three residual blocks, pooling, one linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msnmo_bids.model.blocks import (
    ConvUnit,
    build_activation,
    build_convolution,
    build_normalization,
    halve,
    linear_float32,
)
from msnmo_bids.model.config import JointConfig


class DiseaseClassification(nn.Module):
    """Class logits from the joint features J.

    For an image of 160, with channels in brackets: 80 (64) -> 40 (128) -> 20 (256); each of the
    three is pooled, 64 + 128 + 256 = 448 values, and the linear layer gives K logits.

    Parameters
    ----------
    config : JointConfig
        Widths, normalisation, activation, pooling and classes.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        widths = config.classification_channels
        inputs = (config.shared_channels, *widths[:-1])
        self.blocks = nn.ModuleList(
            [
                ResidualBlock(below, width, stride, config)
                for below, width, stride in zip(inputs, widths, (1, 2, 2), strict=True)
            ]
        )
        self.head = nn.Linear(sum(widths), len(config.classes))
        self.pooling = config.pooling
        self.pooling_floor = config.pooling_floor

    def forward_features(self, features: Tensor) -> tuple[Tensor, ...]:
        """Map J ``(B, 32, D/2, H/2, W/2)`` to the feature maps F_i at 1/2, 1/4 and 1/8."""
        maps = []
        for block in self.blocks:
            features = block(features)
            maps.append(features)
        return tuple(maps)

    def pooling_weights(self, lesions: Tensor | None) -> tuple[Tensor, ...] | None:
        """Return how much each voxel counts in the pooling.

        Parameters
        ----------
        lesions : Tensor or None
            Lesion probability ``(B, 1, D, H, W)``.

        Returns
        -------
        tuple of Tensor or None
            For each of the maps of `forward_features`, ``(B, 1, D_i, H_i, W_i)`` with a mean of 1;
            None: all voxels count alike.
        """
        if self.pooling != "lesion" or lesions is None:
            return None
        counts, share = [], lesions.float()
        for _ in self.blocks:
            share = halve(share)
            count = share + self.pooling_floor
            counts.append(count / count.mean(dim=(2, 3, 4), keepdim=True))
        return tuple(counts)

    def forward_head(
        self, maps: tuple[Tensor, ...], lesions: Tensor | None = None, pre_logits: bool = False
    ) -> Tensor:
        """Pool the feature maps and classify.

        Parameters
        ----------
        maps : tuple of Tensor
            The F_i of `forward_features`.
        lesions : Tensor, optional
            Lesion probability ``(B, 1, D, H, W)``, for pooling weighted by it.
        pre_logits : bool, optional
            Return the pooled features instead of the logits.

        Returns
        -------
        Tensor
            ``(B, K)``, or with `pre_logits` ``(B, 448)``; float32 also under autocast.
        """
        counts = self.pooling_weights(lesions)
        if counts is None:
            pooled = [scale.float().mean(dim=(2, 3, 4)) for scale in maps]
        else:
            weighted = zip(maps, counts, strict=True)
            pooled = [(scale.float() * count).mean(dim=(2, 3, 4)) for scale, count in weighted]
        joined = torch.cat(pooled, dim=1)
        return joined if pre_logits else linear_float32(self.head, joined)

    def forward(self, features: Tensor, lesions: Tensor | None = None) -> Tensor:
        """Map J and the lesion probability to the class logits ``(B, K)``."""
        return self.forward_head(self.forward_features(features), lesions)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut: ``(B, in, D, H, W)`` to ``(B, out, D/s, H/s, W/s)``.

    The shortcut is a 1x1x1 convolution without normalisation: it carries the strength of the
    features past the normalisations, and the pooled features live of it.
    """

    def __init__(self, inputs: int, width: int, stride: int, config: JointConfig) -> None:
        super().__init__()
        style = config.style("classification")
        self.first = ConvUnit(inputs, width, style, stride)
        self.second = build_convolution(width, width, bias=style.normalization == "none")
        self.norm = build_normalization(width, style)
        self.shortcut = build_convolution(inputs, width, stride, kernel=1)
        self.activation = build_activation(style)

    def forward(self, features: Tensor) -> Tensor:
        """Code the features."""
        coded = self.norm(self.second(self.first(features)))
        return self.activation(coded + self.shortcut(features))
