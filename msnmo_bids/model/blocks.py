"""Layers and builders of all subnetworks: normalisation, activation, convolution, halving."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msnmo_bids.model.config import CHANNEL_MULTIPLE

_EPSILON = 1e-5  # added to a variance


def build_activation() -> nn.Module:
    """Return the activation of the joint model."""
    return nn.LeakyReLU(0.01, inplace=True)


def build_normalization(channels: int, kind: str) -> nn.Module:
    """Return the normalisation of a kind, instance, group or batch, for `channels` feature maps.

    Groups have 8 channels (or more, where 8 does not divide the channels). An instance
    normalisation is a group normalisation with groups of one channel. It is built so because
    ``nn.InstanceNorm3d`` copies a channels-last tensor and refuses a single voxel.
    """
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    most = channels if kind == "instance" else max(1, channels // CHANNEL_MULTIPLE)
    groups = next(count for count in range(most, 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


class BrainNormalization(nn.Module):
    """Normalise an image by mean and standard deviation of its brain, the voxels other than 0.

    Takes ``(B, C, D, H, W)`` of any type, returns float32 of the same shape. Each channel is
    normalised by itself, then scaled and shifted; the background gets the value that a 0 in the
    brain would get. With the background the brain of a whole head, a third of its voxels, would be
    in other units than that of a crop.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Normalise each image of a batch; one without a brain becomes the bias."""
        image = image.float()
        brain, space = (image != 0).float(), (2, 3, 4)
        voxels = brain.sum(space, keepdim=True).clamp(min=1)
        centred = image - image.sum(space, keepdim=True) / voxels
        variance = (centred.square() * brain).sum(space, keepdim=True) / voxels
        weight, bias = (one.view(-1, 1, 1, 1) for one in (self.weight, self.bias))
        return centred * torch.rsqrt(variance + _EPSILON) * weight + bias


class ConvUnit(nn.Sequential):
    """A 3x3x3 convolution, a normalisation, an activation.

    ``(B, in_channels, D, H, W)`` becomes ``(B, out_channels, D/stride, H/stride, W/stride)`` for
    sides that the stride divides.
    """

    def __init__(
        self, in_channels: int, out_channels: int, normalization: str, stride: int = 1
    ) -> None:
        super().__init__(
            build_convolution(in_channels, out_channels, stride, bias=False),
            build_normalization(out_channels, normalization),
            build_activation(),
        )


def fold_batch_normalization(network: nn.Module) -> None:
    """Multiply the batch normalisations of a network in evaluation mode into its convolutions.

    The network computes the same, in less time, and can no longer be trained. Under autocast to
    bfloat16 its digits change, because the products are rounded.
    """
    for unit in network.modules():
        if isinstance(unit, ConvUnit):
            convolution, normalization, _ = unit
            if isinstance(convolution, nn.Conv3d) and isinstance(normalization, nn.BatchNorm3d):
                unit[0] = fuse_conv_bn_eval(convolution, normalization)
                unit[1] = nn.Identity()


def build_convolution(
    in_channels: int, out_channels: int, stride: int = 1, *, kernel: int = 3, bias: bool = True
) -> nn.Conv3d:
    """Return a convolution whose output side is the input side over the stride."""
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)


def linear_float32(layer: nn.Linear, features: Tensor) -> Tensor:
    """Apply a linear layer in float32, also under autocast: ``(B, C)`` to ``(B, K)``.

    Three digits, as bfloat16 has them, are too few for a probability.
    """
    kind = features.device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device, on which sizes are counted
        return layer(features)
    with torch.autocast(kind, enabled=False):
        return layer(features.float())


def halve(maps: Tensor) -> Tensor:
    """Average cubes of 2x2x2 voxels: ``(B, C, D, H, W)`` to ``(B, C, D/2, H/2, W/2)``.

    Equal to ``avg_pool3d(maps, 2)``, which has no bfloat16 kernel on a CPU.
    """
    batch, channels, depth, height, width = maps.shape
    pairs = maps.reshape(batch, channels, depth // 2, 2, height // 2, 2, width // 2, 2)
    return pairs.mean(dim=(3, 5, 7))
