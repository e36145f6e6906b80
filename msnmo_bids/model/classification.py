"""Classification: lesion guidance (Eq. 7-9), residual blocks, pooling (Eq. 6); a branch of lesions.

The branch reads lesions one by one, and tells what each adds to the logits.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from msnmo_bids.model.blocks import (
    ConvUnit,
    build_activation,
    build_convolution,
    build_normalization,
    linear_float32,
)
from msnmo_bids.model.config import JointConfig

NORMALIZATION = "group"
"""An instance normalisation would set the mean of every map, so that its pooling tells nothing."""

LESION_WIDTH = 64
#: Added to the number of lesions and to the sum of their weights: few lesions count less.
_FEW, _LIGHT = 4.0, 2.0


class LesionGuidance(nn.Module):
    """Joint features J ``(B, C, D/2, H/2, W/2)`` of P ``(B, 1, D, H, W)`` and D (as J).

    For an image of 160, P is ``(B, 1, 160, 160, 160)``, D and J are ``(B, 32, 80, 80, 80)``:

    * alpha = sigmoid(f_P(P)), f_P of stride 2: ``(B, 1, 80, 80, 80)`` (Eq. 7);
    * D' = alpha * D (Eq. 8);
    * J = f1x1(concat(f3x3(P), f3x3(D'))), stride 2 on P and 1 on D': ``64 -> 32`` (Eq. 9).

    Parameters
    ----------
    config : JointConfig
        ``guidance`` chooses the whole module (``"full"``) or a variant of Table 8: ``"dot"``,
        J = D'; ``"concat"``, Eq. 9 with D for D'; ``"add"``, J = f3x3(P) + D; ``"none"``, J = D.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width = config.shared_channels
        self.attends = config.guidance in ("dot", "full")
        self.fuses = config.guidance in ("concat", "full")
        self.adds = config.guidance == "add"
        if self.attends:
            self.attention_conv = build_convolution(1, 1, 2)
        if self.fuses or self.adds:
            self.lesion_conv = build_convolution(1, width, 2)
        if self.fuses:
            self.feature_conv = build_convolution(width, width)
            self.fusion_conv = build_convolution(2 * width, width, kernel=1)

    def forward(self, features: Tensor, lesions: Tensor) -> Tensor:
        """Join D (`features`) and P (`lesions`, the lesion probability) to J."""
        if self.attends:
            features = features * self.attention_map(lesions).to(features.dtype)
        if self.adds:
            return features + self.lesion_conv(lesions)
        if self.fuses:
            parts = [self.lesion_conv(lesions), self.feature_conv(features)]
            return self.fusion_conv(torch.cat(parts, dim=1))
        return features

    def attention_map(self, lesions: Tensor) -> Tensor:
        """Return alpha (Eq. 7): ``(B, 1, D, H, W)`` to ``(B, 1, D/2, H/2, W/2)``."""
        return self.attention_conv(lesions).sigmoid()


class DiseaseClassification(nn.Module):
    """Class logits from the joint features J.

    For an image of 160, with channels in brackets: 80 (64) -> 40 (128) -> 20 (256); each of the
    three is pooled, 64 + 128 + 256 = 448 values, and the linear layer gives K logits.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        widths = config.classification_channels
        inputs = (config.shared_channels, *widths[:-1])
        self.blocks = nn.ModuleList(
            [
                ResidualBlock(below, width, stride)
                for below, width, stride in zip(inputs, widths, (1, 2, 2), strict=True)
            ]
        )
        self.head = nn.Linear(sum(widths), len(config.classes))

    def forward_features(self, features: Tensor) -> tuple[Tensor, ...]:
        """Map J ``(B, 32, D/2, H/2, W/2)`` to the feature maps F_i at 1/2, 1/4 and 1/8."""
        maps = []
        for block in self.blocks:
            features = block(features)
            maps.append(features)
        return tuple(maps)

    def pooled(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Average the F_i of `forward_features`: ``(B, 448)``, float32 also under autocast."""
        return torch.cat([scale.float().mean(dim=(2, 3, 4)) for scale in maps], dim=1)

    def forward_head(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Classify by the F_i: the logits ``(B, K)``, float32."""
        return linear_float32(self.head, self.pooled(maps))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut: ``(B, in, D, H, W)`` to ``(B, out, D/s, H/s, W/s)``.

    The shortcut is a 1x1x1 convolution without normalisation: it carries the strength of the
    features past the normalisations, and the pooled features live of it.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = ConvUnit(inputs, width, NORMALIZATION, stride)
        self.second = build_convolution(width, width, bias=False)
        self.norm = build_normalization(width, NORMALIZATION)
        self.shortcut = build_convolution(inputs, width, stride, kernel=1)
        self.activation = build_activation()

    def forward(self, features: Tensor) -> Tensor:
        """Code the features."""
        coded = self.norm(self.second(self.first(features)))
        return self.activation(coded + self.shortcut(features))


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
        ``lesion_descriptors`` D, ``lesion_fits`` and classes K. The first descriptor is the natural
        logarithm of the volume (mm³).
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
    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.lesion_descriptors, LESION_WIDTH),
            build_activation(),
            nn.Linear(LESION_WIDTH, LESION_WIDTH),
            build_activation(),
        )
        self.head = nn.Linear(2 * LESION_WIDTH, len(config.classes))

    def forward(self, standard: Tensor, share: Tensor) -> Tensor:
        """Map lesions ``(N, D)`` and their shares in both sums ``(N, 2)`` to ``(N, K)``."""
        coded = self.layers(standard)
        sums = (share[:, :, None] * coded[:, None, :]).flatten(1)
        return nn.functional.linear(sums, self.head.weight)
