"""Lesion segmentation subnetwork (Eq. 5): contraction, expansion, multiscale binding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from msnmo_bids.model.blocks import ConvUnit
from msnmo_bids.model.config import INPUT_CHANNELS, LESION_PRIOR, JointConfig

#: Weights of the scales, coarse to fine (Eq. 5).
SCALE_WEIGHTS = (0.25, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class JointOutput:
    """What the joint model says of a batch; None for a task that was not computed.

    Parameters
    ----------
    lesion_logits : Tensor or None
        ``(B, 1, D, H, W)``.
    scale_logits : tuple of Tensor or None
        S_i, coarse to fine: ``(B, 1, D/8, ...)``, then 1/4, 1/2 and 1/1, before upsampling.
    class_logits : Tensor or None
        ``(B, K)``, float32.
    class_features : tuple of Tensor or None
        F_i, fine to coarse: ``(B, 64, D/2, ...)``, ``(B, 128, D/4, ...)``, ``(B, 256, D/8, ...)``.
    class_weight : Tensor or None
        Weight of the linear layer, ``(K, 448)``: with F_i it gives the class activation maps.
    """

    lesion_logits: Tensor | None = None
    scale_logits: tuple[Tensor, ...] | None = None
    class_logits: Tensor | None = None
    class_features: tuple[Tensor, ...] | None = None
    class_weight: Tensor | None = None

    @property
    def lesion_probability(self) -> Tensor | None:
        """M_lesion (Eq. 5), ``(B, 1, D, H, W)``, 0 to 1."""
        return None if self.lesion_logits is None else self.lesion_logits.float().sigmoid()


class LesionSegmentation(nn.Module):
    """Lesion logits from f_seg, with the image as the skip of full resolution.

    For an image of 160, with channels in brackets:

    * contraction 80 (32) -> 40 (64) -> 20 (128): an encoding block a scale, a strided convolution
      between two scales;
    * expansion 20 (128) -> 40 (64) -> 80 (32) -> 160 (16): a transposed convolution, then a
      decoding block of the result beside the skip; the last skip is the image (1);
    * a 1x1x1 convolution to one channel at 20, 40, 80 and 160: the S_i, and their binding.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        kind = config.segmentation_normalization
        half, quarter, eighth = config.segmentation_channels
        self.encoders = nn.ModuleList(
            [
                _double_unit(config.shared_channels, half, kind),
                _double_unit(quarter, quarter, kind),
                _double_unit(eighth, eighth, kind),
            ]
        )
        self.downs = nn.ModuleList(
            [ConvUnit(half, quarter, kind, stride=2), ConvUnit(quarter, eighth, kind, stride=2)]
        )
        widths, skips = config.decoder_channels, (quarter, half, INPUT_CHANNELS)
        below = (eighth, *widths[:-1])
        self.ups = nn.ModuleList(
            [nn.ConvTranspose3d(a, b, 2, 2) for a, b in zip(below, widths, strict=True)]
        )
        self.decoders = nn.ModuleList(
            [
                _double_unit(width + skip, width, kind)
                for width, skip in zip(widths, skips, strict=True)
            ]
        )
        self.heads = nn.ModuleList([nn.Conv3d(width, 1, 1) for width in (eighth, *widths)])
        # The biases add up to the logit of the prior.
        bias = math.log(LESION_PRIOR / (1 - LESION_PRIOR)) / sum(SCALE_WEIGHTS)
        for head in self.heads:
            nn.init.constant_(head.bias, bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, image: Tensor) -> JointOutput:
        """Segment by f_seg, ``(B, 32, D/2, H/2, W/2)``, and the image ``(B, 1, D, H, W)``."""
        skips = [image, self.encoders[0](features)]
        skips.append(self.encoders[1](self.downs[0](skips[-1])))
        maps = self.encoders[2](self.downs[1](skips[-1]))
        scales = [self.heads[0](maps)]
        for up, decoder, head in zip(self.ups, self.decoders, self.heads[1:], strict=True):
            # One expression, so that no full-resolution map outlives its use.
            maps = decoder(torch.cat([up(maps), skips.pop().to(maps.dtype)], dim=1))
            scales.append(head(maps))
        return JointOutput(bind_scales(scales), tuple(scales))


def _double_unit(inputs: int, width: int, kind: str) -> nn.Module:
    """Build an encoding or decoding block: two convolutions."""
    return nn.Sequential(ConvUnit(inputs, width, kind), ConvUnit(width, width, kind))


def bind_scales(scales: list[Tensor]) -> Tensor:
    """Add the scales' logits, each upsampled to full size and weighted (Eq. 5, before sigmoid).

    The scales go from coarse to fine, each twice the size of the one before; the result has the
    shape of the last. Nearest-neighbour upsampling by 8 is three times that by 2, so no scale but
    the last is ever held at full size.
    """
    total = scales[0] * SCALE_WEIGHTS[0]
    for scale, weight in zip(scales[1:], SCALE_WEIGHTS[1:], strict=True):
        total = F.interpolate(total, scale_factor=2, mode="nearest") + weight * scale
    return total
