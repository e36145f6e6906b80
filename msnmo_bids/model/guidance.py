"""Lesion guidance module (Eq. 7-9): the lesion map steers the classification's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msnmo_bids.model.blocks import build_convolution
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
                _start_near_lesions(self.attention_conv)
        if self.fuses or self.adds:
            self.lesion_conv = build_convolution(1, width, 2)
        if self.fuses:
            self.feature_conv = build_convolution(width, width)
            self.fusion_conv = build_convolution(2 * width, width, kernel=1)

    def forward(self, features: Tensor, lesions: Tensor) -> Tensor:
        """Join D (`features`) and P (`lesions`, the lesion probability) to J."""
        if self.attends:
            features = self._emphasize(features, self.attention_map(lesions))
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

    def _emphasize(self, features: Tensor, alpha: Tensor) -> Tensor:
        return features * (alpha if self.gate == "alpha" else 1 + alpha).to(features.dtype)


def _start_near_lesions(convolution: nn.Conv3d) -> None:
    gain, offset = LESION_START
    nn.init.constant_(convolution.weight, gain / convolution.weight.numel())
    nn.init.constant_(convolution.bias, offset)  # type: ignore[arg-type]
