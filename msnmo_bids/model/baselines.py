"""The published networks that the paper compares with (Tables 3 and 4), from MONAI, in 3D.

Batch normalisation
    All of them were published with it (V-Net without any), for batches of many images. Here a batch
    has one or two scans. Trained on one, a batch normalisation sets the mean of every feature map
    of that scan, so that a global average pooling after it says little; trained on two, what a scan
    gives depends on the other; and the running averages that stand in afterwards fit neither. So
    the segmenting networks have instance normalisation (what a batch normalisation is for one scan,
    in training and afterwards), the classifying ones group normalisation (Wu and He, 2018) with
    groups of 8 channels: as the joint model in the same tasks, so that a comparison is of the
    architectures. A map of a single channel (the gates of the attention U-Net, the output of the
    V-Net) is not normalised at all: that would fix how much of it there is.

Widths and strides
    The published ones, at ``width=1``. ``3D UNet`` is MONAI's BasicUNet (Falk et al., 2019: two
    convolutions a scale, pooling, full resolution at the top) and not its UNet, whose first
    convolution halves the image. The attention U-Net has the widths of Oktay et al.'s code, 16 to
    256. The residual networks halve the image in the first convolution, as He et al. do.

Sides of the image are multiples of 16 (four halvings must come back to the same grid) and at
least 32 (the classifying networks halve five times).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

from monai.networks.blocks.squeeze_and_excitation import SEResNetBottleneck
from monai.networks.nets import AttentionUnet, BasicUNet, DenseNet121, ResNet, SEResNet50, VNet
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition
from torch import Tensor, nn

from msnmo_bids.model.blocks import build_normalization, linear_float32
from msnmo_bids.model.config import (
    CLASSIFICATION,
    INPUT_CHANNELS,
    LESION_PRIOR,
    SEGMENTATION,
    scale_channels,
)
from msnmo_bids.model.joint import check_image, check_tasks
from msnmo_bids.model.segmentation import JointOutput

SHORTEST_SIDE = 32
LEVELS = (16, 32, 64, 128, 256)
STAGES = (64, 128, 256, 512)


class SegmentationBaseline(nn.Module):
    """A network of one channel of lesion logits: ``(B, 1, D, H, W)`` to the same shape.

    The bias of its last convolution starts at the joint model's lesion prior: a comparison is not
    to be decided by the steps in which the Dice loss only lowers the background.
    """

    tasks = (SEGMENTATION,)

    def __init__(self, network: nn.Module, last: nn.Conv3d) -> None:
        super().__init__()
        self.network = network
        logit = math.log(LESION_PRIOR / (1 - LESION_PRIOR))
        nn.init.constant_(last.bias, logit)  # type: ignore[arg-type]

    def forward(self, image: Tensor, tasks: Sequence[str] | None = None) -> JointOutput:
        """Segment; as `JointNetwork.forward`, with the lesion logits alone."""
        check_tasks(tasks, self.tasks)
        check_image(image, SHORTEST_SIDE)
        return JointOutput(lesion_logits=self.network(image))


class ClassificationBaseline(nn.Module):
    """Feature maps, global average pooling, one linear layer: ``(B, 1, D, H, W)`` to ``(B, K)``.

    Such a head has class activation maps (Eq. 10, with one scale). The features are ``(B, C, D/32,
    H/32, W/32)``, rounded up or down.
    """

    tasks = (CLASSIFICATION,)

    def __init__(self, features: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, image: Tensor, tasks: Sequence[str] | None = None) -> JointOutput:
        """Classify; as `JointNetwork.forward`, without a segmentation."""
        check_tasks(tasks, self.tasks)
        check_image(image, SHORTEST_SIDE)
        maps = self.features(image)
        pooled = maps.float().mean(dim=(2, 3, 4))
        return JointOutput(
            class_logits=linear_float32(self.head, pooled),
            class_features=(maps,),
            class_weight=self.head.weight,
        )


def build_baseline(
    network: str, classes: int = 2, width: float = 1.0
) -> SegmentationBaseline | ClassificationBaseline:
    """Build a published network, a key of `BUILDERS`, with random weights.

    `classes` is the number of diagnoses, which a segmentation ignores, `width` a factor of the
    numbers of channels (`scale_channels`).

    Raises
    ------
    ValueError
        If a number makes no network.
    """
    if classes < 2:
        raise ValueError(f"classes must be two or more, not {classes}")
    baseline = BUILDERS[network](classes, width)
    segments = isinstance(baseline, SegmentationBaseline)
    _replace_batch_normalizations(baseline, "instance" if segments else "group")
    return baseline


def _unet(_: int, width: float) -> SegmentationBaseline:
    channels = [scale_channels(count, width) for count in (32, *LEVELS[1:], 32)]
    network = BasicUNet(in_channels=INPUT_CHANNELS, out_channels=1, features=channels, norm="batch")
    return SegmentationBaseline(network, cast(nn.Conv3d, network.final_conv))


def _attention_unet(_: int, width: float) -> SegmentationBaseline:
    channels = [scale_channels(count, width) for count in LEVELS]
    network = AttentionUnet(3, INPUT_CHANNELS, 1, channels, strides=(2, 2, 2, 2))
    return SegmentationBaseline(network, cast(nn.Conv3d, network.model[-1].conv))


def _vnet(_: int, width: float) -> SegmentationBaseline:
    # Each level has twice the channels of the one above: the deepest but one is what is rounded.
    network = _ScaledVNet(scale_channels(LEVELS[3], width) // 8)
    return SegmentationBaseline(network, cast(nn.Conv3d, network.out_tr.conv2))


class _ScaledVNet(VNet):
    """MONAI's V-Net, whose widths are fixed, with its first one chosen; its own is 16."""

    def __init__(self, first: int) -> None:
        nn.Module.__init__(self)
        act = ("elu", {"inplace": True})
        a, b, c, d, e = (first * 2**level for level in range(5))
        half, both = 0.5, (0.5, 0.5)
        self.in_tr = InputTransition(3, INPUT_CHANNELS, a, act)
        self.down_tr32 = DownTransition(3, a, 1, act)
        self.down_tr64 = DownTransition(3, b, 2, act)
        self.down_tr128 = DownTransition(3, c, 3, act, dropout_prob=half)
        self.down_tr256 = DownTransition(3, d, 2, act, dropout_prob=half)
        self.up_tr256 = UpTransition(3, e, e, 2, act, dropout_prob=both)
        self.up_tr128 = UpTransition(3, e, d, 2, act, dropout_prob=both)
        self.up_tr64 = UpTransition(3, d, c, 1, act)
        self.up_tr32 = UpTransition(3, c, b, 1, act)
        self.out_tr = OutputTransition(3, b, 1, act)


