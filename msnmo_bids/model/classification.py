"""Classification of the disease: lesion guidance (Eq. 7-9), residual blocks, pooling (Eq. 6)."""

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

LESION_START = (8.0, -4.0)
"""Gain and offset of f_P for ``guidance_start="lesion"``: alpha is 0.02 at P=0, 0.98 at P=1."""


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
        ``guidance_gate``, ``guidance_attention``, ``guidance_start`` shape alpha and D'.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width = config.shared_channels
        self.gate = config.guidance_gate
        self.attention = config.guidance_attention
        self.attends = config.guidance in ("dot", "full")
        self.fuses = config.guidance in ("concat", "full")
        self.adds = config.guidance == "add"
        if self.attends:
            self.attention_conv = build_convolution(1, 1, 2)
            if config.guidance_start == "lesion":
                gain, offset = LESION_START
                kernel, bias = self.attention_conv.weight, self.attention_conv.bias
                nn.init.constant_(kernel, gain / kernel.numel())
                nn.init.constant_(bias, offset)  # type: ignore[arg-type]
        if self.fuses or self.adds:
            self.lesion_conv = build_convolution(1, width, 2)
        if self.fuses:
            self.feature_conv = build_convolution(width, width)
            self.fusion_conv = build_convolution(2 * width, width, kernel=1)

    def forward(self, features: Tensor, lesions: Tensor) -> Tensor:
        """Join D (`features`) and P (`lesions`, the lesion probability) to J."""
        if self.attends:
            alpha = self.attention_map(lesions)
            features = features * (alpha if self.gate == "alpha" else 1 + alpha).to(features.dtype)
        if self.adds:
            return features + self.lesion_conv(lesions)
        if self.fuses:
            parts = [self.lesion_conv(lesions), self.feature_conv(features)]
            return self.fusion_conv(torch.cat(parts, dim=1))
        return features

    def attention_map(self, lesions: Tensor) -> Tensor:
        """Return alpha (Eq. 7): ``(B, 1, D, H, W)`` to ``(B, 1, D/2, H/2, W/2)``."""
        logits = self.attention_conv(lesions)
        if self.attention == "softmax":
            return logits.flatten(1).softmax(dim=1).reshape(logits.shape)
        return logits.sigmoid()


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
        """Return how much each voxel of the F_i counts in the pooling; None: all voxels alike.

        From the lesion probability, ``(B, 1, D, H, W)``, to ``(B, 1, D_i, H_i, W_i)`` with a mean
        of 1 for each of the maps of `forward_features`.
        """
        if self.pooling != "lesion" or lesions is None:
            return None
        counts, share = [], lesions.float()
        for _ in self.blocks:
            share = halve(share)
            count = share + self.pooling_floor
            counts.append(count / count.mean(dim=(2, 3, 4), keepdim=True))
        return tuple(counts)

    def pooled(self, maps: tuple[Tensor, ...], lesions: Tensor | None = None) -> Tensor:
        """Pool the F_i of `forward_features`: ``(B, 448)``, float32 also under autocast.

        `lesions`, ``(B, 1, D, H, W)``, is the lesion probability, for pooling weighted by it.
        """
        counts = self.pooling_weights(lesions)
        if counts is None:
            pooled = [scale.float().mean(dim=(2, 3, 4)) for scale in maps]
        else:
            weighted = zip(maps, counts, strict=True)
            pooled = [(scale.float() * count).mean(dim=(2, 3, 4)) for scale, count in weighted]
        return torch.cat(pooled, dim=1)

    def forward_head(self, maps: tuple[Tensor, ...], lesions: Tensor | None = None) -> Tensor:
        """Classify by the F_i, as for `pooled`: the logits ``(B, K)``, float32."""
        return linear_float32(self.head, self.pooled(maps, lesions))

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
