"""Information-sharing subnetwork (Eq. 1-4): local branch, global branch, crossover unit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from msnmo_bids.model.blocks import ConvUnit, halve
from msnmo_bids.model.config import INPUT_CHANNELS, JointConfig
from msnmo_bids.model.swin import SwinBlock

PATCH_SIZE = 8


class SharedFeatures(NamedTuple):
    """f_seg and f_cls, each ``(B, 32, D/2, H/2, W/2)``; None for a task that is not built."""

    segmentation: Tensor | None
    classification: Tensor | None


class InformationSharing(nn.Module):
    """Features of the image for both tasks, each ``(B, 32, D/2, H/2, W/2)``.

    For an image of 160 both branches and both results are ``(B, 32, 80, 80, 80)``.

    Parameters
    ----------
    config : JointConfig
        ``sharing`` chooses: ``"both"`` branches mixed by the crossover unit (the paper's model);
        ``"none"``, a local branch for each task; ``"local"`` or ``"global"``, one branch that
        both tasks read unmixed.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.tasks = config.tasks
        self.sharing = config.sharing
        if config.sharing == "none":
            self.branches = nn.ModuleDict({task: LocalBranch(config) for task in config.tasks})
        if config.sharing in ("both", "local"):
            self.local_branch = LocalBranch(config)
        if config.sharing in ("both", "global"):
            self.global_branch = GlobalBranch(config)
        if config.sharing == "both":
            self.crossover = CrossoverUnit(config)

    def forward(self, image: Tensor) -> SharedFeatures:
        """Map the image ``(B, 1, D, H, W)`` to f_seg and f_cls."""
        if self.sharing == "none":
            features = {task: self.branches[task](image) for task in self.tasks}
        elif self.sharing == "both":
            features = self.crossover(self.local_branch(image), self.global_branch(image))
        else:
            branch = self.local_branch if self.sharing == "local" else self.global_branch
            features = dict.fromkeys(self.tasks, branch(image))
        return SharedFeatures(features.get("segmentation"), features.get("classification"))


class LocalBranch(nn.Sequential):
    """CTX_local (Eq. 3): ``(B, 1, D, H, W)`` to ``(B, 32, D/2, H/2, W/2)``.

    Three 3x3x3 convolutions with strides 2, 1, 1: 160 -> 80 -> 80 -> 80. Eq. 3's layer
    normalisation would run over the single channel and return zeros, so the volume is normalised
    as a whole.
    """

    def __init__(self, config: JointConfig) -> None:
        width, style = config.shared_channels, config.style("local")
        super().__init__(
            nn.GroupNorm(1, INPUT_CHANNELS),
            ConvUnit(INPUT_CHANNELS, width, style, stride=2),
            ConvUnit(width, width, style),
            ConvUnit(width, width, style),
        )


class GlobalBranch(nn.Module):
    """GTX_global (Eq. 1, 2): ``(B, 1, D, H, W)`` to ``(B, 32, D/2, H/2, W/2)``.

    Patch embedding by a convolution (kernel and stride 8) and an average pooling of 2, layer
    normalisation, Swin blocks, trilinear interpolation: 160 -> 20 -> 10 tokens per side -> 80.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width = config.embedding_channels
        self.embedding = nn.Conv3d(INPUT_CHANNELS, width, PATCH_SIZE, PATCH_SIZE)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(
            *(
                SwinBlock(
                    width,
                    config.attention_heads,
                    config.window_size,
                    shifted=number % 2 == 1,
                    mlp_ratio=config.mlp_ratio,
                )
                for number in range(config.swin_blocks)
            )
        )
        same = width == config.shared_channels
        self.projection = nn.Identity() if same else nn.Conv3d(width, config.shared_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image to the global features."""
        tokens = halve(self.embedding(image)).movedim(1, -1)
        tokens = self.blocks(self.norm(tokens)).movedim(-1, 1)
        half = [side // 2 for side in image.shape[2:]]
        return F.interpolate(self.projection(tokens), half, mode="trilinear")


class CrossoverUnit(nn.Module):
    """f_task = w_task1 * CTX_local + w_task2 * GTX_global for each task (Eq. 4).

    Parameters
    ----------
    config : JointConfig
        ``crossover`` makes the learnable weights scalars or one per channel; the two
        ``crossover_*`` pairs are their initial values, which differ between the tasks.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width = config.shared_channels if config.crossover == "channel" else 1
        start = {
            "segmentation": config.crossover_segmentation,
            "classification": config.crossover_classification,
        }
        self.weights = nn.ParameterDict(
            {task: torch.tensor(start[task])[:, None].repeat(1, width) for task in config.tasks}
        )

    def forward(self, local: Tensor, global_: Tensor) -> dict[str, Tensor]:
        """Mix two tensors ``(B, C, D, H, W)`` into one of the same shape for each task."""
        global_ = global_.to(local.dtype)
        return {task: _mix(weights, local, global_) for task, weights in self.weights.items()}


def _mix(weights: Tensor, local: Tensor, global_: Tensor) -> Tensor:
    first, second = weights.to(local.dtype).reshape(2, 1, -1, 1, 1, 1)
    return first * local + second * global_