def _resnet(blocks: list[int]) -> Callable[[int, float], ClassificationBaseline]:
    def build(classes: int, width: float) -> ClassificationBaseline:
        network = ResNet(
            "bottleneck",
            blocks,
            [scale_channels(count, width) for count in STAGES],
            n_input_channels=INPUT_CHANNELS,
            conv1_t_stride=2,
            bias_downsample=False,
            num_classes=classes,
        )
        stem = (network.conv1, network.bn1, network.act, network.maxpool)
        features = nn.Sequential(*stem, *_stages(network))
        return ClassificationBaseline(features, cast(nn.Linear, network.fc))

    return build


def _densenet(classes: int, width: float) -> ClassificationBaseline:
    network = DenseNet121(
        spatial_dims=3,
        in_channels=INPUT_CHANNELS,
        out_channels=classes,
        init_features=scale_channels(64, width),
        growth_rate=scale_channels(32, width),
    )
    features = nn.Sequential(network.features, network.class_layers[0])
    return ClassificationBaseline(features, cast(nn.Linear, network.class_layers[-1]))


def _senet(classes: int, width: float) -> ClassificationBaseline:
    network = _ScaledSENet(classes, width)
    features = nn.Sequential(network.layer0, *_stages(network))
    return ClassificationBaseline(features, network.last_linear)


class _ScaledSENet(SEResNet50):
    """MONAI's SE-ResNet50, whose widths are fixed, with `width` times its channels."""

    def __init__(self, classes: int, width: float) -> None:
        self.width = width
        inplanes = scale_channels(STAGES[0], width)
        super().__init__(
            spatial_dims=3, in_channels=INPUT_CHANNELS, num_classes=classes, inplanes=inplanes
        )
        pooled = scale_channels(STAGES[-1], width) * SEResNetBottleneck.expansion
        self.last_linear = nn.Linear(pooled, classes)
        nn.init.zeros_(self.last_linear.bias)

    def _make_layer(self, block, planes, *arguments, **settings):
        return super()._make_layer(
            block, scale_channels(planes, self.width), *arguments, **settings
        )


def _stages(network: ResNet | SEResNet50) -> tuple[nn.Module, ...]:
    return network.layer1, network.layer2, network.layer3, network.layer4


BUILDERS: dict[str, Callable[[int, float], SegmentationBaseline | ClassificationBaseline]] = {
    "unet": _unet,
    "vnet": _vnet,
    "attention_unet": _attention_unet,
    "resnet50": _resnet([3, 4, 6, 3]),
    "resnet101": _resnet([3, 4, 23, 3]),
    "resnet152": _resnet([3, 8, 36, 3]),
    "densenet121": _densenet,
    "senet50": _senet,
}


def _replace_batch_normalizations(module: nn.Module, normalization: str) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            channels = child.num_features
            single = channels == 1
            new = nn.Identity() if single else build_normalization(channels, normalization)
            setattr(module, name, new)
        else:
            _replace_batch_normalizations(child, normalization)
